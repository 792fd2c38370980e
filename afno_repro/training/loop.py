"""The training loop: one run, from its config to its metrics, resumable at every checkpoint bit for bit."""

import csv
import io
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn
from torch.optim import Optimizer

from afno_repro.config import Machine, RunConfig, TrainConfig
from afno_repro.data.loader import loader
from afno_repro.data.samples import TRAIN, Images, Samples, TrainingBatches, batch_rng
from afno_repro.errors import ConfigError, Diverged, Interrupted, Problem, StorageError
from afno_repro.faults import fault
from afno_repro.files import check_space, write_atomic
from afno_repro.models import build_model
from afno_repro.precision import autocast, rounded
from afno_repro.tasks import TASKS, Batch, Task
from afno_repro.training import checkpoint, engine
from afno_repro.training.augment import augmented
from afno_repro.training.blocks import compile_backbone, recompute_blocks
from afno_repro.training.evaluation import at_a_time, evaluate, parts_of, to_evaluate
from afno_repro.training.events import FILE, FOLDER, events
from afno_repro.training.optim import learning_rate, make_optimizer, set_learning_rate, warmup_steps
from afno_repro.training.state import State, disk_bytes, resume, save
from afno_repro.training.stop import stop_flag
from afno_repro.training.watch import alive_fractions, dead_layers
from afno_repro.weights.load import load_weights

