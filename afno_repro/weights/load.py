"""Weights loaded into a model of ours, on its grids.

Position tables and GFN filters of another grid are resized; every tensor is held to the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from afno_repro.errors import ConfigError, Problem

Weights = Mapping[str, Tensor]
COMPUTED = (".num_batches_tracked", ".relative_position_index")  # of tensors that a file may lack: nothing is learned


@dataclass(frozen=True)
class Fit:
    """Weights held to a model: our names that match, those that keep their value, and what was resized from -> to."""

    weights: dict[str, Tensor]
    matched: list[str]
    missing: list[str]
    resized: list[str]


def load_weights(model: nn.Module, weights: Weights) -> Fit:
    """Load weights of our names into a built model, all or nothing.

    Position tables and GFN filters of another grid are resized. Weights without any head leave the model's head as it
    is: to start another task, hand in those that start with `backbone.`. Raises ConfigError with the first five
    mismatches.
    """
    fitting = fit(model.state_dict(), weights)
    model.load_state_dict(fitting.weights, strict=False)
    return fitting


def trunk(weights: Weights) -> dict[str, Tensor]:
    """Weights without their head, which belongs to its own task."""
    return {name: value for name, value in weights.items() if name.startswith("backbone.")}


def fit(expected: Weights, weights: Weights) -> Fit:
    """The weights on the grids of a model's tensors; only a whole head and what is not learned may be missing."""
    fitting = {
        name: _on_grid(name, tensor, expected[name]) if name in expected else tensor for name, tensor in weights.items()
    }
    missing = [name for name in expected if name not in weights]
    optional = "head." if not any(name.startswith("head.") for name in weights) else ()
    excused = {name for name in missing if name.startswith(optional) or name.endswith(COMPUTED)}
    shapes, found = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (expected, fitting))
    real = {name for name, tensor in expected.items() if tensor.is_floating_point()}
    other = {
        name: f" of {fitting[name].dtype}" for name in real & set(fitting) if not fitting[name].is_floating_point()
    }
    wrong = [
        name
        for name in shapes | found
        if (shapes.get(name) != found.get(name) and name not in excused) or name in other
    ]
    if wrong:
        first = [
            Problem(f"expected {shapes.get(name)}, found {found.get(name)}{other.get(name, '')}", (name,))
            for name in wrong[:5]
        ]
        raise ConfigError(f"weights of another model: {len(wrong)} tensors differ, the first {len(first)} are", *first)
    resized = [
        f"{name}: {tuple(tensor.shape)} -> {found[name]}"
        for name, tensor in weights.items()
        if tensor.shape != found[name]
    ]
    return Fit(fitting, list(fitting), missing, resized)


def _on_grid(name: str, tensor: Tensor, expected: Tensor) -> Tensor:
    """Position tables (C H W) and GFN filters (H M C 2) resized to another grid as their modules do; others as is."""
    shape = expected.shape
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor
    if tensor.dtype.itemsize == 1:
        tensor = tensor.to(expected.dtype)  # PyTorch resizes no 8-bit numbers
    if name == "backbone.positions.table" and tensor.ndim == 3 and tensor.shape[1:] != shape[1:]:
        return nn.functional.interpolate(tensor[None], size=shape[1:], mode="bilinear", align_corners=False)[0]
    if name.endswith(".mixer.filter") and tensor.ndim == 4 and tensor.shape[:2] != shape[:2]:
        return (
            nn.functional.interpolate(tensor.permute(2, 3, 0, 1), size=shape[:2], mode="bilinear", align_corners=True)
            .permute(2, 3, 0, 1)
            .contiguous()
        )
    return tensor
