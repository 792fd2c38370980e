"""Published weights: foreign state dicts -> our models' names and layouts, written as safetensors.

Tensors are renamed by their format's table, the model is inferred from their shapes and built without memory, and every
tensor is held to it.
"""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from afno_repro.config import ModelConfig
from afno_repro.errors import ConfigError, Problem
from afno_repro.files import write_atomic
from afno_repro.models import build_model
from afno_repro.options import suggest
from afno_repro.weights.formats import FORMATS, Weights
from afno_repro.weights.load import Fit, fit, read_state_dict

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {  # by the last part of our name
    "table": lambda positions: positions.reshape(2 * [math.isqrt(positions.shape[1])] + [-1]).permute(
        2, 0, 1
    ),  # 1 N C, row by row -> C H W
    **dict.fromkeys(("w1", "w2"), lambda w: w.movedim(0, -1)),  # 2 K D D -> K D D 2: real and imaginary parts
    **dict.fromkeys(("b1", "b2"), lambda b: b.movedim(0, -1).unsqueeze(-2)),  # 2 K D -> K D 1 2
}


@dataclass(frozen=True)
class Conversion(Fit):
    """Weights that fit `model`, built for `learned_at` pixels a side; `unexpected` and `sha256` are the file's."""

    unexpected: list[str]
    sha256: str
    model: ModelConfig
    learned_at: int


def convert(path: Path, format_name: str) -> Conversion:
    """A published file's tensors in our names and layouts.

    Raises DataError (not readable) or ConfigError (not of the format, no model here).
    """
    if format_name not in FORMATS:
        raise ConfigError(Problem(f"there is no format {format_name!r}", (), suggest(format_name, FORMATS, "formats")))
    theirs, form = read_state_dict(path), FORMATS[format_name]
    try:
        names = _renamed(theirs, form.names)
        weights = _in_our_layout(theirs, names)
        config, learned_at = form.model(weights)
        with torch.device("meta"):
            expected = build_model(config, learned_at).state_dict()
        fitting = fit(expected, {name: tensor for name, tensor in weights.items() if name in expected})
    except (
        LookupError,
        ArithmeticError,
        TypeError,
        RuntimeError,
    ) as error:  # a tensor is missing or of a shape that the format has not
        raise ConfigError(f"{path}: is not of the format {format_name} ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: does not fit the format {format_name}", *error.problems) from None
    unexpected = [name for name in theirs if names.get(name) not in expected]
    return Conversion(
        **vars(fitting),
        unexpected=unexpected,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        model=config,
        learned_at=learned_at,
    )


def write_weights(conversion: Conversion, out: Path) -> None:
    """Write converted weights as safetensors, with the original's SHA-256, whole or not at all. Raises StorageError."""
    write_atomic(out, safetensors.torch.save(conversion.weights, metadata={"source_sha256": conversion.sha256}))


def _renamed(theirs: Weights, table: Mapping[str, str]) -> dict[str, str]:
    """Our name of every name that the table knows, whether or not the whole encoder has a prefix."""
    patterns = [(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d{1,4})", re.escape(entry)), ours) for entry, ours in table.items()]
    hits = [
        (name, ours, m)
        for name in theirs
        for p, ours in patterns
        if (m := re.fullmatch(rf"(backbone\.|segformer\.)?{p}(?P<below>\..+)?", name))
    ]
    found: dict[str, tuple[str, str, dict[str, int]]] = {}
    blocks: dict[int, set[int]] = defaultdict(set)
    for name, ours, match in hits:
        at = {key: int(value) for key, value in match.groupdict().items() if key != "below"}
        at = {"s": at.get("S", 1) - 1, "j": at.get("b", 0) + 1, **at}
        blocks[at["s"]].update({at["b"]} if "b" in at else {})
        found[name] = ours, match["below"] or "", at
    return {name: ours.format(**at, end=len(blocks[at["s"]]) + 1) + below for name, (ours, below, at) in found.items()}


def _in_our_layout(theirs: Weights, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Copies under our names; tensors that share one (keys and values) are stacked in the order of their old names."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for name in sorted(names):
        parts[names[name]].append(theirs[name])
    joined = {name: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for name, tensors in parts.items()}
    return {
        name: LAYOUTS.get(name.rpartition(".")[2], Tensor.detach)(tensor).clone(memory_format=torch.contiguous_format)
        for name, tensor in joined.items()
    }
