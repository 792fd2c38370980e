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
from afno_repro.errors import AfnoError, Diverged, Interrupted, LockedError
from afno_repro.fills import FILLS
from afno_repro.models import build_model
from afno_repro.profiling.flops import CountingRule, count
from afno_repro.profiling.measure import Latency, latencies_s
from afno_repro.suite.plan import Run
from afno_repro.suite.store import Record, Store, device_name, provenance
from afno_repro.tasks import TASKS
from afno_repro.training import engine
from afno_repro.training.loop import Progress, train, validation_loader

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
        costs = {key: getattr(counted, key) for key in ("gflops", "mixer_gflops", "gflops_full", "mixer_gflops_full")}
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
    task = TASKS[config.task.name](config.data.image_size, **options)
    _, validation = load_data(config.data, machine.data_root)
    metrics = task.metrics()
    for images, masks in validation_loader(task, validation, config, batch_size=64, num_workers=machine.num_workers):
        filled = np.stack([fill(image, mask) for image, mask in zip(images.double().numpy(), masks.numpy(), strict=True)])
        metrics.add(torch.from_numpy(filled).float(), (images, masks))
    return Outcome(metrics.compute(), data=validation.fingerprint)


def pretrain(config: RunConfig, machine: Machine, directory: Path, report: Report) -> Outcome:
    """Train a network from scratch."""
    images, validation = load_data(config.data, machine.data_root)
    metrics = train(config, (images, validation), machine, directory, report)
    return Outcome(metrics, data=f"{images.fingerprint[:16]}/{validation.fingerprint[:16]}")


EXECUTORS: dict[str, Callable[[RunConfig, Machine, Path, Report], Outcome]] = {"profile": profile, "baseline": baseline, "pretrain": pretrain}


def run_one(run: Run, machine: Machine, report: Report) -> Record:
    """Do one run, or return its record when it is finished; its outcome may be `diverged` or `out_of_memory`.

    Raises LockedError when another process holds it, Interrupted after a checkpoint, and whatever the user can mend; any
    other error is written to error.txt and raised again.
    """
    store = Store(machine.runs_root)
    with store.lock(run) as directory:
        record = store.finished(run, machine)
        if record is not None:
            return record
        store.begin(run, directory)
        started, outcome, result = time.monotonic(), "ok", Outcome({})
        try:
            result = EXECUTORS[run.config.kind](run.config, machine, directory, report)
        except Diverged:
            outcome = "diverged"
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                store.fail(directory, traceback.format_exc())
                raise
            outcome = "out_of_memory"
        except (Interrupted, LockedError):
            raise
        except AfnoError as error:
            store.fail(directory, f"{error}\n")
            raise
        made_with = provenance(device_name(machine.device), machine.threads, machine.num_workers, time.monotonic() - started, result.data)
        record = Record(run.id, run.digest, run.config, outcome, result.metrics, result.repeats, made_with)
        store.finish(record, directory)
        return record


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is the device's or the host's refusal of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