LOOK_EVERY_S = 0.2  # how often the host waits for the device's loss, to report it

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done and in all, images a second, the newest metrics, a word for the user if any."""

    step: int
    total: int
    images_per_s: float
    metrics: dict[str, float]
    note: str = ""


def train(
    config: RunConfig,
    data: tuple[Images, Images],
    machine: Machine,
    directory: Path,
    report: Callable[[Progress], None],
    start: Weights | None = None,
    bound: Mapping[str, Any] | None = None,
    made: Callable[[], Sequence[Mapping[str, Any]]] = tuple,
) -> dict[str, float]:
    """Train on data[0], evaluated on data[1], to the end; returns the last metrics and the best of the task's own one.

    Begins with `start` or random weights; continues from what lies below `directory`, where it writes checkpoints/,
    log.csv and weights.safetensors; `bound` is what its checkpoints belong to besides their own steps, `made` says what
    the steps so far were made with.
    Raises Diverged, Interrupted after a checkpoint, DataError, StorageError.
    """
    assert config.model is not None
    assert config.train is not None
    recipe = config.train
    device = engine.start(machine, recipe.precision)
    engine.seed_everything(config.seed)
    task = TASKS[config.task.name](config.data.image_size, **config.task.options)
    images, validation = data
    model = build_model(config.model, config.data.image_size)
    if start is not None:
        load_weights(model, start)
    model.to(device)
    if machine.activation_checkpointing:
        recompute_blocks(model)
    if machine.compile:
        compile_backbone(model)
    optimizer = make_optimizer(model, recipe)
    engine.part_ways(config.seed)
    plain = recipe.precision == "tf32" and not rounded()["products"]
    notes = [f"tf32 is float32 on {'a CPU' if device.type == 'cpu' else 'this GPU'}"] if plain else []
    notes += [f"{machine.micro_batch} images at a time: memory has room for no more"] if machine.fitted else []
    place, mixes = (engine.rank(), engine.ranks()), task.mix is not None
    batches = TrainingBatches(len(images), recipe.batch_size, recipe.epochs, config.seed, 0, *place, before=mixes)
    wrong = f"at least the {engine.ranks()} processes that share it" if recipe.batch_size < engine.ranks() else ""
    wrong = wrong or (f"at most the {len(images)} training images" if batches.per_epoch == 0 else "")
    if wrong:
        raise ConfigError(Problem(f"must be {wrong}, is {recipe.batch_size}", ("train", "batch_size")))
    bound = {**(bound or {}), "steps_per_epoch": batches.per_epoch, "planned_steps": batches.total}
    state = resume(directory, model, optimizer, machine, bound, notes.append)
    batches.start = state.step
    directory.mkdir(parents=True, exist_ok=True)
    check_space(directory, disk_bytes(model) - checkpoint.bytes_on_disk(directory / "checkpoints"))
    shared = engine.share(model, device)
    warmup = warmup_steps(recipe, batches.per_epoch)
    samples = Samples(images, augmented(recipe, config.data.image_size, task), config.seed, TRAIN)
    of_this_machine = min(engine.ranks(), torch.cuda.device_count()) if device.type == "cuda" else 1
    evaluated = to_evaluate(task, validation, config, at_a_time(config, machine))
    prepared = loader(
        samples,
        batches,
        machine.num_workers,
        pin_memory=device.type == "cuda",
        beside=[evaluated],  # while training batches go on waiting
        jobs=max(machine.jobs, of_this_machine),
    )
    saved_at = looked_at = time.monotonic()
    looked_step, first = state.step, state.step
    losses = torch.tensor(state.loss_sum, dtype=torch.float64, device=device)  # of the steps of the running epoch
    fault("training: prepared")
    if notes:
        report(Progress(state.step, batches.total, 0.0, {}, "\n".join(notes)))
        notes.clear()
    with stop_flag() as stop:
        for batch in prepared:
            # One step at this step's rate; nothing here waits for the device.
            lr = learning_rate(recipe, state.step, batches.total, warmup)
            set_learning_rate(optimizer, lr)
            epoch_ends = (state.step + 1) % batches.per_epoch == 0
            batch = task.enter(tuple(part.to(device, non_blocking=True) for part in batch))
            if task.mix is not None:
                batch = task.mix(batch, batch_rng(config.seed, state.step))
            with alive_fractions(model, watch=epoch_ends or state.step == 0, compiled=machine.compile) as alive:
                parts = parts_of(batch, recipe.batch_size, machine.micro_batch)
                loss = optimise(shared, optimizer, task, parts, recipe)
            fault("training: stepped")
            state.step += 1
            losses += loss

            # Look at the losses after the first step, at each epoch's end, and every now and then.
            now = time.monotonic()
            late = engine.rank() == 0 and (now - looked_at >= LOOK_EVERY_S or state.step == first + 1)
            stopping, overdue, look = engine.anywhere(
                stop.signal is not None, engine.rank() == 0 and now - saved_at >= machine.checkpoint_every_s, late
            )
            if not (epoch_ends or stopping or overdue or look):
                continue
            state.loss_sum = float(losses)
            if not math.isfinite(state.loss_sum):
                raise Diverged(f"the loss is not finite at one of the steps {looked_step + 1} to {state.step}")
            if state.step == 1 and (warning := dead_layers(alive)):
                notes.append(warning)

            # At the end of an epoch: evaluate when it is time, log one line.
            if epoch_ends:
                epoch = state.step // batches.per_epoch
                due = state.step == batches.total or epoch % recipe.eval_every == 0
                scores = evaluate(model, task, validation, config, machine, device) if due else {}
                fault("training: evaluated")
                loss_mean = state.loss_sum / batches.per_epoch
                row = {"epoch": epoch, "step": state.step, "lr": lr, "loss": loss_mean, **alive}
                state.rows.append(row | {key: scores.get(key, "") for key in task.metrics().keys})
                state.loss_sum = 0.0
                losses.zero_()
                write_log(directory, state, machine)

            # Keep the work: after a while, at the end, and when a signal asks any process to stop.
            if stopping or overdue or state.step == batches.total:
                save(directory, model, optimizer, state, machine, bound, made())
                saved_at = now
            if stopping:
                break
            rate = recipe.batch_size * (state.step - looked_step) / max(now - looked_at, 1e-9)
            report(Progress(state.step, batches.total, rate, {"loss": float(loss)}, "\n".join(notes)))
            notes.clear()
            looked_at, looked_step = now, state.step
        if any(engine.anywhere(stop.signal is not None)):  # also one that came during the last evaluation
            raise Interrupted(stop.signal or signal.SIGTERM)
    if state.step != batches.total:
        raise StorageError(f"{directory}: {state.step} of {batches.total} planned steps are done")

    write_log(directory, state, machine)
    if engine.rank() == 0:
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        write_atomic(directory / "weights.safetensors", tensors_to_bytes(weights))
    last = {
        key: float(value) for key, value in state.rows[-1].items() if key not in ("epoch", "step", "lr") and value != ""
    }
    return last | {f"best_{task.best}": max(float(row[task.best]) for row in state.rows if row[task.best] != "")}


def optimise(model: nn.Module, optimizer: Optimizer, task: Task, parts: list[Batch], recipe: TrainConfig) -> Tensor:
    """One step over the parts of this process's share: forward, backward, clip, update; returns the whole batch's loss.

    A loss that is not finite changes no weight, which the optimiser finds out on the device.
    """
    device = parts[0][0].device
    weight = engine.total(sum(task.weight(part) for part in parts).float().to(device)).clamp(min=1)  # type: ignore[union-attr]
    loss = torch.zeros((), device=device)
    optimizer.zero_grad(set_to_none=True)
    for i, part in enumerate(parts):
        with engine.unsynchronised(model) if i + 1 < len(parts) else nullcontext():
            with autocast(device, recipe.precision):
                share = task.loss(model, part) / weight
            (share * engine.ranks()).backward()  # type: ignore[no-untyped-call]
        loss += share.detach()
    loss = engine.total(loss)
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.found_inf = (~loss.isfinite()).float()  # type: ignore[attr-defined]
    optimizer.step()
    return loss


def write_log(directory: Path, state: State, machine: Machine) -> None:
    """log.csv, one line per epoch, and the same for TensorBoard where that was asked for."""
    if engine.rank() == 0:
        write_atomic(directory / "log.csv", csv_text(state.rows))
        if machine.tensorboard:
            write_atomic(directory / FOLDER / FILE, events(state.rows))


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV; what one of them lacks stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
