"""What a run of each kind does."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afno_repro.config import Machine, RunConfig, digest
from afno_repro.data import load_data
from afno_repro.data.loader import loader
from afno_repro.data.samples import VALIDATION, sample_rng
from afno_repro.errors import DataError, Diverged, StorageError
from afno_repro.fills import FILLS
from afno_repro.models import build_model
from afno_repro.profiling.flops import CountingRule, count
from afno_repro.profiling.growth import GROWTHS, Growth, growth
from afno_repro.profiling.measure import Latency, latencies_s
from afno_repro.runs.bound import Fed, contents, fed
from afno_repro.runs.provenance import device_name, provenance, stretches
from afno_repro.runs.record import Record
from afno_repro.runs.source import source_of
from afno_repro.runs.store import WEIGHTS, Store, checksum
from afno_repro.spec.plan import Run
from afno_repro.spec.start import identity
from afno_repro.tasks import TASKS
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.training import engine
from afno_repro.training.evaluation import evaluate, to_evaluate
from afno_repro.training.loop import Progress, Weights, train
from afno_repro.visualize.visuals import VISUALS
from afno_repro.weights.checkpoint import read_state_dict
from afno_repro.weights.load import load_weights, trunk

OPERATIONS = ("gflops", "mixer_gflops", "gflops_full", "mixer_gflops_full", "mlp_share")
PROFILED = {
    "count": ("params_m", "mixer_params_m", *OPERATIONS),
    "growth": GROWTHS,
    "latency": ("latency_s",),
}
Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Outcome:
    """What an executor found; `data` is what it was fed, `arrays` are what a picture is drawn from."""

    metrics: dict[str, float]
    repeats: dict[str, list[float]] = field(default_factory=dict)
    data: Fed | None = None
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def metrics_of(config: RunConfig) -> tuple[str, ...] | None:
    """The metrics that a sound run's record has; None of a picture's, which only its network tells."""
    if config.kind == "visualize":
        return None
    if config.kind == "profile":
        return PROFILED[config.task.name]
    options = {key: value for key, value in config.task.options.items() if key != "fill"}
    task = TASKS[config.task.name](config.data.image_size, **options)
    return task.metrics().keys if config.kind == "baseline" else (*task.metrics().keys, f"best_{task.best}", "loss")


def profile(run: Run, machine: Machine, directory: Path, report: Report) -> Outcome:
    """Count the model on `meta`, at one size or at several, or time its forward pass on the machine."""
    config = run.config
    assert config.model is not None
    if config.task.name == "count":
        with torch.device("meta"):
            model = build_model(config.model, config.data.image_size)
        counted = count(model, config.data.image_size, CountingRule(**config.task.options))
        costs = {key: getattr(counted, key) for key in OPERATIONS}
        return Outcome({"params_m": counted.params / 1e6, "mixer_params_m": counted.mixer_params / 1e6, **costs})
    if config.task.name == "growth":
        return Outcome(growth(config.model, config.data.image_size, Growth(**config.task.options)))
    device = engine.start(machine, "float32")
    engine.seed_everything(config.seed)
    model = build_model(config.model, config.data.image_size)
    times = latencies_s(model, config.data.image_size, Latency(**config.task.options), device)
    return Outcome({"latency_s": statistics.median(times)}, {"latency_s": times})


def baseline(run: Run, machine: Machine, directory: Path, report: Report) -> Outcome:
    """Score a filling that learns nothing on the validation images and masks of the rows that do."""
    config = run.config
    options = dict(config.task.options)
    fill = FILLS[options.pop("fill")]
    task = Inpainting(config.data.image_size, **options)
    sets = load_data(config.data, machine.data_root)
    of, validation = fed(config, sets, machine), sets[1]
    metrics = task.metrics()
    for batch in loader(*to_evaluate(task, validation, config, 64), machine.num_workers, pin_memory=False):
        images, masks = task.enter(batch)
        filled = np.stack(
            [fill(image, mask) for image, mask in zip(images.double().numpy(), masks.numpy(), strict=True)]
        )
        metrics.add(*task.scored(torch.from_numpy(filled).float(), (images, masks)))
    return Outcome(metrics.compute(), data=of)


def training(run: Run, machine: Machine, directory: Path, report: Report) -> Outcome:
    """Train a network from scratch, or from the trunk of the run or of the file that it starts from."""
    config, before, began = run.config, Store(machine.runs_root).before(run), time.monotonic()
    if run.weights is not None:
        start: Weights | None = trunk(weights_in(run.weights, config))
    else:
        start = None if config.init is None else trunk_weights(config.init, machine)
    sets = load_data(config.data, machine.data_root)
    of = fed(config, sets, machine)
    bound: dict[str, Any] = {"digest": run.digest, "data": of.fingerprint, "images": list(of.images)}
    if run.parent is not None:
        bound["parent"] = checksum(Store(machine.runs_root).directory(run.parent), WEIGHTS)
    source = source_of(config, machine.code["source"])

    def made() -> list[Mapping[str, Any]]:
        now = provenance(device_name(machine.device), machine, time.monotonic() - began, of.fingerprint)
        return stretches(before, now | {"source": source})

    metrics = train(config, sets, machine, directory, report, start, bound, made)
    return Outcome(metrics, data=of)


def evaluated(config: RunConfig, machine: Machine) -> tuple[dict[str, float], Fed]:
    """The task's metrics of a finished training's network, on the validation images at hand, and what those are."""
    assert config.model is not None
    assert config.train is not None
    device = engine.start(machine, config.train.precision)
    model = build_model(config.model, config.data.image_size)
    load_weights(model, weights_of(digest(config), machine))
    task = TASKS[config.task.name](config.data.image_size, **config.task.options)
    _, validation = load_data(config.data, machine.data_root)
    scores = evaluate(model.to(device), task, validation, config, machine, device)
    return scores, Fed(validation.fingerprint(contents(machine))[:16], (len(validation),))


def visualize(run: Run, machine: Machine, directory: Path, report: Report) -> Outcome:
    """What a picture of a finished run's network is drawn from, on the first of the validation images."""
    config = run.config
    assert config.model is not None
    assert config.init is not None
    options = dict(config.task.options)
    visual = VISUALS[config.task.name](
        config.data.image_size, **{key: value for key, value in options.items() if key != "images"}
    )
    device = engine.start(machine, "float32")
    engine.seed_everything(config.seed)
    model = build_model(config.model, config.data.image_size)
    load_weights(model, weights_of(config.init, machine))
    images, labels, of = first_images(config, machine)
    pictures = visual.compute(model.to(device).eval(), images, labels)
    return Outcome(pictures.metrics, pictures.repeats, of, pictures.arrays)


