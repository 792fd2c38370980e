"""Run directories and their records: who may write a run, what it left behind, and what it was made with.

`runs/<kind>-<row>-<digest>/` holds config.json first, then log.csv, checkpoints/ and weights.safetensors, then
record.json last (or error.txt). A lock that the kernel releases with its process lets several shells share one table.
"""

import fcntl
import io
import json
import os
import platform
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afno_repro.config import Machine, RunConfig, config_from_json, digest
from afno_repro.errors import LockedError
from afno_repro.files import storage_errors, write_atomic
from afno_repro.suite.plan import Run

ARTIFACTS, LOG = "artifacts.npz", "log.csv"
PACKAGES = ("afno_repro", "torch", "torchvision", "numpy", "scipy", "scikit-image", "scikit-learn", "matplotlib", "pillow")


@dataclass(frozen=True)
class Record:
    """What a run came to. `repeats` are the single values behind a metric that was measured several times."""

    run_id: str
    digest: str
    config: RunConfig
    outcome: str  # ok, out_of_memory or diverged
    metrics: Mapping[str, float]
    repeats: Mapping[str, list[float]]
    provenance: Mapping[str, Any]

    def to_json(self) -> str:
        """The text of record.json."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Read record.json; raises ValueError when it is not one, or when its digest is not its config's."""
        try:
            tree = json.loads(text)
            record = cls(**{**tree, "config": config_from_json(tree["config"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a record: {error}") from None
        if record.digest != digest(record.config):
            raise ValueError("the digest is not that of the config")
        return record


class Store:
    """The run directories below one folder."""

    def __init__(self, root: Path):
        self.root = root

    def directory(self, run: Run) -> Path:
        """The run's directory, whichever row it was first made for; it need not exist yet."""
        return self.find(run.digest) or self.root / run.id

    def find(self, digest: str) -> Path | None:
        """The directory of the run of this digest, if there is one."""
        return next(iter(sorted(self.root.glob(f"*-{digest}"))), None)

    def record(self, digest: str) -> Record | None:
        """The record of the finished run of this digest, or None. A file that is no record of it counts as none."""
        directory = self.find(digest)
        try:
            record = Record.from_json((directory / "record.json").read_text()) if directory else None
        except (OSError, ValueError):
            return None
        return record if record and record.digest == digest else None

    def finished(self, run: Run, machine: Machine) -> Record | None:
        """The run's record if it need not run again: a latency is measured anew on another device or thread count."""
        record = self.record(run.digest)
        if record is not None and is_latency(run):
            here = (device_name(machine.device), machine.threads)
            return record if (record.provenance["device"], record.provenance["threads"]) == here else None
        return record

    @contextmanager
    def lock(self, run: Run) -> Iterator[Path]:
        """Hold the run's directory; raises LockedError, naming the holder, when another process does."""
        directory = self.directory(run)
        with storage_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            file = (directory / "lock").open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise LockedError(f"{run.id} is held by {file.read().strip() or 'another process'}") from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            yield directory

    def begin(self, run: Run, directory: Path) -> None:
        """Write config.json, first of all files."""
        write_atomic(directory / "config.json", json.dumps(asdict(run.config), indent=1, sort_keys=True) + "\n")

    def finish(self, record: Record, arrays: Mapping[str, NDArray[Any]], directory: Path) -> None:
        """Write artifacts.npz if there is something to draw, and record.json, last of all files; checkpoints are not needed any more."""
        if arrays:
            write_arrays(directory / ARTIFACTS, arrays)
        write_atomic(directory / "record.json", record.to_json())
        (directory / "error.txt").unlink(missing_ok=True)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)

    def fail(self, directory: Path, text: str) -> None:
        """Write error.txt: the run broke and will start again where its checkpoint stands."""
        write_atomic(directory / "error.txt", text)


def is_latency(run: Run) -> bool:
    """Whether a run times the machine, and so must run alone, with all threads."""
    return run.config.kind == "profile" and run.config.task.name == "latency"


def committed_name(row: str, stage: str, seed: int) -> str:
    """The file of a committed record, below results/<scale>/records/<spec>/; what a picture is drawn from ends in .npz, its log in .csv."""
    return f"{row}.{stage}.{seed}.json"


def publish(folder: Path, row: str, stage: str, seed: int, record: Record, directory: Path | None = None) -> None:
    """Put a record among those that tables are built from, in place of an older one of the same row, stage and seed.

    The arrays and the log of the run's directory, if it has some, go beside it, and first.
    """
    path = folder / committed_name(row, stage, seed)
    for file in [directory / ARTIFACTS, directory / LOG] if directory else []:
        if file.is_file():
            _copy(file.read_bytes(), path.with_suffix(file.suffix))
    _copy(record.to_json().encode(), path)


def _copy(data: bytes, path: Path) -> None:
    if not path.is_file() or path.read_bytes() != data:
        write_atomic(path, data)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Arrays as .npz, the same bytes from the same arrays."""
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)  # type: ignore[arg-type]
    write_atomic(path, data.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, no object among them. Raises ValueError when it is none."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: is no whole file of arrays ({error})") from error


def published(folder: Path, row: str, stage: str, seed: int) -> Record | None:
    """The record that tables are built from, or None; raises ValueError when the file is no record."""
    path = folder / committed_name(row, stage, seed)
    return Record.from_json(path.read_text()) if path.is_file() else None


def provenance(device: str, machine: Machine, seconds: float, data: str | None) -> dict[str, Any]:
    """What a number was made with: code, packages, device and how many of it, threads, time and a fingerprint of the data."""
    return {
        **code_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": device,
        "devices": machine.devices,
        "micro_batch": machine.micro_batch,
        "activation_checkpointing": machine.activation_checkpointing,
        "threads": machine.threads,
        "num_workers": machine.num_workers,
        "seconds": round(seconds, 1),
        "data": data,
    }


@cache
def code_version() -> dict[str, Any]:
    """The commit of this package's own checkout, and whether package or specs differ from it; None outside a checkout."""

    def git(*arguments: str) -> str | None:
        here = Path(__file__).resolve().parents[2]
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--", "afno_repro", "experiments")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def device_name(device: str) -> str:
    """The processor's or the GPU's own name."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()} ({cores()} cores)"


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
