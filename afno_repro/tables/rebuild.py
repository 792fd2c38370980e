"""All files of a scale, written anew from records alone: tables, figures, reports, and the overviews beside them.

Beside a user's own tables stand those of the reference, told apart; the reference's own files know of no other.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from afno_repro.errors import ConfigError
from afno_repro.escape import visible
from afno_repro.faults import fault
from afno_repro.files import alone_in, write_atomic
from afno_repro.runs.store import records_folder
from afno_repro.spec.places import Places, scales_with_records, sound_specs
from afno_repro.spec.plan import Choice
from afno_repro.spec.spec import Spec
from afno_repro.tables.costs import costs_markdown
from afno_repro.tables.figures import draw_figures
from afno_repro.tables.report import readme, report_files
from afno_repro.tables.results import write_results
from afno_repro.tables.table import Table, build_table


def rebuild(
    places: Places, scale: str, choice: Choice, asked: Sequence[Spec] = (), publish: Callable[[], None] = lambda: None
) -> list[Table]:
    """Write the tables of a scale from records alone: of every spec that has some, and of those asked for.

    One process at a time: what `publish` puts among the records first cannot be missing from tables that another one
    writes later.
    """
    folder = places.results(scale, bool(choice.changes))
    with alone_in(folder, *folder.glob("records/*")):
        publish()
        fault("results: published")
        tables = _rebuild(places, folder, scale, choice, asked)
    if scale != "smoke" and not choice.changes:
        with alone_in(places.tables):
            write_overview(places, {scale: tables}, asked)
    return tables


def _rebuild(places: Places, folder: Path, scale: str, choice: Choice, asked: Sequence[Spec]) -> list[Table]:
    names = {spec.name: spec for spec in asked}
    for name in places.known_names():
        if name not in names and records_folder(folder, name).is_dir() and not choice.changes:
            names.update(_sound(places, name, asked))
    changes = choice.changes
    nameless = {path.name for path in folder.glob("records/*") if path.is_dir()} - {*places.known_names()}
    for name in sorted(nameless) if not asked else ():
        told = f"{records_folder(folder, name)}: there is no spec {name}; its records and files are left as they are"
        print(visible(told), file=sys.stderr)
    tables = [build_table(names[name], scale, records_folder(folder, name), changes) for name in sorted(names)]
    reference = (
        [] if places.as_reference or changes else _reference(places, scale, {*names, *places.spec_names()}, asked)
    )
    before = {name: _text(folder / f"{name}.md") for name in names}
    write_results(folder, tables, reference)
    new = {name for name in names if _text(folder / f"{name}.md") != before[name]} | {spec.name for spec in asked}
    figures = {
        table.spec.name: draw_figures(folder, table, redraw=not asked or table.spec.name in new) for table in tables
    }
    if not choice.changes:
        unrun = _unrun(places, scale, {*names})
        for path, text in report_files(folder, tables, figures, reference, unrun).items():
            write_atomic(path, text)
    return tables


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _unrun(places: Places, scale: str, others: set[str]) -> list[str]:
    """The specs that have a scale and are none of the others."""
    found = []
    for name in [name for name in places.spec_names() if name not in others]:
        with suppress(ConfigError):
            found += [name] if scale in sound_specs(places, name)[0].structure.scales else []
    return found


def _reference(places: Places, scale: str, names: set[str], asked: Sequence[Spec]) -> list[Table]:
    """The reference's tables of these names, by its own specs."""
    home = places.reference
    folders = {name: records_folder(home.results(scale), name) for name in sorted({*home.spec_names()} & names)}
    return [
        build_table(spec, scale, folder)
        for name, folder in folders.items()
        if folder.is_dir()
        for spec in _sound(home, name, asked).values()
    ]


def _sound(places: Places, name: str, asked: Sequence[Spec]) -> dict[str, Spec]:
    """A spec by its name; one with mistakes is told and left out where others were asked for."""
    try:
        return {name: sound_specs(places, name)[0]}
    except ConfigError as error:
        if not asked:
            raise
        told = f"{error}\n  {name} is left out of the report; when that is mended, afno report brings it back"
        print(visible(told), file=sys.stderr)
        return {}


def write_overview(places: Places, built: dict[str, list[Table]], asked: Sequence[Spec] = ()) -> None:
    """Write costs.md and README.md beside the scales.

    Costs are those of the paper's own models at every scale: each table's come from the first scale that has records.
    """
    scales: dict[str, list[Table]] = {}
    for scale in [each for each in scales_with_records(places) if each != "smoke"]:
        folder = places.results(scale)
        names = [name for name in places.known_names() if records_folder(folder, name).is_dir()]
        scales[scale] = built.get(scale) or [
            build_table(spec, scale, records_folder(folder, name))
            for name in names
            for spec in _sound(places, name, asked).values()
        ]
    if scales:
        first = {table.spec.name: table for tables in reversed(scales.values()) for table in tables}
        write_atomic(places.tables / "costs.md", costs_markdown([first[name] for name in sorted(first)]))
        write_atomic(places.tables / "README.md", readme(scales))
