"""The figures of a spec, drawn from its table and from the arrays beside its records.

Nothing is computed, torch is not needed.
"""

import csv
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afno_repro.config import RunConfig
from afno_repro.contents import sha256_of
from afno_repro.errors import DataError
from afno_repro.escape import csv_lines, drawable
from afno_repro.files import write_atomic
from afno_repro.runs.record import read_record
from afno_repro.runs.store import ARTIFACTS, LOG, committed_name, read_arrays, records_folder
from afno_repro.spec.figures import Figure
from afno_repro.spec.spec import Column, Row
from afno_repro.tables.learning import MARK, stage_of, unlearned
from afno_repro.tables.numbers import counted
from afno_repro.tables.spread import spread_over
from afno_repro.tables.table import Table

if TYPE_CHECKING:
    from afno_repro.visualize.curves import Log

Draw = Callable[[Table, Path, Mapping[str, Any], list[Path]], bool]
FORMATS = (".png", ".svg", ".pdf")
METRICS = {"miou": "mIoU"}  # that a column's title may leave out


def draw_figures(folder: Path, table: Table, redraw: bool) -> list[Path]:
    """Every figure of the table's spec that has something to show, in FORMATS; returns the PNG files.

    Drawn anew, or only where one of its files is missing.
    """
    files = []
    for figure in table.spec.structure.figures:
        options, stem = figure.model_dump(), stem_of(table, figure)
        paths = [folder / f"{stem}{ending}" for ending in FORMATS]
        fresh = all(path.is_file() for path in paths) and not redraw
        if fresh or FIGURES[options["name"]](table, records_folder(folder, table.spec.name), options, paths):
            files.append(paths[0])
        else:
            for path in paths:
                path.unlink(missing_ok=True)  # of records that are no more
        if options["name"] == "spectra":
            by_radius = folder / f"{stem}_by_radius.csv"
            found = arrays(table, records_folder(folder, table.spec.name), options["stage"])
            write_atomic(by_radius, radius_csv(found)) if found else by_radius.unlink(missing_ok=True)
    return files


def stem_of(table: Table, figure: Figure) -> str:
    """The name of a figure's files, less their endings."""
    return "_".join(part for part in (table.spec.name, figure.suffix) if part)


def drawn(folder: Path, table: Table) -> list[Path]:
    """The PNG files of the figures of the table's spec that are drawn."""
    paths = [folder / f"{stem_of(table, figure)}.png" for figure in table.spec.structure.figures]
    return [path for path in paths if path.is_file()]


def families(table: Table, records: Path, options: Mapping[str, Any], paths: list[Path]) -> bool:
    """Quality against parameters, a line for each family of rows (Figure 1)."""
    from afno_repro.visualize.curves import family_curves

    columns = {column.key: column for column in table.columns}
    lines: dict[str, list[tuple[float, float, float | None]]] = {}
    mixers: dict[str, str] = {}
    unplaced: dict[str, float] = {}
    lost: list[tuple[float, float]] = []
    flat = unlearned(table)
    for row in table.spec.rows:
        x, y = (table.cells[row.key, options[axis]] for axis in ("x", "y"))
        if x.value is not None and y.value is not None:
            lines.setdefault(drawable(family(row)), []).append((x.value, y.value, y.spread))
            mixers[drawable(family(row))] = mixer_of(row)
            lost += [(x.value, y.value)] if (row.key, stage_of(columns[options["y"]])) in flat else []
        elif x.value is not None and row.quoted:
            unplaced[drawable(row.title[0])] = x.value
    label = f"{measured(columns[options['x']])} of the paper's network"
    if lines:
        labels = (drawable(label), axis_title(table, columns[options["y"]]))
        family_curves(lines, mixers, unplaced, lost, labels, paths)
    return bool(lines)


def axis_title(table: Table, column: Column) -> str:
    """What was measured, in which unit, on which networks, and what the bars at its points are."""
    over = spread_over(table.cell(row, column) for row in table.spec.rows)
    return f"{drawable(measured(column))}\n{networks(table.scale)}" + (
        f"\n± standard deviation over {over}" if over else ""
    )


