"""Run directories and their records: who may write a run, what it left behind, and what it was made with.

`runs/<kind>-<row>-<digest>/` holds config.json first, then log.csv, checkpoints/ and weights.safetensors, then
record.json last (or error.txt). A lock that the kernel releases with its process lets several shells share one table.
"""

import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

from afno_repro.config import Machine
from afno_repro.errors import LockedError, StorageError
from afno_repro.faults import fault
from afno_repro.files import make_folder, storage_errors, sweep, write_atomic
from afno_repro.runs.provenance import device_name
from afno_repro.runs.record import Record, read_record
from afno_repro.spec.plan import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARTIFACTS, LOG, WEIGHTS = "artifacts.npz", "log.csv", "weights.safetensors"


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
            record = read_record(directory / "record.json") if directory else None
        except (OSError, ValueError):
            return None
        return record if record and record.digest == digest else None

    def finished(self, run: Run, machine: Machine) -> Record | None:
        """The run's record if it need not run again.

        A latency is measured anew on another device or thread count; what ran out of memory is tried anew with other
        means.
        """
        record = self.record(run.digest)
        if record is None or not (is_latency(run) or record.outcome == "out_of_memory"):
            return record
        here: dict[str, Any] = {"device": device_name(machine.device)}
        if is_latency(run):
            here["threads"] = machine.threads
        else:
            here |= {name: getattr(machine, name) for name in ("devices", "micro_batch", "activation_checkpointing")}
        return record if all(record.provenance.get(name) == value for name, value in here.items()) else None

    @contextmanager
    def lock(self, run: Run) -> Iterator[Path]:
        """Hold the run's directory, swept of what a killed process left.

        Raises LockedError, naming the holder, when another process holds it.
        """
        directory = self.directory(run)
        if directory.is_symlink() and directory.resolve().parent != self.root.resolve():
            raise StorageError(
                f"{directory}: refused: links out of {self.root}\n"
                "  remove the link, or name the folder that it leads to with --runs"
            )
        with storage_errors(directory):
            make_folder(directory)
            file = os.fdopen(
                os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "rb+", buffering=0
            )
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(
                    f"{run.id} is held by {file.read().decode(errors='replace').strip() or 'another process'}"
                ) from None
            with storage_errors(directory):
                file.truncate(0)
                since = datetime.now().astimezone().isoformat(" ", "seconds")
                file.write(f"process {os.getpid()} on {platform.node()} since {since}\n".encode())
                sweep(directory)
            fault("run: locked")
            yield directory

    def begin(self, run: Run, directory: Path) -> None:
        """Write config.json, first of all files."""
        write_atomic(directory / "config.json", json.dumps(asdict(run.config), indent=1, sort_keys=True) + "\n")

    def finish(self, record: Record, arrays: Mapping[str, "NDArray[Any]"], directory: Path) -> None:
        """Write artifacts.npz if there is something to draw, and record.json, last of all files.

        Then checkpoints are not needed any more.
        """
        if arrays:
            write_arrays(directory / ARTIFACTS, arrays)
        write_atomic(directory / "record.json", record.to_json())
        fault("run: recorded")
        self.tidy(directory)

    def tidy(self, directory: Path) -> None:
        """Remove what a finished run needs no more."""
        (directory / "error.txt").unlink(missing_ok=True)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)

    def fail(self, directory: Path, text: str) -> None:
        """Write error.txt, if there is room for it: the run broke and will start again where its checkpoint stands."""
        with suppress(StorageError):
            write_atomic(directory / "error.txt", text)


def weights_checksum(directory: Path) -> str | None:
    """SHA-256 of a run's final weights; None where it has none."""
    path = directory / WEIGHTS
    if not path.is_file():
        return None
    with storage_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_latency(run: Run) -> bool:
    """Whether a run times the machine, and so must run alone, with all threads."""
    return run.config.kind == "profile" and run.config.task.name == "latency"


def committed_name(row: str, stage: str, seed: int) -> str:
    """The file of a committed record, below results/<scale>/records/<spec>/.

    What a picture is drawn from ends in .npz, its log in .csv.
    """
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


def write_arrays(path: Path, arrays: Mapping[str, "NDArray[Any]"]) -> None:
    """Arrays as .npz, the same bytes from the same arrays."""
    import numpy as np  # not above: most commands look at no arrays

    data = io.BytesIO()
    np.savez_compressed(data, **arrays)  # type: ignore[arg-type]
    write_atomic(path, data.getvalue())


def read_arrays(path: Path) -> dict[str, "NDArray[Any]"]:
    """The arrays of an .npz file, no object among them. Raises ValueError when it is none."""
    import numpy as np

    broken = (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        TypeError,
        KeyError,
        RuntimeError,
        OverflowError,
        MemoryError,
        struct.error,
        TokenError,
    )
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
            strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
            if strange:
                raise ValueError(f"{', '.join(strange)}: no array")
            return arrays
    except (*broken, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: is no whole file of arrays ({error})") from error


def published(folder: Path, row: str, stage: str, seed: int) -> Record | None:
    """The record that tables are built from, or None; raises ValueError when the file is no record."""
    path = folder / committed_name(row, stage, seed)
    return read_record(path) if path.is_file() else None


def readable(folder: Path, row: str, stage: str, seed: int) -> Record | None:
    """The same, where a file that is no record counts as none."""
    try:
        return published(folder, row, stage, seed)
    except (OSError, ValueError):
        return None
