"""One command's work: load, plan, check, execute, write. torch is imported only when something is left to run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from afno_repro.config import Machine
from afno_repro.errors import ConfigError, DataError, LockedError, Problem, StorageError
from afno_repro.files import check_writable
from afno_repro.runs.devices import told
from afno_repro.runs.machine import on
from afno_repro.runs.show import Place, Show
from afno_repro.runs.source import source_of
from afno_repro.runs.store import Store, publish, records_folder
from afno_repro.spec.places import Places, at_scale, load_specs
from afno_repro.spec.plan import Choice, Plan, Run, resolve_runs
from afno_repro.tables.rebuild import rebuild
from afno_repro.tables.table import Table


@dataclass
class Prepared:
    """What a command will do: plans, the runs still to do, and the runs left out for lack of data, with the reason.

    `follows` marks all processes but the first, where several share every run.
    """

    plans: list[Plan]
    pending: list[Run] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)  # digest: reason
    forgotten: list[Run] = field(default_factory=list)  # what is done again from the start
    elsewhere: list[Run] = field(default_factory=list)  # finished or half-done runs that other source made
    follows: bool = False

    @property
    def runnable(self) -> list[Run]:
        return [run for run in self.pending if run.digest not in self.absent]


def follows(machine: Machine) -> bool:
    """Whether this process is not the first of several that share every run, which alone writes and speaks."""
    if machine.devices == 1:
        return False
    from afno_repro.training import engine

    return engine.rank() > 0


def prepare(
    places: Places, name: str, scale: str, choice: Choice, machine: Machine, show: Show, check_all: bool = False
) -> Prepared:
    """Load, plan and check: every mistake is raised at once, before any work; absent data leave runs out.

    `check_all` looks at the models of finished runs too. Of several specs those without the scale are not meant.
    """
    loaded = load_specs(places, name)
    problems = [problem for _, found in loaded for problem in found]
    plans = []
    for spec in at_scale([spec for spec, _ in loaded if spec is not None], scale):
        plan, found = resolve_runs(spec, scale, choice)
        plans.append(plan)
        problems += found
    prepared = Prepared(plans)
    store = Store(machine.runs_root)
    every = {run.digest: run for plan in plans for run in plan.runs}
    pending = {run.digest for run in every.values() if store.finished(run, on(machine, run)) is None}
    if pending or choice.rerun:  # said before torch is imported, which takes its time
        show.note(f"{name} at {scale} scale {told(machine)}")
    problems += _made_otherwise(prepared, every, store, machine, pending, choice.rerun)
    pending |= {run.digest for run in prepared.forgotten}
    for run in every.values():  # parents first; what starts from a run that is done anew may have to be, too
        pending |= {run.digest} if run.config.init in pending else set()
    prepared.pending = [run for run in every.values() if run.digest in pending]
    if prepared.pending or problems or check_all:
        from afno_repro.runs.check import check_runs, metric_problems

        digests = {run.digest for run in prepared.pending}
        for plan in plans:
            chosen = plan.runs if check_all or problems else [run for run in plan.runs if run.digest in digests]
            problems += [p for p in check_runs(plan, chosen) if p not in problems]
            if not problems and choice.rows is None and choice.kinds is None:
                problems += metric_problems(plan)
    if problems:
        raise ConfigError(*problems)
    if prepared.pending:
        from afno_repro.runs.absent_data import absent_data

        prepared.absent = absent_data(prepared.pending, machine)
    if machine.devices > 1:
        _agree(prepared, machine)
    return prepared


def _made_otherwise(
    prepared: Prepared, every: dict[str, Run], store: Store, machine: Machine, pending: set[str], rerun: bool
) -> list[Problem]:
    """Find what was made or begun with other data, which is a mistake, or by other source; or have both done again."""
    begun = [digest for digest in sorted(pending) if store.find(digest) is not None]
    different: dict[str, Problem] = {}
    if looked := [run for run in every.values() if run.digest not in pending or run.digest in begun]:
        from afno_repro.runs.bound import altered, other_data

        different = other_data(looked, machine)
        if wrong := [told for run in looked if run.digest not in pending and (told := altered(run, machine))]:
            raise StorageError("\n".join(wrong))
    records = [(run, store.record(run.digest)) for run in every.values() if run.digest not in pending]
    today = partial(source_of, package=machine.code["source"])
    prepared.elsewhere = [run for run, record in records if record and record.source != today(run.config)]
    prepared.elsewhere += [
        run
        for run in (every[digest] for digest in begun)
        if store.half_done(run) and {made.get("source") for made in store.before(run)} != {today(run.config)}
    ]
    if not rerun:
        return list(different.values())
    failed = [run for run, record in records if record and record.outcome != "ok"]
    again = {run.digest for run in (*prepared.elsewhere, *failed)} | set(different)
    prepared.forgotten, prepared.elsewhere = [run for run in every.values() if run.digest in again], []
    return []


def _agree(prepared: Prepared, machine: Machine) -> None:
    """Let the first process say what is left to do: the others may have looked at another moment."""
    from afno_repro.training import engine

    left = set(engine.agreed([run.digest for run in prepared.runnable]))
    prepared.follows = follows(machine)
    if prepared.follows:
        every = {run.digest: run for plan in prepared.plans for run in plan.runs}
        prepared.pending, prepared.absent = [run for run in every.values() if run.digest in left], {}


def reproduce(
    places: Places, prepared: Prepared, scale: str, choice: Choice, machine: Machine, show: Show
) -> tuple[list[Table], int]:
    """Do what is left to do, put the records where tables are built from, write the tables.

    Returns the tables of the specs asked for and the exit code. Raises LockedError, StorageError and Interrupted after
    everything that was finished has been written.
    """
    if prepared.follows:
        _execute(prepared, machine, show)
        return [], 0
    folder = places.results(scale, bool(choice.changes))
    for reason in dict.fromkeys(prepared.absent.values()):
        rows = sorted({run.row for run in prepared.pending if prepared.absent.get(run.digest) == reason})
        show.note(f"left out: {', '.join(rows)}\n{reason}")
    if prepared.pending and not prepared.runnable:
        raise DataError("nothing can run without these data")
    check_writable(folder)
    check_writable(machine.runs_root)
    if prepared.elsewhere:
        show.note(other_source(prepared.elsewhere))
    store = Store(machine.runs_root)
    forgotten = [run for run in prepared.forgotten if run.digest not in prepared.absent]
    for run in forgotten:  # where somebody holds one, nothing is lost
        with store.lock(run):
            pass
    for run in forgotten:
        store.forget(run)
    failures: list[Any] = []
    try:
        failures = _execute(prepared, machine, show)
    finally:
        tables = rebuild(
            places,
            scale,
            choice,
            [plan.spec for plan in prepared.plans],
            partial(_publish, prepared.plans, machine, folder),
        )
    for kind in (StorageError, LockedError):
        messages = [f.message for f in failures if f.exit_code == kind.exit_code]
        if messages:
            raise kind("\n".join(dict.fromkeys(messages)))
    asked = [table for table in tables if table.spec.name in {plan.spec.name for plan in prepared.plans}]
    whole = not failures and all(
        _complete(table, plan, choice) for table, plan in zip(asked, prepared.plans, strict=True)
    )
    return asked, 0 if whole else 4


def other_source(runs: Sequence[Run]) -> str:
    """What to say of runs that other source than today's made."""
    names = ", ".join(run.id for run in runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
    return f"made by other source than today's, afno run --rerun does them again: {names}"


def _execute(prepared: Prepared, machine: Machine, show: Show) -> list[Any]:
    if not prepared.runnable:
        return []
    from afno_repro.runs.schedule import execute

    show.plan(_places(prepared))
    return execute(prepared.runnable, machine, show)


def _places(prepared: Prepared) -> list[Place]:
    """Every asked run among the rows and stages of its tables, with those that are done or left out."""
    waiting, found = {run.digest for run in prepared.runnable}, []
    for plan in prepared.plans:
        table = f"{plan.spec.name} " if len(prepared.plans) > 1 else ""
        for (row, stage, _), run in plan.needs.items():
            state = "waiting" if run.digest in waiting else "left_out" if run.digest in prepared.absent else "done"
            found.append(Place(run.digest, table + row, stage, state))
    return found


def _publish(plans: Sequence[Plan], machine: Machine, folder: Path) -> None:
    """Copy finished records to the folder that tables are built from."""
    store = Store(machine.runs_root)
    for plan in plans:
        for (row, stage, seed), run in plan.needs.items():
            record = store.record(run.digest)
            if record is not None:
                publish(records_folder(folder, plan.spec.name), row, stage, seed, record, store.directory(run))
                store.tidy(store.directory(run), record)


def _complete(table: Table, plan: Plan, choice: Choice) -> bool:
    """Whether every asked run has its record and every asked cell what the paper's has: a number, or no number where
    the paper prints none."""
    if {*plan.needs} - {*table.found}:
        return False
    rows = (
        {row for row, _, _ in plan.needs} if choice.kinds else set(choice.rows or [row.key for row in table.spec.rows])
    )
    stages = {stage for _, stage, _ in plan.needs} if choice.kinds else set(table.spec.stages)
    for row in table.spec.rows:
        for column in table.columns:
            cell = table.cell(row, column)
            if (
                row.key not in rows
                or column.source.split("/")[0] not in stages
                or cell.state in ("measured", "quoted", "not_applicable")
            ):
                continue
            if cell.state == "out_of_memory" and column.key in row.paper and row.paper[column.key] is None:
                continue
            return False
    return True