def measured(column: Column) -> str:
    """A column's title, with its metric and its unit."""
    metric = METRICS.get(column.source.split("/")[1].removeprefix("best_"), "")
    title = column.title if metric in column.title else f"{metric}, {column.title}"
    return title + (f" ({column.unit})" if column.unit else "")


def networks(scale: str) -> str:
    """Which networks a quality is of."""
    return f"networks of the {scale} scale"


def mixer_of(row: Row) -> str:
    """What a row's mixer is known by in figures: its name, or what the row calls it."""
    mixer = (row.model or {}).get("mixer")
    return str(mixer["name"]) if mixer else row.title[-1]


def family(row: Row) -> str:
    """A trunk's family: its name less the size, and its mixer."""
    return f"{row.title[0].split('-')[0]}, {row.title[1]}"


def ablation(table: Table, records: Path, options: Mapping[str, Any], paths: list[Path]) -> bool:
    """Columns against an option of the mixer (Figure 4)."""
    from afno_repro.visualize.curves import ablation_curves

    curves, lost, mixer = {}, {}, ""
    flat = unlearned(table)
    for column in [column for column in table.columns if column.key in options["columns"]]:
        points, crossed = [], []
        for row in table.spec.rows:
            cell = table.cell(row, column)
            if row.model is not None and cell.value is not None:
                x, mixer = float(row.model["mixer"][options["option"]]), mixer_of(row)
                points.append((x, cell.value, cell.spread))
                crossed += [(x, cell.value)] if (row.key, stage_of(column)) in flat else []
        if points:
            curves[axis_title(table, column)], lost[axis_title(table, column)] = points, crossed
    if curves:
        axis = drawable(options["axis"])
        ablation_curves(curves, lost, mixer, axis, options["linear_below"], options["peak"], paths)
    return bool(curves)


def training(table: Table, records: Path, options: Mapping[str, Any], paths: list[Path]) -> bool:
    """The training loss of every row and seed, and beside it the stage's first metric, from the logs by the records."""
    from afno_repro.visualize.curves import training_curves

    sources = {column: column.source.split("/") for column in table.columns}
    metrics = [(column, key.removeprefix("best_")) for column, (of, key) in sources.items() if of == options["stage"]]
    title, metric = (measured(metrics[0][0]), metrics[0][1]) if metrics else ("", "")
    runs: dict[str, list[Log]] = {}
    mixers: dict[str, str] = {}
    for row in table.spec.rows:
        for log in beside_records(table, records, row, options["stage"], ".csv"):
            if recorded(log, LOG):
                name = drawable(_named(table, row, options["stage"]))
                runs.setdefault(name, []).append(read_log(log, metric))
                mixers[name] = mixer_of(row)
    if runs:
        training_curves(runs, mixers, networks(table.scale), drawable(title), paths)
    return bool(runs)


def _named(table: Table, row: Row, stage: str) -> str:
    """The row's title, with a word where the network that a stage shows is not shown to learn."""
    return row.title[-1] + (f" ({MARK})" if (row.key, stage) in unlearned(table) else "")


def beside_records(table: Table, records: Path, row: Row, stage: str, suffix: str) -> list[Path]:
    """The files that lie beside the records of a row and a stage that the table shows, by seed."""
    seeds = sorted(seed for at, of, seed in table.found if (at, of) == (row.key, stage))
    files = (records / committed_name(row.key, stage, seed) for seed in seeds)
    return [file.with_suffix(suffix) for file in files if file.with_suffix(suffix).is_file()]


def recorded(file: Path, name: str) -> bool:
    """Whether a file lies beside a record, which knows it as `name`.

    Raises DataError when it is not the one that was written.
    """
    try:
        record = read_record(file.with_suffix(".json"))
    except (OSError, ValueError):
        return False
    if (record.provenance.get("files") or {}).get(name) not in (None, sha256_of(file)):
        raise DataError(f"{file}: not the bytes that were written; the run makes them again")
    return True


def read_log(path: Path, metric: str) -> "Log":
    """(step, loss) and (step, metric) of a run's log, the latter where it was evaluated. Raises DataError when it is
    none."""
    try:
        with path.open() as file:
            lines = list(csv.DictReader(file))
        return tuple(
            [(float(line["step"]), float(line[key])) for line in lines if key == "loss" or line.get(key)]
            for key in ("loss", metric)
        )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: is no log of a training ({error})") from None


