"""report.md and report.html of a scale, and README.md beside the scales: what came out, from records alone."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from afno_repro.runs.record import Record
from afno_repro.spec.spec import Row
from afno_repro.tables.captions import captions
from afno_repro.tables.claims import judged
from afno_repro.tables.document import (
    Block,
    Document,
    Figure,
    Grid,
    Head,
    Listing,
    Paragraph,
    Section,
    Span,
    Text,
    markdown,
)
from afno_repro.tables.numbers import counted
from afno_repro.tables.page import html_page
from afno_repro.tables.results import commit, trained_on
from afno_repro.tables.scales import scale_note
from afno_repro.tables.sources import mixed_sources, source_notes
from afno_repro.tables.summary import overview, summary
from afno_repro.tables.table import Cell, Table
from afno_repro.tables.table_section import KINDS, anchor, label, reference_section, table_section


def report_files(
    folder: Path,
    tables: Sequence[Table],
    figures: Mapping[str, Sequence[Path]],
    reference: Sequence[Table] = (),
    unrun: Sequence[str] = (),
) -> dict[Path, str]:
    """The same content twice, as report.md and report.html: tables of one scale, PNG files by table name.

    Tables of the reference stand in a part of their own, with its name; `unrun` are specs that have no records.
    """
    tables, reference = _ordered(tables), _ordered(reference)
    said = {stem: text for table in tables for stem, text in captions(table).items()}
    pictures = {name: [_figure(folder, path, said) for path in paths] for name, paths in figures.items()}
    others = [name for name in pictures if name not in {table.spec.name for table in tables}]
    scale = next((table.scale for table in [*tables, *reference]), "")
    verdicts = judged(tables)
    sections = [summary(tables, verdicts)]
    for table in tables:
        sections.append(table_section(table, verdicts[table.spec.name], pictures.get(table.spec.name, [])))
    sections += [Section(label(name), pictures[name], label(name), anchor(name)) for name in others]
    caveat = [Paragraph(Span(scale_note(scale, tables or reference), "strong"))] if scale else []
    lead = (
        "The tables and figures of Adaptive Fourier Neural Operators (Guibas et al. 2021) as their reproduction's "
        "records show them."
    )
    sections += [
        _missing(tables, scale, unrun),
        _provenance(tables),
        *([reference_section(reference)] if reference else []),
    ]
    title = f"AFNO reproduction{f': {scale} scale' if scale else ''}"
    document = Document(title, [*caveat, Paragraph(lead)], sections)
    return {folder / "report.md": markdown(document), folder / "report.html": html_page(document)}


def readme(scales: Mapping[str, Sequence[Table]]) -> str:
    """README.md: each scale's counts with links to its report and tables."""
    lead = Paragraph(
        (
            "Rebuilt by ",
            Span("afno report", "code"),
            " from records. All counted costs of the paper: ",
            Span("costs.md", link="costs.md"),
            ".",
        )
    )
    sections = []
    for scale, built in scales.items():
        tables = _ordered(built)
        files = {
            "the whole report": "report.html",
            "as Markdown": "report.md",
            "every cell": "cells.csv",
            "every claim": "claims.csv",
        }
        links = [(f"{what}: ", Span(file, link=f"{scale}/{file}")) for what, file in files.items()]
        links_to = {table.spec.name: f"{scale}/{table.spec.name}.md" for table in tables}
        counts = overview(tables, judged(tables), links_to, titled=True)
        blocks: list[Block] = [Paragraph(scale_note(scale, tables)), Listing(links), counts]
        sections.append(Section(f"{scale.capitalize()} scale", blocks))
    return markdown(Document("Results", [lead], sections))


def _ordered(tables: Sequence[Table]) -> list[Table]:
    """The paper's tables, then its figures, then what it does not have."""
    return sorted(tables, key=lambda table: ([not table.spec.name.startswith(kind) for kind in KINDS], table.spec.name))


def _figure(folder: Path, path: Path, said: Mapping[str, str]) -> Figure:
    return Figure(said.get(path.stem, label(path.stem)), os.path.relpath(path, folder), path.read_bytes())


