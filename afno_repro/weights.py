"""Published weights: foreign state dicts -> our models' names and layouts, written as safetensors.

Tensors are renamed by their format's table, the model is inferred from their shapes and built without memory, and every
tensor is held to it.
"""

import argparse
import hashlib
import math
import pickle
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from afno_repro.config import ModelConfig
from afno_repro.errors import ConfigError, DataError, Problem
from afno_repro.files import write_atomic
from afno_repro.formats import FORMATS, Weights
from afno_repro.models import build_model
from afno_repro.options import suggest

NESTED = 8  # dicts within dicts in which a state dict is looked for
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {  # by the last part of our name
    "table": lambda positions: positions.reshape(2 * [math.isqrt(positions.shape[1])] + [-1]).permute(2, 0, 1),  # 1 N C, row by row -> C H W
    **dict.fromkeys(("w1", "w2"), lambda w: w.movedim(0, -1)),  # 2 K D D -> K D D 2: real and imaginary parts
    **dict.fromkeys(("b1", "b2"), lambda b: b.movedim(0, -1).unsqueeze(-2)),  # 2 K D -> K D 1 2
}


@dataclass(frozen=True)
class Fit:
    """Weights held to a model: our names that match, those that keep their value, and what was resized from -> to."""

    weights: dict[str, Tensor]
    matched: list[str]
    missing: list[str]
    resized: list[str]


@dataclass(frozen=True)
class Conversion(Fit):
    """Weights that fit `model`, built for `learned_at` pixels a side; what they do not use and the digest are the file's."""

    unexpected: list[str]
    sha256: str
    model: ModelConfig
    learned_at: int


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors or PyTorch file. Raises DataError (missing, damaged) or ConfigError (pickled objects: none is executed)."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # a training script's arguments beside its weights
            found = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise ConfigError(f"{path}: refused: holds pickled objects other than tensors and plain containers; ask for safetensors") from error
    except Exception as error:  # a damaged file makes PyTorch's reader fail in every way
        raise DataError(f"{path}: is no whole weights file ({str(error).partition('.')[0]})") from error
    for _ in range(NESTED):  # a pickled dict may hold itself
        nest = next((key for key in ("state_dict", "model") if isinstance(found.get(key), dict)), None) if isinstance(found, dict) else None
        found = found if nest is None else found[nest]
    items = found.items() if isinstance(found, dict) else ()
    tensors = {str(name).removeprefix("module."): value.detach() for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise ConfigError(Problem("holds no state dict", place=str(path)))
    strange = [name for name, value in tensors.items() if value.layout != torch.strided or value.is_quantized or value.is_meta]
    if strange:
        raise ConfigError(Problem(f"{strange[0]}: must be a dense tensor, is sparse, quantized or without values", place=str(path)))
    return tensors


def convert(path: Path, format_name: str) -> Conversion:
    """A published file's tensors in our names and layouts. Raises DataError (not readable) or ConfigError (not of the format, no model here)."""
    if format_name not in FORMATS:
        raise ConfigError(Problem(f"there is no format {format_name!r}", (), suggest(format_name, FORMATS, "formats")))
    theirs, form = read_state_dict(path), FORMATS[format_name]
    try:
        names = _renamed(theirs, form.names)
        weights = _in_our_layout(theirs, names)
        config, learned_at = form.model(weights)
        with torch.device("meta"):
            expected = build_model(config, learned_at).state_dict()
        fit = _fit(expected, {name: tensor for name, tensor in weights.items() if name in expected})
    except (LookupError, ArithmeticError, TypeError, RuntimeError) as error:  # a tensor is missing or of a shape that the format has not
        raise ConfigError(f"{path}: is not of the format {format_name} ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: does not fit the format {format_name}", *error.problems) from None
    unexpected = [name for name in theirs if names.get(name) not in expected]
    return Conversion(**vars(fit), unexpected=unexpected, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), model=config, learned_at=learned_at)


def write_weights(conversion: Conversion, out: Path) -> None:
    """Write converted weights as safetensors, whole or not at all; the metadata names the original's SHA-256. Raises StorageError."""
    write_atomic(out, safetensors.torch.save(conversion.weights, metadata={"source_sha256": conversion.sha256}))