def first_images(config: RunConfig, machine: Machine) -> tuple[list[Tensor], list[Tensor | None], Fed]:
    """As many of the first validation images as a visualize stage asks for, their labels, and what the set is."""
    sets = load_data(config.data, machine.data_root)
    validation = sets[1]
    count = min(config.task.options["images"], len(validation))
    examples = [validation.example(i, sample_rng(config.data.seed or 0, VALIDATION, 0, i)) for i in range(count)]
    return [image for image, _ in examples], [label for _, label in examples], fed(config, sets, machine)


def trunk_weights(digest: str, machine: Machine) -> Weights:
    """A finished run's weights without its head, which belongs to its own task."""
    return trunk(weights_of(digest, machine))


def weights_in(path: Path, config: RunConfig) -> Weights:
    """The weights of the file that a run starts from; raises StorageError when they are not those that it was
    planned with."""
    weights = read_state_dict(path)
    if identity(path) != config.init:
        raise StorageError(f"{path}: has changed since the run was planned\n  the same command plans it anew")
    return weights


def weights_of(digest: str, machine: Machine) -> Weights:
    """A finished run's weights.

    Raises Diverged or MemoryError when that run ended so, DataError when it is not finished, StorageError when they
    are not those that its record names.
    """
    store = Store(machine.runs_root)
    directory, record = store.find(digest), store.record(digest)
    if directory is None or record is None:
        raise DataError(
            f"the run {digest}, from which this one starts, is not finished\n"
            "  the same command, without --row or --seed, does it first"
        )
    if record.outcome == "diverged":
        raise Diverged(f"{record.run_id}, from which this run starts, diverged")
    if record.outcome == "out_of_memory":
        raise MemoryError(f"{record.run_id}, from which this run starts, ran out of memory")
    return written_weights(directory, record)


def written_weights(directory: Path, record: Record) -> Weights:
    """The weights in a run's folder. Raises StorageError when they are not those that its record names."""
    if (written := record.provenance.get("weights")) not in (None, checksum(directory, WEIGHTS)):
        raise StorageError(
            f"{directory / WEIGHTS}: not the weights that were written ({written})\n"
            f"  remove {directory} to train this run again"
        )
    return read_state_dict(directory / WEIGHTS)


EXECUTORS: dict[str, Callable[[Run, Machine, Path, Report], Outcome]] = {
    "profile": profile,
    "baseline": baseline,
    "pretrain": training,
    "finetune": training,
    "visualize": visualize,
}
