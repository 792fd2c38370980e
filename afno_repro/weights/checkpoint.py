"""What a weights file holds: named tensors and the arguments of the script that trained them; nothing is executed."""

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from afno_repro.errors import ConfigError, DataError, Problem
from afno_repro.files import open_regular

GROWTH, MAX_BYTES = 8, 16 * 2**30  # how much larger than its file, and how large, weights may be
NESTED = 8  # dicts within dicts in which a state dict is looked for
RAW = ("state_dict", "model", "model_state_dict", "module")
STRANGERS = {  # how a file begins that holds no weights, and what it is
    b"version https://git-lfs": "a Git LFS pointer, which stands for the file; `git lfs pull` fetches the file itself",
    b"<": "a web page; the address gave no file, as where a download wants a login",
    b"\x89HDF": "an HDF5 file; ask for the PyTorch or safetensors weights",
}

PICKLED = (b"PK", b"\x80")  # an archive of torch.save, a pickle


class Dropped:
    """Stands for a number of NumPy's beside the weights (a best accuracy), which is not rebuilt."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
HARMLESS: list[Any] = [argparse.Namespace, Dropped, *((Dropped, name) for name in NUMPY)]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by the file's own names, and its script's arguments as far as it keeps them."""

    tensors: dict[str, Tensor]
    args: Mapping[str, Any]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors or PyTorch file; raises what `read_checkpoint` does."""
    return read_checkpoint(path).tensors


def read_checkpoint(path: Path, ema: bool | None = None) -> Checkpoint:
    """A .safetensors or PyTorch file, with its averaged weights (`ema`) or the raw ones; None: whichever it has alone.

    Raises DataError (missing, damaged, no weights file) or ConfigError (pickled objects, no state dict, both kinds).
    """
    args: Mapping[str, Any] = {}
    found, averaged = _load(path), False
    for _ in range(NESTED):  # a pickled dict may hold itself
        if not isinstance(found, dict):
            break
        args = _arguments(found.get("args")) or args
        raw = next((key for key in RAW if isinstance(found.get(key), dict)), None)
        mean = next((key for key in found if "ema" in str(key).split("_") and isinstance(found[key], dict)), None)
        own = any(isinstance(value, Tensor) and value.ndim for value in found.values())
        if mean is not None and _prefers(path, ema, mean, raw or ("the file's own" if own else None)):
            found, averaged = found[mean], True
        elif raw is not None:
            found = found[raw]
        else:
            break
    if ema and not averaged:
        raise ConfigError(Problem("holds no EMA weights", (), "leave --ema out", str(path)))
    return Checkpoint(_tensors(found, path), args)


def _prefers(path: Path, ema: bool | None, mean: str, raw: str | None) -> bool:
    """Whether the averaged weights are meant; where raw ones lie beside them, that must have been said."""
    if ema is None and raw:
        message = f"holds EMA weights ({mean}) beside raw ones ({raw})"
        raise ConfigError(Problem(message, (), "say which: --ema or --no-ema", str(path)))
    if ema is False and not raw:
        raise ConfigError(Problem(f"holds EMA weights ({mean}) alone", (), "leave --no-ema out", str(path)))
    return ema is not False


def _load(path: Path) -> Any:
    try:
        with open_regular(path) as file:
            head = file.read(64)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    for beginning, what in STRANGERS.items():
        if head.lstrip().startswith(beginning):
            raise DataError(f"{path}: is {what}")
    try:
        if zipfile.is_zipfile(path):  # looked at before anything is unpacked
            with zipfile.ZipFile(path) as packed:
                check_growth(path, sum(part.file_size for part in packed.infolist()))
        if path.suffix == ".safetensors" or head[8:9] == b"{":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, weights_only=True, map_location="cpu")
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|class/function:?) ['\"`]?([\w.]+)", str(error))
        if named is None and not head.startswith(PICKLED):
            raise DataError(f"{path}: is no weights file: neither safetensors nor what torch.save writes") from error
        objects = f" ({named[1]})" if named else ""
        raise ConfigError(
            f"{path}: refused: holds pickled objects other than tensors and plain containers{objects}\n"
            "  ask for safetensors, or for torch.save(model.state_dict())"
        ) from error
    except Exception as error:  # a damaged file makes PyTorch's reader fail in every way
        raise DataError(f"{path}: is no whole weights file ({str(error).partition('.')[0]})") from error


def _arguments(value: Any) -> Mapping[str, Any]:
    return vars(value) if isinstance(value, argparse.Namespace) else value if isinstance(value, dict) else {}


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    items = found.items() if isinstance(found, dict) else ()
    tensors = {str(name): value.detach() for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise ConfigError(Problem("holds no state dict", place=str(path)))
    strange = [
        name for name, value in tensors.items() if value.layout != torch.strided or value.is_quantized or value.is_meta
    ]
    if strange:
        raise ConfigError(
            Problem(f"{strange[0]}: must be a dense tensor, is sparse, quantized or without values", place=str(path))
        )
    check_growth(path, sum(value.numel() * value.itemsize for value in tensors.values()))
    return tensors


def check_growth(path: Path, size: int) -> None:
    """Raise DataError where a file would take more memory than its own size may grow to."""
    most = min(GROWTH * path.stat().st_size, MAX_BYTES)
    if size > most:
        raise DataError(
            f"{path}: refused: would take {size} bytes in memory, at most {most} are allowed: {GROWTH} times the file "
            f"and {MAX_BYTES // 2**30} GiB"
        )
