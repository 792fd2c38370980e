"""Published weights: foreign state dicts -> our models' names and layouts, written as safetensors.

Tensors are renamed by the layout that knows most of their names, the model is inferred from their shapes and built
without memory, and every tensor is held to it: what has no place is refused, not left out.
"""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from afno_repro.config import ModelConfig
from afno_repro.errors import ConfigError, Problem
from afno_repro.files import write_atomic
from afno_repro.models import build_model
from afno_repro.options import suggest
from afno_repro.weights.checkpoint import read_checkpoint
from afno_repro.weights.formats import ALIASES, FORMATS, Told
from afno_repro.weights.layouts import UNUSED, Layout
from afno_repro.weights.load import Fit, Weights, fit

# What wrappers and whole models put before a network's names.
PREFIX = re.compile(r"(?:module|model|backbone|segformer|swin|resnet|_orig_mod)\.")
SHOWN = 3  # names in a message
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {  # by the last part of our name
    **dict.fromkeys(("w1", "w2"), lambda w: w.movedim(0, -1)),  # 2 K D D -> K D D 2: real and imaginary parts
    **dict.fromkeys(("b1", "b2"), lambda b: b.movedim(0, -1).unsqueeze(-2)),  # 2 K D -> K D 1 2
    "relative_position_index": torch.flatten,
}


@dataclass(frozen=True)
class Conversion(Fit):
    """Weights that fit `model`, built for `learned_at` pixels a side; `unexpected` and `sha256` are the file's.

    A grid that is not square keeps its own height and width.
    """

    unexpected: list[str]
    sha256: str
    model: ModelConfig
    learned_at: int


def convert(path: Path, format_name: str, told: Told | None = None, ema: bool | None = None) -> Conversion:
    """A published file's tensors in our names and layouts; `told` is what no tensor tells.

    Raises DataError (not readable) or ConfigError (not of the format, no model here, something must be told).
    """
    family, told = ALIASES.get(format_name, format_name), told or Told()
    if family not in FORMATS:
        raise ConfigError(Problem(f"there is no format {format_name!r}", (), suggest(format_name, FORMATS, "formats")))
    form = FORMATS[family]
    for option in ("residuals", "num_heads"):
        if getattr(told, option) is not None and option not in form.takes:
            flag = f"--{option.replace('_', '-')}"
            raise ConfigError(
                Problem(f"the format {format_name} takes no {flag}", (), "its tensors tell; leave it out")
            )
    read = read_checkpoint(path, ema)
    theirs = read.tensors
    names = _best(theirs, form.layouts)
    try:
        if strangers := [name for name in theirs if name not in names]:
            raise LookupError(f"{len(strangers)} of its {len(theirs)} tensors have no place there: {_few(strangers)}")
        weights = _in_our_layout(theirs, names)
        config, learned_at = form.model(weights, replace(told, args=read.args))
        with torch.device("meta"):
            expected = build_model(config, learned_at).state_dict()
        fitting = fit(expected, weights)
    except (LookupError, ArithmeticError, TypeError, RuntimeError) as error:
        message = f"{path}: is not of the format {format_name} ({error})"  # a tensor is missing, or of another shape
        raise ConfigError(Problem(message, (), _resembling(theirs))) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: does not fit the format {format_name}", *error.problems) from None
    return Conversion(
        **vars(replace(fitting, weights=weights, resized=[])),  # a grid stays what it is
        unexpected=[name for name in theirs if names[name] == UNUSED],
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        model=config,
        learned_at=learned_at,
    )


def write_weights(conversion: Conversion, out: Path) -> None:
    """Write converted weights as safetensors, with the original's SHA-256, whole or not at all. Raises StorageError."""
    write_atomic(out, safetensors.torch.save(conversion.weights, metadata={"source_sha256": conversion.sha256}))


def _best(theirs: Iterable[str], layouts: Iterable[Layout]) -> dict[str, str]:
    """Our names by the layout that knows most of theirs."""
    return max((_renamed(theirs, layout) for layout in layouts), key=len)


