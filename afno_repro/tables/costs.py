"""costs.md: every cost cell of the paper with its verdict, and what does not add up."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from afno_repro.escape import md
from afno_repro.spec.spec import Column, Row
from afno_repro.tables.numbers import percent
from afno_repro.tables.table import Cell, Table

COUNTERS = (
    "fvcore and PyTorch's FlopCounterMode ignore FFTs and all elementwise work and count a complex einsum as a quarter "
    "of its four real products. fvcore misses scaled_dot_product_attention on a CPU, and so does FlopCounterMode in "
    "torch 2.11, not in 2.15. fvcore cannot trace these networks on the meta device and rounds an einsum to four "
    "digits. On convolutions and linear layers both agree with the counter used here, which watches operators on the "
    "meta device, where a network of any size takes no memory."
)


@dataclass(frozen=True)
class CostCell:
    """A counted cell with its place."""

    table: Table
    row: Row
    column: Column
    cell: Cell


def cost_cells(tables: Sequence[Table]) -> list[CostCell]:
    """The cells that carry a verdict, equal ones once: Table 3 prints Table 2's costs again."""
    found: list[CostCell] = []
    elsewhere: dict[tuple[str, str], str] = {}
    for table in tables:
        for row in table.spec.rows:
            for column in table.columns:
                cell = table.cell(row, column)
                if cell.verdict:
                    first = elsewhere.setdefault((cell.runs[0].rsplit("-", 1)[-1], column.source), table.spec.name)
                    found += [CostCell(table, row, column, cell)] if first == table.spec.name else []
    return found


def printed_costs(tables: Sequence[Table]) -> list[CostCell]:
    """What every count of costs is about: distinct cells, less Table 1's, whose formulas are orders of growth."""
    return cost_cells([table for table in tables if table.spec.name != "table1"])


def costs_markdown(tables: Sequence[Table]) -> str:
    """The page: totals, a table of cells, remarks by table, stated configurations that the printed costs contradict."""
    cells = printed_costs(tables)
    totals = Counter(item.cell.verdict for item in cells)
    parts = [
        "# The paper's cost cells, counted",
        f"Of {len(cells)} distinct cost cells, {totals['stated']} round to the printed value from the stated "
        f"configuration, {totals['assumed']} do after a choice that the paper leaves open, and {totals['differs']} do "
        "not. Units are the paper's: parameters in millions, multiply-accumulates in 1e9 (which it calls GFLOPs). Each "
        "spec names its counting rule and its choices. Table 1's formulas are orders of growth and are compared in its "
        "own table.",
        _grid(cells),
        "## What does not add up",
    ]
    for table in tables:
        parts += [f"**{table.spec.name}.** {md(remark)}" for remark in table.spec.structure.remarks]
    others = [_unprinted(table, row) for table in tables for row in table.spec.rows if not row.printed and row.model]
    parts += ["## Networks described in the text, not in the tables", "\n".join(line for line in others if line)]
    parts += ["## What public counters miss", COUNTERS]
    return "\n\n".join(parts) + "\n"


def _grid(cells: Sequence[CostCell]) -> str:
    lines = [
        ["table", "row", "column", "here", "paper", "difference", "verdict"],
        ["---", "---", "---", "---:", "---:", "---:", "---"],
    ]
    for item in cells:
        cell, column = item.cell, item.column
        assert cell.value is not None
        assert cell.paper is not None
        here, paper = f"{cell.value:.{max(column.digits + 2, 2)}f}", f"{cell.paper:.{column.digits}f}"
        lines.append(
            [
                item.table.spec.name,
                md(item.row.title[-1]),
                md(column.title),
                here,
                paper,
                percent(cell.difference or 0.0),
                cell.verdict,
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _unprinted(table: Table, row: Row) -> str:
    """What was counted of a row that the paper does not print, in one line."""
    values = []
    for column in table.columns:
        cell = table.cell(row, column)
        if cell.value is not None and not cell.over:
            values.append(
                f"{column.title} {cell.value:.{max(column.digits + 1, 2)}f}"
                + (f" {column.unit}" if column.unit else "")
            )
    return f"- {table.spec.name}, {md(' '.join(row.title))}: {', '.join(map(md, values))}" if values else ""
