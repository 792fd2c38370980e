"""report.md and report.html of a scale, and README.md beside the scales: what came out, from records alone."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from afno_repro.runs.record import Record
from afno_repro.spec.spec import Row
from afno_repro.tables.claims import Verdict, judged
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
from afno_repro.tables.learning import MARK, learning_notes
from afno_repro.tables.page import html_page
from afno_repro.tables.results import SCALE_NOTE, commit
from afno_repro.tables.spread import SPREAD_NOTE
from afno_repro.tables.table import Cell, Table
from afno_repro.tables.table_section import anchor, label, reference_section, table_section, tone

Verdicts = Mapping[str, Sequence[Verdict]]  # by spec

MEANING = {
    "cells": {
        "measured": "a number from runs of this reproduction",
        "quoted": "the paper took the row from elsewhere, and it is not run",
        "out_of_memory": "the run did not fit its device",
        "diverged": "the training diverged",
        "missing": "no number yet: see what is missing",
    },
    "counted costs": {
        "stated": "the count rounds to the printed value from the stated configuration",
        "assumed": "it does after a choice that the paper leaves open, listed with the table",
        "differs": "it does not, by the percentage given",
    },
    "claims": {
        "holds": "a sentence of the paper is true of the numbers here, with the whole 95% interval of every difference",
        "fails": "it is not, with the whole interval of a difference",
        "undecided": "an interval lies across, there is one seed, a row did not learn, or numbers are missing",
    },
    "claims after Holm": {
        "holds": "so it does after Holm's correction for all claims tested over seeds",
        "fails": "so it does after Holm's correction",
        "undecided": "no decision is left, or there was none",
    },
}


def report_files(
    folder: Path, tables: Sequence[Table], figures: Mapping[str, Sequence[Path]], reference: Sequence[Table] = ()
) -> dict[Path, str]:
    """The same content twice, as report.md and report.html: tables of one scale, PNG files by table name.

    Tables of the reference stand in a part of their own, with its name.
    """
    tables, reference = _ordered(tables), _ordered(reference)
    pictures = {name: [_figure(folder, path) for path in paths] for name, paths in figures.items()}
    others = [name for name in pictures if name not in {table.spec.name for table in tables}]
    scale = f": {table.scale} scale" if (table := next(iter([*tables, *reference]), None)) else ""
    verdicts = judged(tables)
    sections = [_summary(tables, verdicts)]
    for table in tables:
        sections.append(table_section(table, verdicts[table.spec.name], pictures.get(table.spec.name, [])))
    sections += [Section(label(name), pictures[name], label(name), anchor(name)) for name in others]
    lead = (
        "The tables and figures of Adaptive Fourier Neural Operators (Guibas et al. 2021) as their reproduction's "
        "records show them."
    )
    sections += [_missing(tables), _provenance(tables), *([reference_section(reference)] if reference else [])]
    document = Document(f"AFNO reproduction{scale}", [Paragraph(lead)], sections)
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
        overview = _overview(tables, judged(tables), links_to, titled=True)
        blocks: list[Block] = [Paragraph(SCALE_NOTE.get(scale, "")), Listing(links), overview]
        sections.append(Section(f"{scale.capitalize()} scale", blocks))
    return markdown(Document("Results", [lead], sections))


def _ordered(tables: Sequence[Table]) -> list[Table]:
    """The paper's tables, then its figures."""
    return sorted(tables, key=lambda table: (not table.spec.name.startswith("table"), table.spec.name))


def _figure(folder: Path, path: Path) -> Figure:
    return Figure(label(path.stem), os.path.relpath(path, folder), path.read_bytes())


def _summary(tables: Sequence[Table], verdicts: Verdicts) -> Section:
    """Cells by state, counted costs by verdict, claims by outcome, each with what it means; then the same by table."""
    counts = [_counts(table, verdicts) for table in tables]
    blocks: list[Block] = []
    for group, words in MEANING.items():
        total = sum((count[group] for count in counts), Counter[str]())
        shown = [word for word in [*words, *sorted(set(total) - set(words))] if total[word] or group != "cells"]
        items: list[Text] = [
            (Span(str(total[word]), "strong"), " ", tone(word), f": {words.get(word, 'see the records')}")
            for word in shown
        ]
        blocks.append(
            Section(
                group[0].upper() + group[1:],
                [Listing(items), *(_decided(tables, verdicts) if group == "claims" else [])],
            )
        )
    lost: list[Text] = [(_link(table), f": {note}") for table in tables for note in learning_notes(table)]
    blocks += [Section(f"Rows that {MARK}", [Listing(lost)])] if lost else []
    notes = [SCALE_NOTE[table.scale] for table in tables[:1]]
    notes += [
        SPREAD_NOTE,
        "Counted costs are those of the paper's own models at every scale.",
        "Rows in italics are not in the paper.",
    ]
    blocks.append(Section("How to read the numbers", [Listing(notes)]))
    blocks.append(
        Section("By table", [_overview(tables, verdicts, {t.spec.name: f"#{anchor(t.spec.name)}" for t in tables})])
    )
    return Section("Summary", blocks, "Summary", "summary")


