"""`afno visualize SPEC --images ...`: a spec's pictures of other images, or of another run's network.

Nothing goes into the tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from afno_repro.config import Machine, ModelConfig, RunConfig
from afno_repro.data.classes import SUFFIXES
from afno_repro.data.reading import of_the_system, read_image
from afno_repro.data.transforms import center_square
from afno_repro.errors import ConfigError, DataError, Problem, StorageError
from afno_repro.escape import csv_lines
from afno_repro.files import write_atomic
from afno_repro.models import build_model
from afno_repro.options import suggest
from afno_repro.runs.executors import first_images, written_weights
from afno_repro.runs.record import Record, read_record
from afno_repro.runs.store import RECORD, WEIGHTS, Store
from afno_repro.spec.plan import Choice, Run, plan_runs
from afno_repro.spec.spec import Spec
from afno_repro.tables.figures import FORMATS, draw_arrays, picture_note, radius_csv
from afno_repro.visualize.pictures import Pictures
from afno_repro.visualize.visuals import VISUALS
from afno_repro.weights.checkpoint import read_state_dict
from afno_repro.weights.load import load_weights

Note = Callable[[str], None]


@dataclass(frozen=True)
class Exhibit:
    """What is shown: a spec's visualize stages at a scale, of some images, with other weights if some are named."""

    scale: str
    rows: tuple[str, ...] | None
    images: Path | None
    weights: Path | None  # a run's directory or a weights file, for one row
    out: Path


def exhibit(spec: Spec, asked: Exhibit, machine: Machine, note: Note) -> list[Path]:
    """Draw and write the pictures of every visualize stage; returns the files. Raises DataError if none can be."""
    plan = plan_runs(spec, asked.scale, Choice(rows=asked.rows, kinds=("visualize",)))
    shown = [
        run for run in plan.runs if run.config.kind == "visualize" and not (asked.images and needs_labels(run.config))
    ]
    stages = list(dict.fromkeys(run.stage for run in shown))
    if not stages:
        unlabelled = " without labels" if asked.images else ""
        with_pictures = "fig5, fig6, or a table with a visualize stage"
        raise ConfigError(
            Problem(
                f"{spec.name} has nothing to show at {asked.scale} scale{unlabelled}",
                (),
                f"specs that do: {with_pictures}",
            )
        )
    files: list[Path] = []
    for stage in stages:
        runs = {need[0]: run for need, run in plan.needs.items() if need[1] == stage}
        if asked.weights is not None and len(runs) > 1:
            raise ConfigError(
                Problem("--from needs one --row, whose network the weights are", (), suggest("", runs, "rows"))
            )
        files += _stage(spec, stage, runs, asked, machine, note)
    return files


def needs_labels(config: RunConfig) -> bool:
    """Whether a stage's pictures show labels, which images of a user's own have not."""
    return config.task.name == "overlays" or config.task.options.get("regions") == "labels"


def _stage(spec: Spec, stage: str, runs: dict[str, Run], asked: Exhibit, machine: Machine, note: Note) -> list[Path]:
    shown: dict[str, Pictures] = {}
    for row, run in runs.items():
        options = dict(run.config.task.options)
        count = options.pop("images")
        images = read_images(asked.images, run.config.data.image_size, count, note) if asked.images else None
        shown[spec.row(row).title[-1]] = _show(run, images, asked.weights, machine, spec.name, asked.scale)
    lines = [
        ["row", "metric", "value"],
        *([title, key, f"{value:.6g}"] for title, p in shown.items() for key, value in p.metrics.items()),
    ]
    files = list[Path]()
    if len(lines) > 1:  # triptychs and overlays are not measured
        files.append(asked.out / f"{spec.name}_{stage}.csv")
        write_atomic(files[-1], csv_lines(lines))
    config = next(iter(runs.values())).config
    arrays = {title: p.arrays for title, p in shown.items()}
    if config.task.name == "spectra":
        files.append(asked.out / f"{spec.name}_{stage}_by_radius.csv")
        write_atomic(files[-1], radius_csv(arrays))
    pictures = [asked.out / f"{spec.name}_{stage}{ending}" for ending in FORMATS]
    said = picture_note(config, asked.scale)
    if asked.images or asked.weights:
        network = str(asked.weights or f"{asked.scale} scale, seed {config.seed}")
        network += f", with the options of {spec.name}" if asked.weights and not asked.weights.is_dir() else ""
        said = f"Images: {asked.images or 'the first of the validation set'}; network: {network}."
    draw_arrays(arrays, config, said, pictures)
    return files + pictures


def _show(
    run: Run, images: list[Tensor] | None, weights: Path | None, machine: Machine, spec: str, scale: str
) -> Pictures:
    config = run.config
    options = {key: value for key, value in config.task.options.items() if key != "images"}
    visual = VISUALS[config.task.name](config.data.image_size, **options)
    model = _network(config, weights, machine, f"afno visualize {spec} --scale {scale} --row {run.row}")
    labels: list[Tensor | None] = [None] * len(images or [])
    if images is None:
        images, labels, _ = first_images(config, machine)
    return visual.compute(model, images, labels)


def _network(config: RunConfig, weights: Path | None, machine: Machine, command: str) -> torch.nn.Module:
    """The stage's model with the weights of a file, or the network of a run: the one named, or the one that it shows.

    A run's network has its own options; the weights have to be those that it has written.
    """
    assert config.model is not None
    model, record = config.model, None
    if weights is None:
        store = Store(machine.runs_root)
        weights, record = store.find(config.init or ""), store.record(config.init or "")
        if weights is None or record is None:
            raise DataError(f"there is no finished run to show\n  this makes it: {command}")
    elif (weights / RECORD).exists():
        record = _record(weights / RECORD)
    if record is None:
        found = read_state_dict(weights / WEIGHTS if weights.is_dir() else weights)
    else:
        found, own = written_weights(weights, record), record.config.model
        model = own if own is not None and _kind(own) == _kind(model) else model
    network = build_model(model, config.data.image_size)
    load_weights(network, found)
    return network.eval()


def _record(path: Path) -> Record:
    try:
        return read_record(path)
    except ValueError as error:
        raise StorageError(f"{path}: {error}\n  --from the weights file beside it shows that alone") from None


def _kind(model: ModelConfig) -> tuple[Any, ...]:
    """What a row's network is, whatever its options."""
    return model.backbone.name, model.mixer and model.mixer.name, model.head


def read_images(place: Path, image_size: int, count: int, note: Note) -> list[Tensor]:
    """The central squares of the first `count` usable images of a file or folder; the others are named and counted.

    Raises DataError where none can be used.
    """
    if not place.exists():
        raise DataError(f"--images {place}: there is no such file or folder")
    found = (
        sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and not of_the_system(path.name))
        if place.is_dir()
        else [place]
    )
    images: list[Tensor] = []
    skipped: list[str] = []
    for path in found:
        if len(images) == count:
            break
        try:
            image = read_image(path)
            with Image.open(path) as opened:
                mode = opened.mode
        except DataError as error:
            skipped.append(str(error))
            continue
        if mode != "RGB":
            skipped.append(f"{path}: is {mode}, not RGB")
            continue
        if min(image.shape[1:]) < image_size:
            skipped.append(
                f"{path}: is {image.shape[2]} x {image.shape[1]} pixels, at least {image_size} are needed a side"
            )
            continue
        images.append(center_square(image, image_size, 1.0, "bilinear"))
    if skipped:
        note(f"skipped {len(skipped)} images:\n  " + "\n  ".join(skipped[:5]))
    if not images:
        raise DataError(f"--images {place}: no image can be used, of {len(found)}")
    return images
