"""What a training's checkpoints hold and belong to, and how it goes on from the newest of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from afno_repro.config import Machine
from afno_repro.errors import StorageError
from afno_repro.memory import out_of_memory
from afno_repro.training import checkpoint, engine

ANEW = "remove the folder, or use --rerun, to train this run again from the start"


@dataclass
class State:
    """What a checkpoint holds besides weights and optimiser: where the run is and what it has logged."""

    step: int
    loss_sum: float  # of the steps of the running epoch
    rows: list[dict[str, Any]]


def resume(
    directory: Path,
    model: nn.Module,
    optimizer: Optimizer,
    machine: Machine,
    bound: Mapping[str, Any],
    note: Callable[[str], None],
) -> State:
    """Weights, optimiser, random states and log as they were at the newest whole checkpoint, or at the start.

    `bound` is what a checkpoint must belong to: config, data, parent, planned steps. `note` is told what is different
    now and may change the last bits. Raises StorageError for a checkpoint that belongs to something else.
    """
    folder = directory / "checkpoints"
    saved = checkpoint.load_newest(folder, note)
    if saved is None:
        return State(step=0, loss_sum=0.0, rows=[])
    belongs = saved.get("bound")
    changed = "it does not say what it belongs to" if not isinstance(belongs, dict) else _changes(belongs, bound)
    if changed:
        raise StorageError(f"{folder}: not a checkpoint of this run: {changed}\n  {ANEW}")
    try:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if len(saved["random"]) == engine.ranks():  # another number of processes draws anew
            engine.restore_random_states(saved["random"][engine.rank()])
        state, before = State(**saved["state"]), saved["made_with"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if out_of_memory(error):  # no fault of the checkpoint's
            raise
        raise StorageError(f"{folder}: not a checkpoint of this run ({error})\n  {ANEW}") from error
    told = _changes(before, made_with(machine))
    elsewhere = f" on another machine ({told}): the last bits may differ" if told else ""
    note(f"continues at step {state.step}{elsewhere}")
    return state


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is different now, in words."""
    return "; ".join(f"{key} {before.get(key)}, now {value}" for key, value in now.items() if before.get(key) != value)


def made_with(machine: Machine) -> dict[str, Any]:
    """What the same bits depend on besides the config and the machine's kind of processor."""
    return {
        "devices": engine.ranks(),
        "device": machine.device.partition(":")[0],
        "threads": machine.threads,
        "compile": machine.compile,
        "torch": str(torch.__version__),
    }


def disk_bytes(model: nn.Module) -> int:
    """What a training writes: weights and two moments a checkpoint, for a moment one more of these, and the weights."""
    weights = sum(int(value.nbytes) for value in model.state_dict().values())
    return weights * (3 * (checkpoint.KEPT + 1) + 1)


def save(
    directory: Path,
    model: nn.Module,
    optimizer: Optimizer,
    state: State,
    machine: Machine,
    bound: Mapping[str, Any],
    made: Sequence[Mapping[str, Any]],
) -> None:
    """Everything that `resume` needs; `made` is what the steps so far were made with, stretch by stretch."""
    random = engine.random_states()
    if engine.rank() == 0:
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random}
        parts |= {"state": vars(state), "made_with": made_with(machine)}
        told = {"bound": dict(bound), "made": [dict(stretch) for stretch in made]}
        checkpoint.save(directory / "checkpoints", state.step, parts, told)