def load_weights(model: nn.Module, weights: Weights) -> Fit:
    """Load weights of our names into a built model, all or nothing.

    Position tables and GFN filters of another grid are resized. Weights without any head leave the model's head as it is:
    to start another task, hand in those that start with `backbone.`. Raises ConfigError with the first five mismatches.
    """
    fit = _fit(model.state_dict(), weights)
    model.load_state_dict(fit.weights, strict=False)
    return fit


def _renamed(theirs: Weights, table: Mapping[str, str]) -> dict[str, str]:
    """Our name of every name that the table knows, whether or not the whole encoder has a prefix."""
    patterns = [(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(entry)), ours) for entry, ours in table.items()]
    hits = [(name, ours, m) for name in theirs for p, ours in patterns if (m := re.fullmatch(rf"(backbone\.|segformer\.)?{p}(?P<below>\..+)?", name))]
    found: dict[str, tuple[str, str, dict[str, int]]] = {}
    blocks: dict[int, set[int]] = defaultdict(set)
    for name, ours, match in hits:
        at = {key: int(value) for key, value in match.groupdict().items() if key != "below"}
        at = {"s": at.get("S", 1) - 1, "j": at.get("b", 0) + 1, **at}
        blocks[at["s"]].update({at["b"]} if "b" in at else {})
        found[name] = ours, match["below"] or "", at
    return {name: ours.format(**at, end=len(blocks[at["s"]]) + 1) + below for name, (ours, below, at) in found.items()}


def _in_our_layout(theirs: Weights, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Copies under our names; tensors that share a name (keys and values) are stacked in the alphabetical order of theirs."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for name in sorted(names):
        parts[names[name]].append(theirs[name])
    joined = {name: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for name, tensors in parts.items()}
    return {name: LAYOUTS.get(name.rpartition(".")[2], Tensor.detach)(tensor).clone(memory_format=torch.contiguous_format) for name, tensor in joined.items()}


def _fit(expected: Weights, weights: Weights) -> Fit:
    """The weights on the grids of a model's tensors; only a whole head and batch norm's step counts may be missing."""
    fitting = {name: _on_grid(name, tensor, expected[name]) if name in expected else tensor for name, tensor in weights.items()}
    missing = [name for name in expected if name not in weights]
    optional = "head." if not any(name.startswith("head.") for name in weights) else ()
    excused = {name for name in missing if name.startswith(optional) or name.endswith(".num_batches_tracked")}
    shapes, found = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (expected, fitting))
    real = {name for name, tensor in expected.items() if tensor.is_floating_point()}
    other = {name: f" of {fitting[name].dtype}" for name in real & set(fitting) if not fitting[name].is_floating_point()}
    wrong = [name for name in shapes | found if (shapes.get(name) != found.get(name) and name not in excused) or name in other]
    if wrong:
        first = [Problem(f"expected {shapes.get(name)}, found {found.get(name)}{other.get(name, '')}", (name,)) for name in wrong[:5]]
        raise ConfigError(f"weights of another model: {len(wrong)} tensors differ, the first {len(first)} are", *first)
    resized = [f"{name}: {tuple(tensor.shape)} -> {found[name]}" for name, tensor in weights.items() if tensor.shape != found[name]]
    return Fit(fitting, list(fitting), missing, resized)


def _on_grid(name: str, tensor: Tensor, expected: Tensor) -> Tensor:
    """Position tables (C H W) and GFN filters (H M C 2) on another grid, as Positions and GFN resize them; the rest unchanged."""
    shape = expected.shape
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor
    if tensor.dtype.itemsize == 1:
        tensor = tensor.to(expected.dtype)  # PyTorch resizes no 8-bit numbers
    if name == "backbone.positions.table" and tensor.ndim == 3 and tensor.shape[1:] != shape[1:]:
        return nn.functional.interpolate(tensor[None], size=shape[1:], mode="bilinear", align_corners=False)[0]
    if name.endswith(".mixer.filter") and tensor.ndim == 4 and tensor.shape[:2] != shape[:2]:
        return nn.functional.interpolate(tensor.permute(2, 3, 0, 1), size=shape[:2], mode="bilinear", align_corners=True).permute(2, 3, 0, 1).contiguous()
    return tensor
