"""How much of the spectrum soft-thresholding leaves alive: a layer that it empties learns nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from afno_repro.mixers.afno import AFNO

DEAD = 0.01  # fraction alive below which a layer is said to be dead


@contextmanager
def alive_fractions(model: nn.Module, watch: bool, compiled: bool = False) -> Iterator[dict[str, float]]:
    """The fraction of spectral values that are not zero after shrinkage, per AFNO layer, of the pass inside the block.

    They are there when the block ends; inside, nothing waits for the device. A pass that is watched runs as it is
    written where the model is compiled: such code knows nothing of watchers.
    """
    alive, seen = dict[str, float](), dict[str, Tensor]()
    mixers = [module for module in model.modules() if isinstance(module, AFNO)] if watch else []

    def watcher(layer: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def watch_output(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[f"alive_{layer}"] = (output != 0).float().mean()

        return watch_output

    hooks = [mixer.shrink.register_forward_hook(watcher(i + 1)) for i, mixer in enumerate(mixers)]
    try:
        with torch.compiler.set_stance("force_eager") if watch and compiled else nullcontext():
            yield alive
        alive |= {key: fraction.item() for key, fraction in seen.items()}
    finally:
        for hook in hooks:
            hook.remove()


def dead_layers(alive: dict[str, float]) -> str:
    """A warning that names the layers that are dead, or nothing."""
    dead = [f"{key.removeprefix('alive_')} ({100 * value:.2g}%)" for key, value in alive.items() if value < DEAD]
    return (
        f"warning: soft-thresholding leaves under {100 * DEAD:.0f}% of the spectrum alive in AFNO layer "
        f"{', '.join(dead)}"
        if dead
        else ""
    )