def _resembling(theirs: Weights) -> str:
    """The formats that know most of a file's names."""
    known = {family: len(_best(theirs, form.layouts)) for family, form in FORMATS.items()}
    best = sorted((family for family in known if known[family]), key=known.__getitem__, reverse=True)[:SHOWN]
    found = ", ".join(f"{family} ({known[family]} of {len(theirs)})" for family in best)
    return f"formats that know its names: {found}" if found else f"no format here knows its names: {_few(theirs)}"


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _bare(name: str) -> str:
    """A name less what wrappers put before it, however many."""
    name = name.replace("_orig_mod.", "")
    while prefix := PREFIX.match(name):
        name = name[prefix.end() :]
    return name


def _renamed(theirs: Iterable[str], layout: Layout) -> dict[str, str]:
    """Our name of every name that the layout knows, in the layout's order, whatever prefixes it has."""
    bare = {name: _bare(name) for name in theirs}
    found: dict[str, tuple[str, str, dict[str, int]]] = {}
    blocks: dict[int, set[int]] = defaultdict(set)
    for entry, ours in layout.items():
        pattern = re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d{1,4})", re.escape(entry)) + r"(?P<below>\..+)?")
        for name, core in bare.items():
            if match := pattern.fullmatch(core):
                at = {key: int(value) for key, value in match.groupdict().items() if key != "below"}
                at = {"s": at.get("S", 1) - 1, "j": at.get("b", 0) + 1, **at}
                blocks[at["s"]].update({at["b"]} if "b" in at else {})
                found[name] = ours, match["below"] or "", at
    return {
        name: ours and ours.format(**at, end=len(blocks[at["s"]]) + 1, odd=2 * at["s"] + 1) + below
        for name, (ours, below, at) in found.items()
    }


def _in_our_layout(theirs: Weights, names: dict[str, str]) -> dict[str, Tensor]:
    """Copies of finite tensors under our names; those that share one are joined in their layout's order."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for name, ours in names.items():
        if ours != UNUSED:
            parts[ours].append(theirs[name])
            if not theirs[name].isfinite().all():
                raise ConfigError(Problem("holds numbers that are not finite", (name,), "the file itself is broken"))
    joined = {name: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for name, tensors in parts.items()}
    for name in [name for name in joined if ".mixer.qkv." in name]:
        qkv = joined.pop(name)
        third = len(qkv) // 3
        joined[name.replace("qkv", "q")], joined[name.replace("qkv", "kv")] = qkv[:third], qkv[third:]
    positions = "backbone.positions.table"
    if positions in joined:
        joined[positions] = _on_its_grid(joined[positions], joined.get("backbone.blocks.0.mixer.filter"))
    return {
        name: _laid_out(name, tensor).clone(memory_format=torch.contiguous_format) for name, tensor in joined.items()
    }


def _laid_out(name: str, tensor: Tensor) -> Tensor:
    if re.search(r"\.mlp\.(expand|contract)\.weight$", name) and tensor.shape[2:] == (1, 1):
        return tensor.flatten(1)  # a linear map written as a 1x1 convolution
    return LAYOUTS.get(name.rpartition(".")[2], Tensor.detach)(tensor)


def _on_its_grid(positions: Tensor, spectrum: Tensor | None) -> Tensor:
    """Positions 1 N C, row by row, as C H W: on a filter's grid (H, W // 2 + 1, C, 2) or else on a square."""
    count = positions.shape[1]
    height = math.isqrt(count) if spectrum is None else len(spectrum)
    width, rest = divmod(count, height)
    square = spectrum is None and width != height
    if rest or square or (spectrum is not None and width // 2 + 1 != spectrum.shape[1]):
        grid = (
            "no square" if spectrum is None else f"not the grid of the filters ({height} x {spectrum.shape[1]} modes)"
        )
        raise ConfigError(Problem(f"{count} positions are {grid}", (), "their height and width cannot be told"))
    return positions.reshape(height, width, -1).permute(2, 0, 1) if len(positions) == 1 else positions
