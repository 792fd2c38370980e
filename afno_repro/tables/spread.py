"""What the spread of a table's numbers is over, in words: seeds, images of one network, forward passes."""

from collections.abc import Iterable

from afno_repro.tables.table import PASSES, Cell, Table

SPREAD_NOTE = (
    "± is a sample standard deviation; below each table stands what it is over: seeds, images of one network, or "
    "repeated forward passes."
)
OF = {"images": " of one network, trained with one seed", PASSES: " of one network, whose median is shown"}


def spread_note(table: Table) -> str:
    """What ± is over in each column that has one; a column without ± has one number for each row, or an exact one."""
    found: dict[str, list[str]] = {}
    for column in table.columns:
        if over := spread_over(table.cell(row, column) for row in table.spec.rows):
            found.setdefault(over, []).append(column.title)
    if not found:
        return "No number here has a spread: each is of one seed or exact."
    said = [over if len(found) == 1 else f"{over} ({', '.join(titles)})" for over, titles in found.items()]
    return f"± is the sample standard deviation over {'; over '.join(said)}."


def spread_over(cells: Iterable[Cell]) -> str:
    """What the spreads of some cells are over, like 3 seeds; empty where none has one."""
    counts: dict[str, set[int]] = {}
    for cell in cells:
        if cell.spread is not None:
            counts.setdefault(cell.over, set()).add(len(cell.samples))
    return " and ".join(f"{_range(n)} {over}{OF.get(over, '')}" for over, n in counts.items())


def _range(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