def _link(table: Table) -> Span:
    return Span(label(table.spec.name), link=f"#{anchor(table.spec.name)}")


def _counts(table: Table, verdicts: Verdicts) -> dict[str, Counter[str]]:
    """How many cells, counted costs and claims are in which state; cells that the table has no use for are none."""
    cells = table.cells.values()
    states = Counter(cell.state for cell in cells if cell.state != "not_applicable")
    return {
        "cells": states,
        "counted costs": Counter(cell.verdict for cell in cells if cell.verdict),
        "claims": Counter(verdict.outcome for verdict in verdicts[table.spec.name]),
        "claims after Holm": Counter(verdict.corrected for verdict in verdicts[table.spec.name]),
    }


def _overview(tables: Sequence[Table], verdicts: Verdicts, links: Mapping[str, str], titled: bool = False) -> Grid:
    """A line of counts for each table; what two tables share counts in both."""
    counts = [_counts(table, verdicts) for table in tables]
    groups = {
        group: [word for word in words if group != "cells" or any(count[group][word] for count in counts)]
        for group, words in MEANING.items()
    }
    heads = [
        Head("Table"),
        *(
            Head(group, tuple(word.replace("_", " ") for word in words), number=True)
            for group, words in groups.items()
            if words
        ),
    ]
    lines: list[list[Text]] = []
    for table, count in zip(tables, counts, strict=True):
        numbers = [str(count[group][word]) for group, words in groups.items() for word in words]
        title = f": {table.spec.structure.title}" if titled else ""
        lines.append([(Span(label(table.spec.name), link=links[table.spec.name]), title), *numbers])
    return Grid("Cells, counted costs and claims by table; what two tables share counts in both", heads, lines)


def _decided(tables: Sequence[Table], verdicts: Verdicts) -> list[Block]:
    """The claims for which all numbers are there, and how many wait for some."""
    found = [(table, verdict) for table in tables for verdict in verdicts[table.spec.name]]
    items: list[Text] = []
    for outcome in MEANING["claims"]:
        for table, verdict in found:
            if verdict.outcome == outcome and verdict.worst is not None:
                why = f": {verdict.reason}" if verdict.reason else ""
                items.append((tone(outcome), f": {verdict.claim.claim} (", _link(table), f"){why}"))
    waiting = sum(verdict.worst is None for _, verdict in found)
    items += [f"{waiting} more are undecided because numbers are missing."] if waiting else []
    lead = "The claims of the paper for which all numbers are there:"
    return [Paragraph(lead), Listing(items)] if items else []


def _missing(tables: Sequence[Table]) -> Section:
    """Cells without a number or with too few seeds: the command that fills them, or the reason why none does."""
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
    blocks += [Section("Records of another config than the spec's, not used", [Listing(stale)])] if stale else []
    return Section("What is missing", blocks, "What is missing", "missing")


def _gap(table: Table, row: Row, cell: Cell) -> tuple[str, Span] | None:
    command = Span(table.command(row), "code")
    if cell.state == "missing":
        return cell.state, command if cell.note == command.text else Span(cell.note)
    if cell.state in ("quoted", "not_applicable"):
        return None
    if cell.state != "measured":
        return cell.state, Span(f"the run ended so: {', '.join(cell.runs)}")
    return (cell.note, command) if cell.note else None


def _provenance(tables: Sequence[Table]) -> Section:
    """Commits, packages and devices of all records, each record once, and the time of their devices."""
    records = list({record.digest: record for table in tables for record in table.records}.values())
    lines: list[list[Text]] = []
    mixed = []
    for title, what in (("Commit", commit), ("Device", _device), ("Packages", _packages)):
        found = Counter(what(record) for record in records)
        mixed += [f"{title.lower().removesuffix('s')}s"] if len(found) > 1 else []
        lines += [[title, text, str(count)] for text, count in sorted(found.items())]
    unused = Counter(_unused(record) for record in records if record.provenance.get("left_out"))
    lines += [["Files not used", text, str(count)] for text, count in sorted(unused.items())]
    total = (
        f"{len(records)} runs, {_hours(records):.3g} device-hours in all; a run that several tables share counts once."
    )
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
    return Section("Provenance", blocks, "Provenance", "provenance")


def _device(record: Record) -> str:
    devices = record.provenance.get("devices", 1)
    return f"{record.provenance['device']}{f', {devices} of them' if devices > 1 else ''}"


def _unused(record: Record) -> str:
    count, first = record.provenance["left_out"], record.provenance.get("first_left_out", [])
    return f"{count} of {record.config.data.name}: {', '.join(first)}{', ...' * (count > len(first))}"


def _packages(record: Record) -> str:
    packages = record.provenance["packages"]
    known = [f"{name} {packages[name]}" for name in sorted(packages) if packages[name] and name != "afno_repro"]
    return ", ".join([f"Python {record.provenance['python']}", *known])


def _hours(records: Iterable[Record]) -> float:
    return (
        sum((float(record.provenance["seconds"] * record.provenance.get("devices", 1)) for record in records), 0.0)
        / 3600
    )
