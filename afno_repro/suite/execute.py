"""What a run of each kind does, and one run from its lock to its record."""

import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from afno_repro.config import Machine, RunConfig
from afno_repro.data import load_data
from afno_repro.errors import AfnoError, DataError, Diverged, Interrupted, LockedError
from afno_repro.fills import FILLS
from afno_repro.models import build_model
from afno_repro.profiling.flops import CountingRule, count
from afno_repro.profiling.measure import Latency, latencies_s
from afno_repro.suite.plan import Run
from afno_repro.suite.resolve import TRAINED
from afno_repro.suite.store import Record, Store, device_name, provenance
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.training import engine
from afno_repro.training.evaluation import validation_loader
from afno_repro.training.loop import Progress, Weights, train
from afno_repro.weights import read_state_dict

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Outcome:
    """What an executor found; `data` is the fingerprint of what it was fed."""

    metrics: dict[str, float]
    repeats: dict[str, list[float]] = field(default_factory=dict)
    data: str | None = None


def profile(config: RunConfig, machine: Machine, directory: Path, report: Report) -> Outcome:
    """Count the model on `meta`, or time its forward pass on the machine."""
    assert config.model is not None
    if config.task.name == "count":
        with torch.device("meta"):
            model = build_model(config.model, config.data.image_size)
        counted = count(model, config.data.image_size, CountingRule(**config.task.options))
        costs = {key: getattr(counted, key) for key in ("gflops", "mixer_gflops", "gflops_full", "mixer_gflops_full", "mlp_share")}
        return Outcome({"params_m": counted.params / 1e6, "mixer_params_m": counted.mixer_params / 1e6, **costs})
    device = engine.start(machine.device, machine.threads)
    engine.seed_everything(config.seed)
    model = build_model(config.model, config.data.image_size)
    times = latencies_s(model, config.data.image_size, Latency(**config.task.options), device)
    return Outcome({"latency_s": statistics.median(times)}, {"latency_s": times})


def baseline(config: RunConfig, machine: Machine, directory: Path, report: Report) -> Outcome:
    """Score a filling that learns nothing on the validation images and masks of the rows that do."""
    options = dict(config.task.options)
    fill = FILLS[options.pop("fill")]
    task = Inpainting(config.data.image_size, **options)
    _, validation = load_data(config.data, machine.data_root)
    metrics = task.metrics()
    for images, masks in validation_loader(task, validation, config, batch_size=64, num_workers=machine.num_workers):
        filled = np.stack([fill(image, mask) for image, mask in zip(images.double().numpy(), masks.numpy(), strict=True)])
        metrics.add(torch.from_numpy(filled).float(), (images, masks))
    return Outcome(metrics.compute(), data=validation.fingerprint)


def training(config: RunConfig, machine: Machine, directory: Path, report: Report) -> Outcome:
    """Train a network from scratch, or from the weights of the run that it starts from."""
    start = None if config.init is None else trunk_weights(config.init, machine)
    images, validation = load_data(config.data, machine.data_root)
    metrics = train(config, (images, validation), machine, directory, report, start)
    return Outcome(metrics, data=f"{images.fingerprint[:16]}/{validation.fingerprint[:16]}")


def trunk_weights(digest: str, machine: Machine) -> Weights:
    """A finished run's weights without its head, which belongs to its own task.

    Raises Diverged or MemoryError when that run ended so, DataError when it is not finished.
    """
    store = Store(machine.runs_root)
    directory, record = store.find(digest), store.record(digest)
    if directory is None or record is None:
        raise DataError(f"the run {digest}, from which this one starts, is not finished\n  the same command, without --row or --seed, does it first")
    if record.outcome == "diverged":
        raise Diverged(f"{record.run_id}, from which this run starts, diverged")
    if record.outcome == "out_of_memory":
        raise MemoryError(f"{record.run_id}, from which this run starts, ran out of memory")
    weights = read_state_dict(directory / "weights.safetensors")
    return {name: value for name, value in weights.items() if name.startswith("backbone.")}


EXECUTORS: dict[str, Callable[[RunConfig, Machine, Path, Report], Outcome]] = {
    "profile": profile,
    "baseline": baseline,
    "pretrain": training,
    "finetune": training,
}


def run_one(run: Run, machine: Machine, report: Report) -> Record | None:
    """Do one run, or return its record when it is finished; its outcome may be `diverged` or `out_of_memory`.

    Where several processes train together, the first keeps the run's directory and the others only help it to train: they return
    None. Raises LockedError when another process holds it, Interrupted after a checkpoint, and whatever the user can mend;
    any other error is written to error.txt and raised again.
    """
    together = run.config.kind in TRAINED
    if engine.rank() > 0:
        directory = engine.agreed(None) if together else None
        if directory is not None:
            _outcome(run, machine, Path(directory), report)
        return None
    store, leading = Store(machine.runs_root), False
    try:
        with store.lock(run) as directory:
            record = store.finished(run, machine)
            if record is not None:
                return record
            store.begin(run, directory)
            if together:
                leading = bool(engine.agreed(str(directory)))
            return _lead(run, machine, report, store, directory)
    finally:
        if together and not leading:
            engine.agreed(None)


def _lead(run: Run, machine: Machine, report: Report, store: Store, directory: Path) -> Record:
    """Do a run whose lock is held, up to its record."""
    started = time.monotonic()
    try:
        outcome, result = _outcome(run, machine, directory, report)
    except (Interrupted, LockedError):
        raise
    except AfnoError as error:
        store.fail(directory, f"{error}\n")
        raise
    except Exception:
        store.fail(directory, traceback.format_exc())
        raise
    made_with = provenance(device_name(machine.device), machine, time.monotonic() - started, result.data)
    record = Record(run.id, run.digest, run.config, outcome, result.metrics, result.repeats, made_with)
    store.finish(record, directory)
    return record


def _outcome(run: Run, machine: Machine, directory: Path, report: Report) -> tuple[str, Outcome]:
    """What a run came to; running out of memory and diverging are results."""
    try:
        return "ok", EXECUTORS[run.config.kind](run.config, machine, directory, report)
    except Diverged:
        return "diverged", Outcome({})
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        engine.meet()
        return "out_of_memory", Outcome({})


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is the device's or the host's refusal of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
