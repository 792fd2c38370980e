"""Tables as files: CSV and Markdown like the paper's, the ledger of cells, the claims. Names what is in results/."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from afno_repro.escape import csv_lines, md, md_code, md_start
from afno_repro.files import write_atomic
from afno_repro.runs.record import Record
from afno_repro.spec.spec import Column
from afno_repro.tables.claim_words import CSV_HEADER, HEADS, claim_line, claims_legend, csv_line, margins
from afno_repro.tables.claims import Verdict, judged
from afno_repro.tables.document import Grid, grid_markdown
from afno_repro.tables.grid import grid
from afno_repro.tables.latex import table_tex
from afno_repro.tables.learning import MARK, further_notes, learning_notes, stage_of, unlearned
from afno_repro.tables.numbers import counted, number, six
from afno_repro.tables.scales import scale_note
from afno_repro.tables.sources import mixed_sources, source_notes
from afno_repro.tables.spread import spread_note
from afno_repro.tables.table import Table

CELL_HEADER = [
    "table",
    "row",
    "column",
    "unit",
    "value",
    "spread",
    "seeds",
    "paper",
    "difference",
    "verdict",
    "state",
    "runs",
    "note",
]
REFERENCE_NOTE = "The results that ship with afno_repro, for comparison. Nothing of this part was computed here."


def write_results(folder: Path, tables: Sequence[Table], reference: Sequence[Table] = ()) -> list[Path]:
    """Write every table, with the reference's, and the ledger of cells and claims; returns the files."""
    files, verdicts = {}, judged(tables)
    beside = {table.spec.name: table for table in reference}
    for table in tables:
        files[folder / f"{table.spec.name}.csv"] = table_csv(table)
        files[folder / f"{table.spec.name}.tex"] = table_tex(table)
        files[folder / f"{table.spec.name}.md"] = table_markdown(
            table, verdicts[table.spec.name], beside.get(table.spec.name)
        )
    changes = tables[0].changes if tables else ()  # those of a folder have the same
    claims = [csv_line(table.spec.name, verdict) for table in tables for verdict in verdicts[table.spec.name]]
    files[folder / "cells.csv"] = _csv([CELL_HEADER, *(line for table in tables for line in _ledger(table))], changes)
    files[folder / "claims.csv"] = _csv([CSV_HEADER, *claims], changes)
    for path, text in files.items():
        write_atomic(path, text)
    return list(files)


def table_csv(table: Table) -> str:
    """The table as the paper has it: printed columns, then rows in order, values rounded as the paper prints them."""
    columns = [column for column in table.columns if column.printed]
    names = [part.lower().replace(" ", "_") for part in table.spec.structure.row_title]
    header = [
        "row",
        *names,
        *(f"{column.key}{end}" for column in columns for end in ("", "_spread", "_paper", "_verdict")),
    ]
    lines = []
    for row in table.spec.rows:
        line = [row.key, *row.title]
        for column in columns:
            cell = table.cell(row, column)
            line += [
                number(cell.value, column),
                number(cell.spread, column, cell.value),
                number(cell.paper, column),
                cell.verdict,
            ]
        lines.append(line)
    return _csv([header, *lines], table.changes)


def _csv(lines: Sequence[Sequence[str]], changes: Sequence[str]) -> str:
    """CSV; where `--set` changed something each line ends with it."""
    told = ["set", *["; ".join(changes)] * (len(lines) - 1)]
    return csv_lines([[*line, said] for line, said in zip(lines, told, strict=True)] if changes else lines)


def _ledger(table: Table) -> Iterable[list[str]]:
    lost = unlearned(table)
    for row in table.spec.rows:
        for column in table.columns:
            cell = table.cell(row, column)
            numbers = [six(cell.value), six(cell.spread), str(cell.seeds), six(cell.paper), six(cell.difference)]
            yield [
                table.spec.name,
                row.key,
                column.key,
                column.unit,
                *numbers,
                cell.verdict,
                cell.state,
                ";".join(cell.runs),
                "; ".join(filter(None, (MARK if (row.key, stage_of(column)) in lost else "", cell.note))),
            ]


def table_markdown(table: Table, verdicts: Sequence[Verdict], reference: Table | None = None) -> str:
    """The table beside the paper's numbers, then what stands behind it: claims, assumptions, provenance.

    The reference's table of the same spec stands last.
    """
    spec = table.spec.structure
    parts = [
        f"# {table.spec.name}: {md(spec.title)} ({md(table.at)})",
        scale_note(table.scale, [table]),
        _grid(table, [column for column in table.columns if column.printed]),
        _legend(table),
    ]
    extra = [column for column in table.columns if not column.printed]
    if extra:
        parts += [f"## {also_measured(table)}", _grid(table, extra)]
    if spec.claims:
        parts += ["## The paper's claims, tested here", _claims(verdicts)]
    if spec.assumptions:
        parts += [
            "## Assumptions",
            "Where the paper is silent or contradicts itself, the spec chooses:",
            _assumptions(table),
        ]
    if spec.remarks:
        parts += ["## What does not add up", "\n\n".join(md_start(md(remark)) for remark in spec.remarks)]
    parts += ["## Provenance", _provenance(table)]
    if reference:
        columns = [column for column in reference.columns if column.printed]
        parts += ["## Reference", REFERENCE_NOTE, _grid(reference, columns), _provenance(reference)]
    return "\n\n".join(parts) + "\n"


