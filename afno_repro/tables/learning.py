"""Which rows did not learn: those that are not shown to pass what their spec asks of a network that did."""

from collections import Counter

from afno_repro.spec.claims import Learned
from afno_repro.spec.spec import Column, Row
from afno_repro.tables.difference import difference
from afno_repro.tables.numbers import interval, signed
from afno_repro.tables.table import Cell, Table

MARK = "did not learn"


def unlearned(table: Table) -> dict[tuple[str, str], list[str]]:
    """Rows and stages that did not learn, each with what it is not shown to be above.

    A network did not learn unless the whole 95% interval of its difference to each criterion lies above zero, in the
    column's own sense: over seeds, paired with the same network from scratch, or alone against a filling or chance. A
    number without an interval has to be above itself. All columns of a stage are of one network, and so are those of
    a stage that only looks at it.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for criterion in table.spec.structure.learned:
        for column in [column for column in table.columns if column.key in criterion.column]:
            for row in [row for row in table.spec.rows if row.model is not None and row.key != criterion.above]:
                name, asked = _asked(table, criterion, row, column)
                if table.cell(row, column).value is None or asked.value is None:
                    continue
                margin = difference(table.cell(row, column), asked, 1 if column.higher_is_better else -1)
                if margin.mean <= (0 if margin.n == 1 else margin.reach):
                    seen = f"{signed(margin.mean, column)} {interval(margin, column)}".rstrip()
                    text = f"{column.title} is not shown to be better than {name}: {seen}"
                    found.setdefault((row.key, stage_of(column)), []).append(text)
    for name, stage in table.spec.structure.stages.items():
        if stage.get("kind") == "visualize":
            start = stage.get("init")
            found |= {(row, name): said for (row, of), said in found.items() if of == start}
    return found


def learning_notes(table: Table) -> list[str]:
    """Which rows did not learn, and why that is said of them, a line for each network."""
    named = Counter(row.title[-1] for row in table.spec.rows)
    titles = {row.key: row.title[-1] if named[row.title[-1]] == 1 else ", ".join(row.title) for row in table.spec.rows}
    said = {(row, "; ".join(texts)): None for (row, _), texts in unlearned(table).items()}
    return [f"{titles[row]} counts as one that {MARK}: {text}." for row, text in said]


def stage_of(column: Column) -> str:
    """The stage whose runs a column's numbers come from."""
    return column.source.split("/")[0]


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
