"""A table is a view on records: every cell finds its runs, or says why it has no number."""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afno_repro.runs.record import Record
from afno_repro.runs.store import published, published_seeds
from afno_repro.spec.plan import Choice, Need, Plan, Run, plan_runs, stage_scale
from afno_repro.spec.resolve import SEEDED
from afno_repro.spec.spec import Column, Row, Spec
from afno_repro.tables.alike import WHY, apart, is_orphan

if TYPE_CHECKING:
    import pandas as pd


PASSES = "forward passes"
OVER = {"profile": PASSES, "visualize": "images"}  # what the repeats of a run of this kind are


@dataclass(frozen=True)
class Cell:
    """One number: mean and sample standard deviation over `samples`, by seed, or by place where one run has several.

    `over` says what the samples are, seeds, images of one network or forward passes; nothing where the number is exact.
    `state` is measured, quoted, out_of_memory, diverged, missing or not_applicable; `paper` is None where the scale
    makes the paper's value incomparable; `verdict` is stated, assumed or differs, for counted costs alone.
    """

    state: str
    value: float | None = None
    spread: float | None = None
    samples: Mapping[int, float] = field(default_factory=dict)
    over: str = ""
    seeds: int = 0
    paper: float | None = None
    verdict: str = ""
    runs: tuple[str, ...] = ()
    note: str = ""
    mark: str = ""  # what was not the same as of cells that should have seen the same: see alike.py

    @property
    def difference(self) -> float | None:
        """Percent by which the value differs from the paper's."""
        return None if self.value is None or not self.paper else 100 * (self.value - self.paper) / self.paper


@dataclass(frozen=True)
class Table:
    """A spec's rows and columns with their cells, the records found for them, and the seeds that they average."""

    spec: Spec
    scale: str
    columns: list[Column]
    cells: Mapping[tuple[str, str], Cell]  # by row and column key
    found: Mapping[Need, Record]
    stale: list[str]
    seeds: tuple[int, ...]
    changes: tuple[str, ...]  # what --set made different from the spec
    data: frozenset[str]  # the data sets that its runs are fed

    @property
    def at(self) -> str:
        """The scale, and what differs there from the spec."""
        return f"{self.scale} scale" + (f", changed by{_options(self.changes)}" if self.changes else "")

    @property
    def records(self) -> list[Record]:
        """The records, each once."""
        return list({record.digest: record for record in self.found.values()}.values())

    @property
    def in_paper(self) -> bool:
        """Whether the paper prints numbers of it."""
        return any(row.paper for row in self.spec.rows)

    def command(self, row: Row) -> str:
        """The command that fills a row's cells."""
        return _command(self.spec, self.scale, self.seeds, self.changes, row)

    def cell(self, row: Row, column: Column) -> Cell:
        """The cell of a row and a column."""
        return self.cells[row.key, column.key]


def build_table(spec: Spec, scale: str, records: Path, changes: tuple[str, ...] = ()) -> Table:
    """The table of a spec at a scale from the records in a folder, found by row, stage and seed.

    Its seeds are the scale's and those of further records. A record of another config than the spec's, or that started
    from another training than the one shown, is stale: named, and its cell missing.
    """
    own = tuple(spec.structure.scales[scale].seeds) if scale in spec.structure.scales else ()
    further = sorted(published_seeds(records) - {*own})
    plan = plan_runs(spec, scale, Choice(all_seeds=(*own, *further), changes=changes))
    found: dict[Need, Record] = {}
    stale: list[str] = []
    known: dict[str, Record | None] = {}
    for (row, stage, seed), run in plan.needs.items():  # parents first
        record = _read(records, row, stage, seed, run, stale)
        if record is not None and is_orphan(run, record, known):
            stale.append(f"{row}/{stage} seed {seed}: started from another training than the one shown")
            known[run.digest] = record = None
        if record is not None:
            found[row, stage, seed] = known[run.digest] = record
    seeds = (*own, *(seed for seed in further if any(need[2] == seed for need in found)))
    plan = replace(plan, needs={need: run for need, run in plan.needs.items() if need[2] in (0, *seeds)})
    data = frozenset(run.config.data.title for run in plan.needs.values() if run.config.data.name is not None)
    columns, command = spec.columns(scale), partial(_command, spec, scale, seeds, changes)
    values, marks = _aggregate(columns, found), apart(plan.needs, found)
    cells = {
        (row.key, column.key): _cell(plan, row, column, found, values, command)
        for row in spec.rows
        for column in columns
    }
    for (row, key), cell in cells.items():
        column = next(column for column in columns if column.key == key)
        mark = marks.get((row, column.source.split("/")[0]))
        if cell.value is not None and mark:
            cells[row, key] = replace(cell, mark=mark, note="; ".join(filter(None, (cell.note, WHY[mark]))))
    return Table(spec, scale, columns, cells, found, stale, seeds, changes, data)


def _read(folder: Path, row: str, stage: str, seed: int, run: Run, stale: list[str]) -> Record | None:
    try:
        record = published(folder, row, stage, seed)
    except (OSError, ValueError) as error:
        stale.append(f"{row}/{stage} seed {seed}: {error}")
        return None
    if record is not None and record.digest != run.digest:
        stale.append(f"{row}/{stage} seed {seed}: made with another config, {record.digest} instead of {run.digest}")
        return None
    return record


