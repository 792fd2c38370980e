"""`afno list`: of every spec what ships as reference, what is yours, what is missing, and what `afno run` would do."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, some, tell
from afno_repro.commands.arguments import HERE
from afno_repro.commands.completion import spec_names

if TYPE_CHECKING:
    from afno_repro.config import Machine
    from afno_repro.runs.record import Record
    from afno_repro.spec.places import Places
    from afno_repro.spec.plan import Need, Plan

DEFAULT = "tiny"  # the scale of the commands where none is named
NOTED = {  # what is said of some of your runs, with how many of which table
    "other_source": "made by other source than today's, or before records knew it",
    "no_source": "source not compared, for the module of a mixer of one's own is not found (is it in PYTHONPATH?)",
    "left_out": "files of the data that were not used (their records name the first)",
}


def list_tables(
    spec: Annotated[
        str | None,
        typer.Argument(help="A spec, whose runs at one scale are shown.", autocompletion=spec_names),
    ] = None,
    scale: given.SomeScale = None,
    root: given.Root = HERE,
    runs: given.Runs = None,
    json: given.Json = False,
) -> None:
    """Show what of every spec is reference, yours or missing. Also what `afno run` would do; or the runs of one."""
    from afno_repro.runs.machine import Asked
    from afno_repro.spec.places import asked_scales

    places, scales = given.places(root, runs), asked_scales(scale)
    machine = given.machine(Asked(), root, None, runs)
    if spec is None:
        tell(overview(places, scales, machine), json)
    else:
        tell(runs_of(places, spec, scale or DEFAULT, machine), json)


def overview(places: "Places", scales: list[str], machine: "Machine") -> Answer:
    """Every spec at every scale: how many of its runs have records, and where; as text also the disk in use."""
    from afno_repro.commands.terminal import print_grid, say
    from afno_repro.runs.source import source_hash, source_of
    from afno_repro.spec.places import sound_specs
    from afno_repro.spec.plan import plan_runs
    from afno_repro.tables.numbers import counted

    value: list[dict[str, Any]] = []
    source = source_hash()
    for spec in sound_specs(places, "all"):
        for scale in [scale for scale in scales if scale in spec.structure.scales]:
            asked = plan_runs(spec, scale)
            plan = with_further_seeds(places, asked)
            yours, reference = recorded(places, plan), recorded(places.reference, plan)
            missing = {need: f"{need[0]}/{need[1]}" for need in plan.needs if need not in {*yours, *reference}}
            left = to_do(asked, machine)
            counts = {
                "runs": len(plan.needs),
                "reference": len(reference),
                "yours": len(yours),
                "missing_runs": len(missing),
                "to_do": sum(run.digest in left for run in plan.needs.values()),
            }
            entry = {"table": spec.name, "title": spec.structure.title, "scale": scale, **counts}
            unused = max((record.provenance.get("left_out", 0) for record in yours.values()), default=0)
            today = [source_of(record.config, source) for record in yours.values()]
            made = [record.source for record in yours.values()]
            other = sum(now is not None and now != then for now, then in zip(today, made, strict=True))
            entry |= {"missing": sorted({*missing.values()}), "other_source": other, "no_source": today.count(None)}
            value.append({**entry, "left_out": unused})

    def show() -> None:
        shown = [e for e in value if len(scales) == 1 or e["scale"] == DEFAULT or e["reference"] or e["yours"]]
        heads = {
            "runs": "runs",
            "reference": "reference",
            "yours": "yours",
            "missing_runs": "missing",
            "to_do": "run does",
        }
        lines = [[e["table"], e["scale"], *(str(e[key]) for key in heads)] for e in shown]
        print_grid("Runs with records, by table", ["table", "scale", *heads.values()], lines)
        for scale in scales:
            rest = [e for e in value if e["scale"] == scale and e not in shown]
            if rest:
                counts = f"{counted(sum(e['runs'] for e in rest), 'run')} of {counted(len(rest), 'more table')}"
                say(f"{scale}: {counts}, none with records; afno list --scale {scale} shows them")
        say(*_where(places, scales))
        say(f"run does: what afno run would do, for it looks for finished work in {places.runs} alone")
        for key, meaning in NOTED.items():
            if named := [f"{e['table']} {e['scale']} {e[key]}" for e in value if e[key]]:
                say(f"{meaning}: {', '.join(named)}")
        if further := [name for name in places.known_names() if name not in places.spec_names()]:
            say(f"specs that ship and can be named too: {some(further)}; afno init copies them")
        say("disk: " + ", ".join(f"{folder} {_disk(folder)}" for folder in (places.runs, places.tables)))

    return Answer(value, show)


def _where(places: "Places", scales: list[str]) -> list[str]:
    """Where the records of these scales lie, and which command shows their runs."""
    if len(scales) == 1:
        mine, option = str(places.results(scales[0])), f" --scale {scales[0]}"
    else:
        mine, option = f"{places.tables}, those of smoke scale in {places.results('smoke')}", ""
    return [
        f"reference: in {places.reference.tables}; yours: in {mine}",
        f"afno list table2{option} shows the runs of one table",
    ]


def runs_of(places: "Places", name: str, scale: str, machine: "Machine") -> Answer:
    """Every run of a spec at a scale: whether the reference has it, whether you have, what `afno run` would do."""
    from afno_repro.commands.terminal import print_grid
    from afno_repro.runs.store import Store
    from afno_repro.spec.places import at_scale, sound_specs
    from afno_repro.spec.plan import plan_runs

    value: list[dict[str, Any]] = []
    store = Store(machine.runs_root)
    for spec in at_scale(sound_specs(places, name), scale):
        asked = plan_runs(spec, scale)
        plan, left = with_further_seeds(places, asked), to_do(asked, machine)
        yours, reference = recorded(places, plan), recorded(places.reference, plan)
        for (row, stage, seed), run in plan.needs.items():
            entry = {"table": spec.name, "scale": scale, "row": row, "stage": stage, "seed": seed, "run": run.id}
            need = (row, stage, seed)
            held = {"reference": need in reference, "yours": need in yours, "to_do": run.digest in left}
            value.append({**entry, **held, "half_done": held["to_do"] and store.half_done(run)})

    def show() -> None:
        heads = ["row", "stage", "seed", "reference", "yours", "run"]
        for table in dict.fromkeys(e["table"] for e in value):
            print_grid(f"Runs of {table} at {scale} scale", heads, [_line(e) for e in value if e["table"] == table])

    return Answer(value, show)


def _line(entry: dict[str, Any]) -> list[str]:
    held = ["yes" if entry[key] else "" for key in ("reference", "yours")]
    state = "half done" if entry["half_done"] else "to do" if entry["to_do"] else "done"
    return [entry["row"], entry["stage"], str(entry["seed"]), *held, state]


def with_further_seeds(places: "Places", plan: "Plan") -> "Plan":
    """A plan and your runs of more seeds than its scale has, which tables show too."""
    from afno_repro.runs.store import published_seeds, records_folder
    from afno_repro.spec.plan import Choice, plan_runs

    own = plan.spec.structure.scales[plan.scale].seeds  # type: ignore[index]
    further = published_seeds(records_folder(places.results(plan.scale), plan.spec.name)) - {*own}
    if not further:
        return plan
    wider = plan_runs(plan.spec, plan.scale, Choice(all_seeds=(*own, *sorted(further))))
    yours = recorded(places, wider)
    return replace(plan, needs={n: run for n, run in wider.needs.items() if n in plan.needs or n in yours})


def recorded(places: "Places", plan: "Plan") -> "dict[Need, Record]":
    """The records of a plan's runs that tables are built from, of today's config."""
    from afno_repro.runs.store import readable, records_folder

    folder = records_folder(places.results(plan.scale), plan.spec.name)
    found = {need: readable(folder, *need) for need in plan.needs} if folder.is_dir() else {}
    return {need: r for need, r in found.items() if r is not None and r.digest == plan.needs[need].digest}


def to_do(plan: "Plan", machine: "Machine") -> set[str]:
    """The digests of the runs that `afno run` would do: those not finished, and those that start from one of them."""
    from afno_repro.errors import StorageError
    from afno_repro.runs.machine import on
    from afno_repro.runs.store import Store

    store, done = Store(machine.runs_root), set[str]()
    for run in plan.runs:  # parents first
        if run.config.init is None or run.parent is None or run.config.init in done:
            with suppress(StorageError):  # which `afno run` tells
                done |= {run.digest} if store.finished(run, on(machine, run)) is not None else set()
    return {run.digest for run in plan.runs} - done


def _disk(folder: Path) -> str:
    """What the files of a folder take; one that goes while we look takes nothing."""
    size = 0
    for inner, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(inner, name)).st_size
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
