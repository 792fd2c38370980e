"""Checkpoints that a killed process cannot tear and a flipped byte cannot pass.

`checkpoints/step-N/` holds state.pt and a manifest of sizes and SHA-256, written to a temporary folder, flushed and
renamed. Two are kept; the newest that verifies is loaded. Nothing is unpickled but tensors and plain containers.
"""

import hashlib
import io
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from afno_repro.errors import StorageError
from afno_repro.files import storage_errors, sync_folder, write_atomic

KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state as the checkpoint of this step and drop all but the newest two. Raises StorageError."""
    final = folder / f"step-{step:09d}"
    temporary = folder / f".step-{step:09d}.tmp"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (*folder.glob(".step-*.tmp"), *([final] if final.exists() else [])):
            shutil.rmtree(stale)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        write_atomic(temporary / "state.pt", data)
        manifest = {"state.pt": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
        write_atomic(temporary / "manifest.json", json.dumps(manifest))
        temporary.rename(final)
        sync_folder(folder)
        for old in saved(folder)[KEPT:]:
            shutil.rmtree(old)


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest state that verifies, or None where there is no checkpoint.

    Raises StorageError when there are checkpoints and none is whole: a run never silently starts again from zero.
    """
    found = saved(folder)
    for path in found:
        try:
            return _verified(path)
        except (OSError, ValueError, KeyError) as error:
            warnings.warn(f"{path} is damaged ({error}); trying the one before", stacklevel=2)
    if found:
        raise StorageError(f"{folder}: no checkpoint is whole\n  remove the folder to train this run again from the start")
    return None


def saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def _verified(path: Path) -> dict[str, Any]:
    expected = json.loads((path / "manifest.json").read_text())["state.pt"]
    data = (path / "state.pt").read_bytes()
    if len(data) != expected["bytes"] or hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise ValueError("its bytes are not those that were written")
    state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return state
