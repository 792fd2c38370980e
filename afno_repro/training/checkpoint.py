"""Checkpoints that a killed process cannot tear and a flipped byte cannot pass.

`checkpoints/step-N/` holds state.pt and a manifest of sizes and SHA-256, written to a temporary folder, flushed and
renamed. Two are kept; the newest that verifies is loaded. Nothing is unpickled but tensors and plain containers.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from afno_repro.errors import StorageError
from afno_repro.faults import fault
from afno_repro.files import make_folder, open_regular, read_regular, remove, storage_errors, sync_folder, write_atomic

KEPT = 2
MAX_MANIFEST = 2**20  # bytes


def save(folder: Path, step: int, state: dict[str, Any], told: dict[str, Any]) -> None:
    """Write the state as the checkpoint of this step and drop all but the newest two.

    `told` is part of it that the manifest says, too, for who does not read the rest. Raises StorageError.
    """
    final = folder / f"step-{step:09d}"
    temporary = folder / f".step-{step:09d}.tmp"
    buffer = io.BytesIO()
    torch.save({**state, **told}, buffer)
    data = buffer.getvalue()
    with storage_errors(folder, len(data)):
        make_folder(folder)
        for stale in (*folder.glob(".step-*.tmp"), *([final] if final.exists() else [])):
            remove(stale)
        fault("checkpoint: begun")
        try:
            write_atomic(temporary / "state.pt", data)
            manifest = {"state.pt": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}, **told}
            write_atomic(temporary / "manifest.json", json.dumps(manifest))
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fault("checkpoint: renamed")
        sync_folder(folder)
        for old in saved(folder)[KEPT:]:
            with suppress(NotADirectoryError):
                (old / "manifest.json").unlink(missing_ok=True)
            fault("checkpoint: half removed")
            remove(old)
    fault("checkpoint: kept")


def load_newest(folder: Path, note: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest state that verifies, or None where there is no checkpoint; `note` is told of damaged ones.

    Raises StorageError when there are checkpoints and none is whole: a run never silently starts again from zero.
    """
    reasons = []
    for path in saved(folder):
        try:
            return _verified(path)
        except ValueError as error:
            reasons.append(f"{path.name}: {error}")
            note(f"{path} is damaged ({error}); trying the one before")
    if reasons:
        hint = "remove the folder to train this run again from the start"
        raise StorageError("\n  ".join([f"{folder}: no checkpoint is whole", *reasons, hint]))
    return None


def saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def bytes_on_disk(folder: Path) -> int:
    """What the checkpoints in a folder take."""
    return sum(file.lstat().st_size for file in folder.glob("step-*/*"))


def _verified(path: Path) -> dict[str, Any]:
    """A checkpoint's state; raises ValueError when it is not whole."""
    try:
        manifest = json.loads(read_regular(path / "manifest.json", MAX_MANIFEST))
        expected = manifest["state.pt"]
        with open_regular(path / "state.pt") as file:
            data = file.read()
        size, checksum = expected["bytes"], expected["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it cannot be read: {error}") from None
    if len(data) != size or hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError("its bytes are not those that were written")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that pass for whole and are none make PyTorch's reader fail in every way
        raise ValueError(f"it is no checkpoint: {str(error).partition('.')[0]}") from None
    if not isinstance(state, dict):
        raise ValueError("it is no checkpoint: holds no state")
    if different := [key for key, value in manifest.items() if key != "state.pt" and state.get(key) != value]:
        raise ValueError(f"its manifest is not the one that was written: {', '.join(different)}")
    return state