def also_measured(table: Table) -> str:
    """The title of the columns that are not the paper's."""
    return "Also measured" + (", not printed in the paper" if table.in_paper else "")


def _grid(table: Table, columns: list[Column]) -> str:
    header, lines = grid(table, columns)
    titles = len(table.spec.structure.row_title)
    rule = ["---"] * titles + ["---:"] * (len(header) - titles)
    cells = [[md(part) for part in header], rule]
    for row, line in zip(table.spec.rows, lines, strict=True):
        cells.append([md(part) if row.printed or i >= titles else f"*{md(part)}*" for i, part in enumerate(line)])
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def _legend(table: Table) -> str:
    """How to read the grid, and what is missing from it."""
    lines = [spread_note(table)]
    if any(cell.verdict for cell in table.cells.values()):
        lines.append(
            "Costs are those of the paper's own models. "
            "*Stated*: the count rounds to the printed value from the stated configuration; "
            "*assumed*: it does after a choice listed below; *differs*: it does not, by the percentage given."
        )
    if any(not row.printed for row in table.spec.rows):
        lines.append("Rows in italics are not in the paper.")
    lines += [f"- {md_start(md(text))}" for text in (*learning_notes(table), *further_notes(table))]
    lines += [f"- {md_start(md(text))}" for text in _noted(table)]
    lines += [f"- stale record, not used: {md(text)}" for text in table.stale]
    return "\n".join(lines)


def _noted(table: Table) -> list[str]:
    """What is said of cells, once for all rows of which the same is said in the same columns."""
    columns: dict[tuple[str, str], list[str]] = {}
    for (row, column), cell in table.cells.items():
        if cell.note:
            columns.setdefault((row, f"{cell.state} ({cell.note})"), []).append(column)
    rows: dict[tuple[str, str], list[str]] = {}
    for (row, said), keys in columns.items():
        rows.setdefault((", ".join(keys), said), []).append(row)
    return [f"{keys} of {', '.join(of)}: {said}" for (keys, said), of in rows.items()]


def _claims(verdicts: Sequence[Verdict]) -> str:
    lines = grid_markdown(Grid("", HEADS, [claim_line(verdict) for verdict in verdicts]))
    return "\n".join([lines, "", claims_legend(verdicts), *(f"- {md_start(md(text))}" for text in margins(verdicts))])


def _assumptions(table: Table) -> str:
    lines = []
    for a in table.spec.structure.assumptions:
        cells = f" Cells that agree only because of it: {', '.join(a.cells)}." if a.cells else ""
        lines.append(f"- {md_code(a.key)}: {md(str(a.choice))}. {md(a.why)}{md(cells)}")
    return "\n".join(lines)


def _provenance(table: Table) -> str:
    """What the records were made with; a mixture of commits, devices or sources is said."""
    if not table.records:
        return "No records."
    lines = []
    for title, what in (
        ("Commit", commit),
        ("Device", lambda made: str(made["device"])),
        ("Packages", _packages),
    ):
        found = sorted({what(made) for record in table.records for made in record.stretches})
        mixed = " **The records mix them.**" if len(found) > 1 and title != "Packages" else ""
        lines.append(f"- {title}: {md('; '.join(found))}{mixed}")
    if {record.source for record in table.records} == {None}:
        lines.append("- Source: made before records knew the source that made them.")
    for of, sources in mixed_sources(table.records).items():
        lines.append(f"- Source of {md(of)}: {md('; '.join(sources))} **The records mix them.**")
    lines += [f"- Source: {md(note)}" for note in source_notes(table)]
    fed = sorted({trained_on(record) for record in table.records} - {""})
    lines += [f"- Trained on {md('; '.join(fed))}."] if fed else []
    seconds = sum(record.seconds for record in table.records)
    lines.append(f"- {counted(len(table.records), 'run')}, {seconds:.0f} s of computing in all.")
    return "\n".join(lines)


def trained_on(record: Record) -> str:
    """What a training was fed, in words; nothing of a run that trains nothing, or that did not know."""
    images = record.provenance.get("images") or []
    if len(images) != 2:
        return ""
    return f"{record.config.data.title}: {counted(images[0], 'image')}, and {images[1]} to validate"


def commit(made: Mapping[str, Any]) -> str:
    """What the code was, in words."""
    commit = made["commit"]
    if not commit:
        return "unknown (not run from a checkout)"
    return f"{commit[:12]}{' with local changes' if made['dirty'] else ''}"


def _packages(made: Mapping[str, Any]) -> str:
    versions = made["packages"] | {"Python": made["python"]}
    return ", ".join(f"{name} {versions[name]}" for name in ("Python", "torch", "numpy", "scikit-image"))
