"""A table as a section of the report: paper, here and difference, claims, figures, and what stands behind each cell."""

import re
from collections.abc import Sequence

from afno_repro.spec.spec import Column, Row
from afno_repro.tables.claim_words import HEADS, claim_line, claims_legend, margins
from afno_repro.tables.claims import Verdict
from afno_repro.tables.document import Block, Figure, Grid, Head, Listing, Paragraph, Section, Span, Text
from afno_repro.tables.grid import here
from afno_repro.tables.learning import further_notes, learning_notes, stage_of, unlearned
from afno_repro.tables.numbers import number, percent
from afno_repro.tables.results import REFERENCE_NOTE, also_measured
from afno_repro.tables.spread import spread_note
from afno_repro.tables.table import Cell, Table

KINDS = {"table": "Table", "fig": "Figure"}


def label(name: str) -> str:
    """Table 2 for table2, Figure 4, sparsity for fig4_sparsity, and Own images for own_images, a spec of one's own."""
    parts = re.fullmatch(r"(table|fig)(\d+)(_.+)?", name)
    if parts is None:
        return f"{name[:1].upper()}{name[1:].replace('_', ' ')}"
    kind, number, rest = parts.groups("")
    return f"{KINDS[kind]} {number}{rest.replace('_', ', ', 1).replace('_', ' ')}"


def anchor(name: str) -> str:
    """A table's place in the document."""
    return re.sub(r"[^\w-]", "-", name)


def tone(word: str) -> Span:
    """The word for a state, a verdict or an outcome."""
    return Span(word.replace("_", " "), word)


def table_section(table: Table, verdicts: Sequence[Verdict], figures: Sequence[Figure]) -> Section:
    """A table as the paper has it, its claims and figures, then what stands behind them."""
    spec = table.spec.structure
    name = label(table.spec.name)
    caption = f"{name} as the paper has it; a column without the paper's value is of the {table.scale} scale alone"
    caption = caption if table.in_paper else f"{name}, {table.scale} scale; the paper prints none of these numbers"
    printed, extra = ([column for column in table.columns if column.printed is wanted] for wanted in (True, False))
    blocks: list[Block] = [_mirror(table, printed, caption)]
    blocks.append(Listing([spread_note(table), *learning_notes(table), *further_notes(table)]))
    if extra:
        blocks.append(Section(also_measured(table), [_mirror(table, extra, f"{name}, further columns")], folded=True))
    blocks.append(Section("Runs, seeds and spec lines", [_runs(table)], folded=True))
    if verdicts:
        grid = Grid(claims_legend(verdicts), HEADS, [claim_line(verdict) for verdict in verdicts])
        why: list[Block] = [Listing(margins(verdicts))] if margins(verdicts) else []
        blocks.append(Section("The paper's claims, tested here", [grid, *why]))
    blocks += [Section("Figures", figures)] if figures else []
    blocks += [Section("What does not add up in the paper", [Listing(tuple(spec.remarks))])] if spec.remarks else []
    blocks += (
        [Section(f"Assumptions ({len(spec.assumptions)})", _assumptions(table), folded=True)]
        if spec.assumptions
        else []
    )
    return Section(f"{name}: {spec.title}", blocks, name, anchor(table.spec.name))


def reference_section(tables: Sequence[Table]) -> Section:
    """The printed columns of the reference's tables, each marked as such."""
    parts = []
    for table in tables:
        name, columns = f"Reference: {label(table.spec.name)}", [column for column in table.columns if column.printed]
        parts.append(Section(name, [_mirror(table, columns, f"{name}, {table.scale} scale", "reference")]))
    return Section("Reference", [Paragraph(REFERENCE_NOTE), *parts], "Reference", "reference")


def _mirror(table: Table, columns: Sequence[Column], caption: str, source: str = "here") -> Grid:
    """The table's rows: here, and beside it the paper where the scale lets them, and the difference where it is judged.

    That order is the one of every table of results.
    """
    compared = {
        column.key for column in columns if any(table.cell(row, column).paper is not None for row in table.spec.rows)
    }
    judged = {column.key for column in columns if any(table.cell(row, column).verdict for row in table.spec.rows)}
    heads = [Head(title) for title in table.spec.structure.row_title]
    for column in columns:
        title = column.title + (f" ({column.unit})" if column.unit else "")
        parts = (source, "paper", *(["difference"] if column.key in judged else []))
        heads.append(Head(title, parts if column.key in compared else (), number=True))
    lost = unlearned(table)
    lines: list[list[Text]] = []
    for row in table.spec.rows:
        line: list[Text] = [part if row.printed else Span(part, "em") for part in row.title]
        for column in columns:
            cell = table.cell(row, column)
            value = here(cell, column, (row.key, stage_of(column)) in lost)
            shown = value if cell.value is not None or cell.state == "not_applicable" else Span(value, cell.state)
            line += [shown, *([_paper(row, cell, column)] if column.key in compared else [])]
            line += [_difference(cell)] if column.key in judged else []
        lines.append(line)
    return Grid(caption, heads, lines, titles=len(table.spec.structure.row_title))


def _paper(row: Row, cell: Cell, column: Column) -> str:
    if cell.paper is not None:
        return number(cell.paper, column)
    return "–" if column.key not in row.paper or cell.state == "not_applicable" else "N/A"


def _difference(cell: Cell) -> Text:
    """Of a counted cost, which has a verdict; nothing judges what was timed or trained by the paper's number."""
    return (f"{percent(cell.difference or 0.0)} ", tone(cell.verdict)) if cell.verdict else "–"


def _assumptions(table: Table) -> list[Block]:
    items: list[Text] = []
    for each in table.spec.structure.assumptions:
        cells = f" Cells that agree only because of it: {', '.join(each.cells)}." if each.cells else ""
        items.append((Span(each.key, "code"), f": {each.choice}. {each.why}{cells}"))
    return [Paragraph("Where the paper is silent or contradicts itself, the spec chooses:"), Listing(items)]


def _runs(table: Table) -> Grid:
    """Which runs and seeds are behind which cells, and where the spec has the row."""
    seeds = {record.digest: record.config.seed for record in table.records}
    lines: list[list[Text]] = []
    for row in table.spec.rows:
        place = table.spec.row_tree(row.key).place.rsplit(":", 1)[0]
        behind: dict[tuple[str, ...], list[str]] = {}
        for column in table.columns:
            cell = table.cell(row, column)
            if cell.runs or cell.state == "quoted":
                behind.setdefault(cell.runs or (cell.note,), []).append(column.title)
        for runs, titles in (behind or {("none",): ["–"]}).items():
            known = sorted({seeds[run.rsplit("-", 1)[-1]] for run in runs if run.rsplit("-", 1)[-1] in seeds})
            names = [part for run in runs for part in (", ", Span(run, "code" if known else ""))][1:]
            lines.append(
                [
                    Span(row.key, "code"),
                    Span(place, "code"),
                    ", ".join(titles),
                    ", ".join(map(str, known)) or "–",
                    tuple(names),
                ]
            )
    return Grid(
        "What each cell is made of",
        [Head("Row"), Head("Spec line"), Head("Columns"), Head("Seeds"), Head("Runs")],
        lines,
    )
