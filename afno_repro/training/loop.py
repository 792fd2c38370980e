"""The training loop: one run, from its config to its metrics, resumable at every checkpoint bit for bit."""

import csv
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn
from torch.optim import Optimizer

from afno_repro.config import Machine, RunConfig, TrainConfig
from afno_repro.data.samples import TRAIN, VALIDATION, Images, Samples, TrainingBatches, loader, validation_batches
from afno_repro.data.transforms import AUGMENTS
from afno_repro.errors import ConfigError, Diverged, Interrupted, Problem
from afno_repro.files import write_atomic
from afno_repro.mixers.afno import AFNO
from afno_repro.models import build_model
from afno_repro.tasks import TASKS, Batch, Inpainting
from afno_repro.training import checkpoint, engine
from afno_repro.training.optim import learning_rate, make_optimizer, set_learning_rate, warmup_steps


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done and in all, images a second, and the newest metrics."""

    step: int
    total: int
    images_per_s: float
    metrics: dict[str, float]


@dataclass
class State:
    """What a checkpoint holds besides weights and optimiser: where the run is and what it has logged."""

    step: int
    loss_sum: float  # of the steps of the running epoch
    rows: list[dict[str, Any]]


def train(config: RunConfig, data: tuple[Images, Images], machine: Machine, directory: Path, report: Callable[[Progress], None]) -> dict[str, float]:
    """Train on data[0], evaluated on data[1], to the end and return the last metrics.

    Writes checkpoints/, log.csv and weights.safetensors below `directory`, and continues from what it finds there.
    Raises Diverged, Interrupted after a checkpoint, DataError, StorageError.
    """
    assert config.model is not None
    assert config.train is not None
    recipe = config.train
    device = engine.start(machine.device, machine.threads)
    engine.seed_everything(config.seed)
    task = TASKS[config.task.name](config.data.image_size, **config.task.options)
    images, validation = data
    model = build_model(config.model, config.data.image_size).to(device)
    optimizer = make_optimizer(model, recipe)
    state = resume(directory, model, optimizer)
    batches = TrainingBatches(len(images), recipe.batch_size, recipe.epochs, config.seed, state.step)
    if batches.per_epoch == 0:
        raise ConfigError(Problem(f"must be at most the {len(images)} training images, is {recipe.batch_size}", ("train", "batch_size")))
    warmup = warmup_steps(recipe, batches.per_epoch)
    samples = Samples(images, augmented(recipe, config.data.image_size, task), config.seed, TRAIN)
    saved_at = last_report = time.monotonic()
    with engine.stop_flag() as stop:
        for batch in loader(samples, batches, machine.num_workers, pin_memory=device.type == "cuda"):
            # One step at this step's rate.
            lr = learning_rate(recipe, state.step, batches.total, warmup)
            set_learning_rate(optimizer, lr)
            epoch_ends = (state.step + 1) % batches.per_epoch == 0
            batch = tuple(part.to(device, non_blocking=True) for part in batch)
            loss, alive = optimise(model, optimizer, task, batch, recipe, watch=epoch_ends)
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss} at step {state.step + 1}")
            state.step += 1
            state.loss_sum += loss

            # At the end of an epoch: evaluate when it is time, log one line.
            if epoch_ends:
                epoch = state.step // batches.per_epoch
                due = state.step == batches.total or epoch % recipe.eval_every == 0
                scores = evaluate(model, task, validation, config, machine, device) if due else {}
                row = {"epoch": epoch, "step": state.step, "lr": lr, "loss": state.loss_sum / batches.per_epoch, **alive}
                state.rows.append(row | {key: scores.get(key, "") for key in task.metrics().keys})
                state.loss_sum = 0.0
                write_atomic(directory / "log.csv", csv_text(state.rows))

            # Keep the work: at each epoch's end, after a while, and when a signal asks to stop.
            now = time.monotonic()
            if epoch_ends or stop.signal is not None or now - saved_at >= machine.checkpoint_every_s:
                save(directory, model, optimizer, state)
                saved_at = now
            if stop.signal is not None:
                raise Interrupted(stop.signal)
            report(Progress(state.step, batches.total, recipe.batch_size / max(now - last_report, 1e-9), {"loss": loss}))
            last_report = now

    write_atomic(directory / "log.csv", csv_text(state.rows))
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomic(directory / "weights.safetensors", tensors_to_bytes(weights))
    return {key: float(value) for key, value in state.rows[-1].items() if key not in ("epoch", "step", "lr") and value != ""}


def resume(directory: Path, model: nn.Module, optimizer: Optimizer) -> State:
    """Weights, optimiser, random states and log as they were at the newest whole checkpoint, or at the start."""
    saved = checkpoint.load_newest(directory / "checkpoints")
    if saved is None:
        return State(step=0, loss_sum=0.0, rows=[])
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    engine.restore_random_states(saved["random"])
    return State(**saved["state"])


def save(directory: Path, model: nn.Module, optimizer: Optimizer, state: State) -> None:
    """Everything that `resume` needs."""
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": engine.random_states(), "state": vars(state)}
    checkpoint.save(directory / "checkpoints", state.step, parts)


def optimise(model: nn.Module, optimizer: Optimizer, task: Inpainting, batch: Batch, recipe: TrainConfig, watch: bool) -> tuple[float, dict[str, float]]:
    """One step: forward, backward, clip, update. Returns the loss and, when watched, the fractions alive.

    A loss that is not finite changes no weight.
    """
    with autocast(batch[0].device, recipe.precision), alive_fractions(model, watch) as alive:
        loss = task.loss(model, batch)
    value = float(loss.item())
    if math.isfinite(value):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
    return value, alive


def augmented(recipe: TrainConfig, image_size: int, task: Inpainting) -> Callable[[Tensor, np.random.Generator], Any]:
    """The augmentation that the recipe names, then the task's preparation."""
    options = {key: value for key, value in recipe.augment.items() if key != "name"}
    return _Prepared(recipe.augment["name"], options, image_size, task)