def arrays(table: Table, records: Path, stage: str) -> dict[str, dict[str, Any]]:
    """What the pictures of a stage are drawn from, by the row's title; rows without any are left out.

    Raises DataError for a broken file.
    """
    found = {}
    for title, file in artifacts(table, records, stage).items():
        try:
            found[title] = read_arrays(file)
        except ValueError as error:
            raise DataError(str(error)) from None
    return found


def artifacts(table: Table, records: Path, stage: str) -> dict[str, Path]:
    """The files of a stage's arrays beside their records, by the row's title."""
    found = {}
    for row in table.spec.rows:
        files = beside_records(table, records, row, stage, ".npz")
        if files and recorded(files[0], ARTIFACTS):
            found[_named(table, row, stage)] = files[0]
    return found


def radius_csv(spectra: Mapping[str, Mapping[str, Any]]) -> str:
    """The fraction of values set to zero by frequency radius, in cycles a token.

    A line for each row, layer and bin that holds a mode.
    """
    lines = [["row", "layer", "radius_from", "radius_to", "zeroed"]]
    for title, found in spectra.items():
        limits = [f"{limit:.6g}" for limit in found["radius"]]
        for layer in found["layers"]:
            bins = zip(pairwise(limits), found[f"zeroed_radius_{layer}"], strict=True)
            lines += [[title, str(layer), *ends, f"{fraction:.6g}"] for ends, fraction in bins if not isnan(fraction)]
    return csv_lines(lines)


def pictures(draw: str) -> Draw:
    """A figure that shows the arrays of a stage's rows, drawn by a function of the visualize package."""

    def drawn(table: Table, records: Path, options: Mapping[str, Any], paths: list[Path]) -> bool:
        found = arrays(table, records, options["stage"])
        if found:
            first = next(iter(artifacts(table, records, options["stage"]).values()))
            record = read_record(first.with_suffix(".json"))
            note = picture_note(record.config, table.scale, (record.provenance.get("images") or [None])[-1])
            draw_arrays(found, record.config, note, paths)
        return bool(found)

    return drawn


def draw_arrays(rows: Mapping[str, Any], config: RunConfig, note: str, paths: list[Path]) -> None:
    """The picture of a visualize stage, a note below it; matplotlib is imported only where something is drawn."""
    from afno_repro.visualize import drawing, panels

    rows, said = {drawable(title): found for title, found in rows.items()}, drawable(note)
    if config.task.name == "clusters":
        drawing.clusters_figure(rows, said, paths)
    elif config.task.name == "spectra":
        drawing.spectra_figure(next(iter(rows.values())), said, paths)
    elif config.task.name == "triptychs":
        panels.triptych_figure(rows, said, paths)
    else:
        classes = [drawable(name) for name in config.data.options.get("textures", ())]
        panels.overlay_figure(rows, said, classes, paths)


def picture_note(config: RunConfig, scale: str, there: int | None = None) -> str:
    """What a picture shows of which networks, in words that it cannot do without; `there` are images in all."""
    return f"{_shown(config, there)}; {networks(scale)}, seed {config.seed}."


def _shown(config: RunConfig, there: int | None) -> str:
    asked = config.task.options
    images = min(asked["images"], there or asked["images"])
    if config.task.name == "clusters":
        several = f"The first {min(asked['shown'], images)} of {images} images"
        clusters = f"{asked['clusters']} clusters of tokens in each"
        return f"{several}, {clusters}; a colour is one cluster within a block and means nothing else"
    if config.task.name == "spectra":
        threshold = config.model.mixer.options["sparsity_threshold"] if config.model and config.model.mixer else ""
        return f"AFNO with threshold {threshold}, means over {counted(images, 'image')} and all channels"
    return f"The first {counted(images, 'validation image')} of {config.data.title}"


FIGURES: dict[str, Draw] = {
    "families": families,
    "ablation": ablation,
    "training": training,
    **{name: pictures(name) for name in ("clusters", "spectra", "triptychs", "overlays")},
}
