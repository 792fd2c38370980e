"""Tensors of a weights file, and weights loaded into a model of ours, on its grids.

Position tables and GFN filters of another grid are resized; every tensor is held to the model.
"""

import argparse
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from afno_repro.errors import ConfigError, DataError, Problem
from afno_repro.files import check_regular
from afno_repro.weights.formats import Weights

GROWTH, MAX_BYTES = 8, 16 * 2**30  # how much larger than its file, and how large, weights may be
NESTED = 8  # dicts within dicts in which a state dict is looked for


@dataclass(frozen=True)
class Fit:
    """Weights held to a model: our names that match, those that keep their value, and what was resized from -> to."""

    weights: dict[str, Tensor]
    matched: list[str]
    missing: list[str]
    resized: list[str]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors or PyTorch file; pickled objects are never executed.

    Raises DataError (missing, damaged, no file, of more bytes in memory than it may be) or ConfigError (pickled
    objects).
    """
    try:
        check_regular(path)
        most = min(GROWTH * path.stat().st_size, MAX_BYTES)
        if zipfile.is_zipfile(path):  # looked at before anything is unpacked
            with zipfile.ZipFile(path) as packed:
                _check_growth(path, sum(part.file_size for part in packed.infolist()), most)
        with torch.serialization.safe_globals([argparse.Namespace]):  # a training script's arguments beside its weights
            found = (
                safetensors.torch.load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, weights_only=True, map_location="cpu")
            )
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path}: refused: holds pickled objects other than tensors and plain containers; ask for safetensors"
        ) from error
    except Exception as error:  # a damaged file makes PyTorch's reader fail in every way
        raise DataError(f"{path}: is no whole weights file ({str(error).partition('.')[0]})") from error
    for _ in range(NESTED):  # a pickled dict may hold itself
        nest = (
            next((key for key in ("state_dict", "model") if isinstance(found.get(key), dict)), None)
            if isinstance(found, dict)
            else None
        )
        found = found if nest is None else found[nest]
    items = found.items() if isinstance(found, dict) else ()
    tensors = {str(name).removeprefix("module."): value.detach() for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise ConfigError(Problem("holds no state dict", place=str(path)))
    strange = [
        name for name, value in tensors.items() if value.layout != torch.strided or value.is_quantized or value.is_meta
    ]
    if strange:
        raise ConfigError(
            Problem(f"{strange[0]}: must be a dense tensor, is sparse, quantized or without values", place=str(path))
        )
    _check_growth(path, sum(value.numel() * value.itemsize for value in tensors.values()), most)
    return tensors


def _check_growth(path: Path, size: int, most: int) -> None:
    if size > most:
        raise DataError(
            f"{path}: refused: would take {size} bytes in memory, at most {most} are allowed: {GROWTH} times the file "
            f"and {MAX_BYTES // 2**30} GiB"
        )


def load_weights(model: nn.Module, weights: Weights) -> Fit:
    """Load weights of our names into a built model, all or nothing.

    Position tables and GFN filters of another grid are resized. Weights without any head leave the model's head as it
    is: to start another task, hand in those that start with `backbone.`. Raises ConfigError with the first five
    mismatches.
    """
    fitting = fit(model.state_dict(), weights)
    model.load_state_dict(fitting.weights, strict=False)
    return fitting


def fit(expected: Weights, weights: Weights) -> Fit:
    """The weights on the grids of a model's tensors; only a whole head and batch norm's step counts may be missing."""
    fitting = {
        name: _on_grid(name, tensor, expected[name]) if name in expected else tensor for name, tensor in weights.items()
    }
    missing = [name for name in expected if name not in weights]
    optional = "head." if not any(name.startswith("head.") for name in weights) else ()
    excused = {name for name in missing if name.startswith(optional) or name.endswith(".num_batches_tracked")}
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