@dataclass(frozen=True)
class _Prepared:
    """A picklable composition of augmentation and preparation, for the loader's workers."""

    augment: str
    options: dict[str, Any]
    image_size: int
    task: Inpainting

    def __call__(self, image: Tensor, rng: np.random.Generator) -> Any:
        return self.task.prepare(AUGMENTS[self.augment](image, self.image_size, rng, **self.options), rng)


def validation_loader(task: Inpainting, validation: Images, config: RunConfig, batch_size: int, num_workers: int) -> Any:
    """Batches of the validation images with masks fixed by the data's seed: the same for every row and every seed."""
    samples = Samples(validation, task.prepare, config.data.seed or 0, VALIDATION)
    return loader(samples, validation_batches(len(validation), batch_size), num_workers, pin_memory=False)


def evaluate(model: nn.Module, task: Inpainting, validation: Images, config: RunConfig, machine: Machine, device: torch.device) -> dict[str, float]:
    """The task's metrics over all validation images."""
    assert config.train is not None
    metrics = task.metrics()
    model.eval()
    with torch.inference_mode(), autocast(device, config.train.precision):
        for batch in validation_loader(task, validation, config, config.train.batch_size, machine.num_workers):
            metrics.update(model, tuple(part.to(device) for part in batch))
    model.train()
    return metrics.compute()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision where the spec says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def alive_fractions(model: nn.Module, watch: bool) -> Iterator[dict[str, float]]:
    """The fraction of spectral values that soft-thresholding leaves alive, per AFNO layer, of the pass inside the block."""
    alive: dict[str, float] = {}
    mixers = [module for module in model.modules() if isinstance(module, AFNO)] if watch else []

    def watcher(layer: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def watch_output(module: nn.Module, inputs: Any, output: Tensor) -> None:
            alive[f"alive_{layer}"] = (output != 0).float().mean().item()

        return watch_output

    hooks = [mixer.shrink.register_forward_hook(watcher(i + 1)) for i, mixer in enumerate(mixers)]
    try:
        yield alive
    finally:
        for hook in hooks:
            hook.remove()


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