def _missing(tables: Sequence[Table], scale: str, unrun: Sequence[str]) -> Section:
    """Cells without a number or with too few seeds: the command that fills them, or the reason why none does."""
    whole: list[Text] = [(f"{label(name)}: ", Span(f"afno run {name} --scale {scale}", "code")) for name in unrun]
    lines: list[list[Text]] = []
    for table in tables:
        gaps: dict[tuple[str, str, Span], list[str]] = {}
        for row in table.spec.rows:
            for column in table.columns:
                cell = table.cell(row, column)
                gap = _gap(table, row, cell)
                if gap is not None:
                    gaps.setdefault((row.key, *gap), []).append(column.title)
        for (key, state, remedy), titles in gaps.items():
            lines.append(
                [
                    label(table.spec.name),
                    Span(key, "code"),
                    ", ".join(titles),
                    Span(state.replace("_", " "), state),
                    remedy,
                ]
            )
    heads = [Head("Table"), Head("Row"), Head("Columns"), Head("State"), Head("Command that fills it, or reason")]
    blocks: list[Block] = [Grid("Cells to fill", heads, lines, titles=2)] if lines else [Paragraph("No cell is.")]
    stale = [f"{label(table.spec.name)}: {text}" for table in tables for text in table.stale]
    blocks += [Section("Records that are not the spec's, not used", [Listing(stale)])] if stale else []
    blocks += [Section("Tables and figures of which nothing was run", [Listing(whole)])] if whole else []
    return Section("What is missing", blocks, "What is missing", "missing")


def _gap(table: Table, row: Row, cell: Cell) -> tuple[str, Span] | None:
    command = Span(table.command(row) + (" --rerun" if cell.mark else ""), "code")
    if cell.state == "missing":
        return cell.state, command if cell.note == command.text else Span(cell.note)
    if cell.state in ("quoted", "not_applicable"):
        return None
    if cell.state != "measured":
        return cell.state, Span(f"the run ended so: {', '.join(cell.runs)}")
    return (cell.note, command) if cell.note else None


def _provenance(tables: Sequence[Table]) -> Section:
    """Commits, packages and devices of all records, each record once, and the time of their devices."""
    records = list({_made(record): record for table in tables for record in table.records}.values())
    lines: list[list[Text]] = []
    mixed = []
    for title, what in (("Commit", commit), ("Device", _device), ("Packages", _packages)):
        found = Counter(text for record in records for text in {what(made) for made in record.stretches})
        mixed += [f"{title.lower().removesuffix('s')}s"] if len(found) > 1 else []
        lines += [[title, text, str(count)] for text, count in sorted(found.items())]
    mixed += ["sources"] if mixed_sources(records) else []
    fed = Counter(said for record in records if (said := trained_on(record)))
    lines += [["Trained on", text, str(count)] for text, count in sorted(fed.items())]
    unused = Counter(_unused(record) for record in records if record.provenance.get("left_out"))
    lines += [["Files not used", text, str(count)] for text, count in sorted(unused.items())]
    total = f"{counted(len(records), 'run')}, {_hours(records):.3g} device-hours in all; "
    total += "a run that several tables share counts once."
    mixture = (" ", Span(f"The records mix {' and '.join(mixed)}.", "strong")) if mixed else ()
    blocks: list[Block] = [Paragraph((total, *mixture))]
    blocks.append(
        Grid("What the records were made with", [Head("What"), Head("Made with"), Head("Runs", number=True)], lines)
    )
    times: list[list[Text]] = [
        [label(table.spec.name), str(len(table.records)), f"{_hours(table.records):.3g}"] for table in tables
    ]
    blocks.append(
        Grid(
            "Device-hours by table",
            [Head("Table"), Head("Runs", number=True), Head("Device-hours", number=True)],
            times,
        )
    )
    notes: list[Text] = [f"{label(table.spec.name)}: {note}" for table in tables for note in source_notes(table)]
    blocks += [Listing(notes)] if notes else []
    return Section("Provenance", blocks, "Provenance", "provenance")


def _made(record: Record) -> tuple[object, ...]:
    """What tells a record from another one, of the same config too."""
    return record.digest, *(str(record.provenance[key]) for key in ("commit", "device", "seconds"))


def _device(made: Mapping[str, Any]) -> str:
    devices = made.get("devices", 1)
    return f"{made['device']}{f', {devices} of them' if devices > 1 else ''}"


def _unused(record: Record) -> str:
    count, first = record.provenance["left_out"], record.provenance.get("first_left_out", [])
    return f"{count} of {record.config.data.title}: {', '.join(first)}{', ...' * (count > len(first))}"


def _packages(made: Mapping[str, Any]) -> str:
    packages = made["packages"]
    known = [f"{name} {packages[name]}" for name in sorted(packages) if packages[name] and name != "afno_repro"]
    return ", ".join([f"Python {made['python']}", *known])


def _hours(records: Iterable[Record]) -> float:
    return sum((record.device_seconds for record in records), 0.0) / 3600
