"""A table as lines of text: row titles, then each column's value here and, where it is comparable, the paper's."""

from afno_repro.spec.spec import Column
from afno_repro.tables.learning import MARK, stage_of, unlearned
from afno_repro.tables.numbers import number, percent
from afno_repro.tables.table import Cell, Table

BRIEF = {"stated": "=", "assumed": "~", "differs": "!"}


def grid(table: Table, columns: list[Column], brief: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and lines of text: the row's title parts, then the value here and, where it is comparable, the paper's.

    `brief` shows verdicts as BRIEF's signs.
    """
    with_paper = _with_paper(table, columns)
    header = list(table.spec.structure.row_title)
    for column in columns:
        header += [
            column.title + (f" ({column.unit})" if column.unit else ""),
            *(["paper"] if column in with_paper else []),
        ]
    lines, lost = [], unlearned(table)
    for row in table.spec.rows:
        line = list(row.title)
        for column in columns:
            cell = table.cell(row, column)
            line += [
                here(cell, column, (row.key, stage_of(column)) in lost),
                *([_papers(cell, column, brief) if column.key in row.paper else "–"] if column in with_paper else []),
            ]
        lines.append(line)
    return header, lines


def ranks(table: Table, columns: list[Column]) -> list[int]:
    """How soon a column may be missed, the highest first: the paper's costs, its qualities, the costs here."""
    with_paper, found = _with_paper(table, columns), [0] * len(table.spec.structure.row_title)
    for column in columns:
        rank = 1 if column.higher_is_better else 2
        found += [rank, *([rank + 2] if column in with_paper else [])]
    return found


def _with_paper(table: Table, columns: list[Column]) -> list[Column]:
    """The columns beside which the paper's stands."""
    return [column for column in columns if any(table.cell(row, column).paper is not None for row in table.spec.rows)]


def here(cell: Cell, column: Column, lost: bool) -> str:
    """A cell's own value with its spread, or the word for having none; one that is `lost` is not shown to learn."""
    if cell.value is None:
        return {"not_applicable": "–", "out_of_memory": "out of memory"}.get(cell.state, cell.state)
    spread = f" ± {number(cell.spread, column, cell.value)}" if cell.spread is not None else ""
    failed = f" ({cell.state.replace('_', ' ')})" if cell.state != "measured" else ""
    marks = (f" ({MARK})" if lost else "") + (f" ({cell.mark})" if cell.mark else "")
    return number(cell.value, column) + spread + failed + marks


def _papers(cell: Cell, column: Column, brief: bool) -> str:
    if cell.paper is None:
        return "–" if cell.state == "not_applicable" else "N/A"
    if brief:
        return f"{number(cell.paper, column)} {BRIEF.get(cell.verdict, '')}".rstrip()
    difference = f" {percent(cell.difference)}" if cell.verdict == "differs" and cell.difference is not None else ""
    return f"{number(cell.paper, column)}{f' ({cell.verdict}{difference})' if cell.verdict else ''}"
