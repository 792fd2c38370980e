"""Which rows are not shown to learn: those that are not shown to pass what their spec asks of a network that did."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from afno_repro.spec.claims import Learned
from afno_repro.spec.spec import Column, Row
from afno_repro.tables.difference import Difference, difference
from afno_repro.tables.numbers import interval, signed
from afno_repro.tables.table import Cell, Table

MARK = "not shown to learn"


@dataclass(frozen=True)
class Gain:
    """By how much a row's cell passes what a criterion asks, `name` in words."""

    row: Row
    column: Column
    name: str
    by: Difference

    @property
    def shown(self) -> bool:
        """Whether the whole interval lies above zero, of one seed the number itself."""
        return self.by.mean > (0 if self.by.n == 1 else self.by.reach)

    def __str__(self) -> str:
        return f"{signed(self.by.mean, self.column)} {interval(self.by, self.column)}".rstrip()


def unlearned(table: Table) -> dict[tuple[str, str], list[str]]:
    """Rows and stages not shown to learn, each with what it is not shown to be above.

    A network is shown to learn where the whole 95% interval of its difference to each criterion lies above zero, in the
    column's own sense: over seeds, paired with the same network from scratch, or alone against a filling or chance. A
    number without an interval has to be above itself. All columns of a stage are of one network, and so are those of
    a stage that only looks at it.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for gain in _gains(table, decide=True):
        if not gain.shown:
            text = f"{gain.column.title} is not shown to be better than {gain.name}: {gain}"
            found.setdefault((gain.row.key, stage_of(gain.column)), []).append(text)
    for name, stage in table.spec.structure.stages.items():
        if stage.get("kind") == "visualize":
            start = stage.get("init")
            found |= {(row, name): said for (row, of), said in found.items() if of == start}
    return found


def learning_notes(table: Table) -> list[str]:
    """Which rows are not shown to learn, and why that is said of them, a line for each network."""
    rows = {row.key: row for row in table.spec.rows}
    said = {(row, "; ".join(texts)): None for (row, _), texts in unlearned(table).items()}
    return [f"{_named(table, rows[row])} is {MARK}: {text}." for row, text in said]


def further_notes(table: Table) -> list[str]:
    """What rows fall short of though no claim waits for it, a line each; and the least gain where one seed shows it."""
    short: dict[str, dict[str, list[str]]] = {}
    for gain in [gain for gain in _gains(table, decide=False) if not gain.shown]:
        short.setdefault(gain.name, {}).setdefault(_named(table, gain.row), []).append(f"{gain.column.title} {gain}")
    notes = []
    for name, rows in short.items():
        seen = "; ".join(f"{row}, {', '.join(gains)}" for row, gains in rows.items())
        notes.append(f"Not shown to be better than {name}: {seen}.")
    alone: dict[tuple[str, str], Gain] = {}
    for gain in sorted(_gains(table, decide=True), key=lambda gain: gain.by.mean):
        if gain.by.n == 1 and gain.shown:
            alone.setdefault((gain.column.key, gain.name), gain)
    least = [f"{_named(table, gain.row)}, {gain.column.title} {gain} above {gain.name}" for gain in alone.values()]
    if least:
        notes.append(f"With one seed no interval shows that a row learned. The least gain: {'; '.join(least)}.")
    return notes


def stage_of(column: Column) -> str:
    """The stage whose runs a column's numbers come from."""
    return column.source.split("/")[0]


def _gains(table: Table, decide: bool) -> Iterator[Gain]:
    """Of all cells that have to pass something, by criteria that decide or that do not."""
    for criterion in [each for each in table.spec.structure.learned if each.decides is decide]:
        for column in [column for column in table.columns if column.key in criterion.column]:
            for row in [row for row in table.spec.rows if row.model is not None and row.key != criterion.above]:
                name, asked = _asked(table, criterion, row, column)
                own = table.cell(row, column)
                if own.value is not None and asked.value is not None and not own.mark and not asked.mark:
                    by = difference(own, asked, 1 if column.higher_is_better else -1)
                    yield Gain(row, column, name, by)


def _named(table: Table, row: Row) -> str:
    """A row by its last title, where no other has the same."""
    alone = Counter(each.title[-1] for each in table.spec.rows)[row.title[-1]] == 1
    return row.title[-1] if alone else ", ".join(row.title)


def _asked(table: Table, criterion: Learned, row: Row, column: Column) -> tuple[str, Cell]:
    """What a row has to be better than, in words and as a cell."""
    if criterion.chance is not None:
        chance = criterion.chance[table.scale]  # type: ignore[index]
        return f"chance ({chance:g})", Cell("measured", chance)
    for other in table.spec.rows:
        if other.key == criterion.above:
            return other.title[-1], table.cell(other, column)
    scratch = next(each for each in table.columns if each.key == criterion.above)
    return scratch.title, table.cell(row, scratch)