def _aggregate(columns: list[Column], found: Mapping[Need, Record]) -> "pd.DataFrame":
    """Mean, sample standard deviation and samples per row and column; a lone run's repeats count as its samples."""
    import pandas as pd  # not above: listing tables needs no pandas

    runs = Counter((row, stage) for row, stage, _ in found)
    rows: list[dict[str, Any]] = []
    for (row, stage, seed), record in found.items():
        for column in columns:
            source, metric = column.source.split("/")
            scores = record.scores
            if source == stage and metric in scores:
                alone = runs[row, stage] == 1 and metric in record.repeats
                samples = dict(enumerate(record.repeats[metric])) if alone else {seed: scores[metric]}
                rows += [
                    {"row": row, "column": column.key, "seed": seed, "center": scores[metric], "key": k, "sample": s}
                    for k, s in samples.items()
                ]
    frame = pd.DataFrame(rows, columns=["row", "column", "seed", "center", "key", "sample"])
    grouped = frame.sort_values(["row", "column", "seed"], kind="stable").groupby(["row", "column"])
    return grouped.agg(
        value=("center", "mean"),
        spread=("sample", "std"),
        keys=("key", tuple),
        samples=("sample", tuple),
        seeds=("seed", "nunique"),
    )


def _cell(
    plan: Plan,
    row: Row,
    column: Column,
    found: Mapping[Need, Record],
    values: "pd.DataFrame",
    command: Callable[[Row], str],
) -> Cell:
    stage = column.source.split("/")[0]
    wanted = [need for need in plan.needs if need[:2] == (row.key, stage)]
    at_paper = stage_scale(plan.spec, plan.scale, stage) == "paper"
    paper = row.paper.get(column.key) if at_paper else None
    if not wanted:
        reason = plan.spec.structure.scales[plan.scale].unavailable.get(stage, "")  # type: ignore[index]
        if row.quoted and column.key in row.paper:
            return Cell("quoted", note=f"quoted by the paper from {row.quoted}")
        return Cell("missing", paper=paper, note=reason) if reason and row.printed else Cell("not_applicable")
    records = [found[need] for need in wanted if need in found]
    ids = tuple(record.run_id for record in records)
    failed = sorted({record.outcome for record in records if record.outcome != "ok"})
    if (row.key, column.key) not in values.index:
        if not failed and not column.printed and len(records) == len(wanted):
            return Cell("not_applicable")  # such as a layer that a scale's smaller network does not have
        state = failed[0] if failed else "missing"
        done = not failed and len(records) == len(wanted)
        note = "" if failed else _without(records, column) if done else command(row)
        return Cell(state, paper=paper, runs=ids, note=note)
    entry: Any = values.loc[(row.key, column.key)]
    value, spread = float(entry["value"]), float(entry["spread"])
    counted = plan.needs[wanted[0]].config.counted
    verdict = _verdict(plan.spec, row, column, value, paper) if counted and paper is not None else ""
    note = f"{len(records)} of {len(wanted)} seeds" if len(records) < len(wanted) else ""
    state = failed[0] if failed else "measured"
    return Cell(
        state,
        value,
        None if spread != spread else spread,
        dict(zip(entry["keys"], entry["samples"], strict=True)),
        _over(records, column),
        int(entry["seeds"]),
        paper,
        verdict,
        ids,
        note,
    )


def _without(records: list[Record], column: Column) -> str:
    """That finished runs have another metric than a column asks for; a training may have been before it was added."""
    metric, known = column.source.split("/")[1], ", ".join(sorted(records[0].scores)) or "none"
    later = "; afno evaluate adds what its task has since" if records[0].config.train is not None else ""
    return f"its record has no {metric}, only {known}{later}"


def _command(spec: Spec, scale: str, seeds: tuple[int, ...], changes: tuple[str, ...], row: Row) -> str:
    more = set(seeds) - {*spec.structure.scales[scale].seeds}  # type: ignore[index]
    options = (f" --seeds {max(more) + 1}" if more else "") + _options(changes)
    return f"afno run {spec.name} --scale {scale} --row {row.key}{options}"


def _options(changes: tuple[str, ...]) -> str:
    return "".join(f" --set {shlex.quote(change)}" for change in changes)


def _over(records: list[Record], column: Column) -> str:
    """What the samples of a cell are, if there can be several."""
    kind, metric = records[0].config.kind, column.source.split("/")[1]
    if len(records) == 1 and metric in records[0].repeats:
        return OVER.get(kind, "repeats")
    return "seeds" if kind in SEEDED else ""


def _verdict(spec: Spec, row: Row, column: Column, value: float, paper: float) -> str:
    """Whether a counted cost rounds to the printed value, and whether an assumption was needed for it."""
    if f"{value:.{column.digits}f}" != f"{paper:.{column.digits}f}":
        return "differs"
    chosen = any(f"{row.key}/{column.key}" in assumption.cells for assumption in spec.structure.assumptions)
    return "assumed" if chosen else "stated"
