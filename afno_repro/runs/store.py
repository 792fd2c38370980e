"""Run directories and their records: who may write a run, what it left behind, and what it was made with.

`runs/<kind>-<row>-<digest>/` holds config.json first, then log.csv, checkpoints/ and weights.safetensors, then
record.json last (or error.txt). A lock that the kernel releases with its process lets several shells share one table;
its file is `runs/locks/<digest>`, so that nobody who tidies a run's directory makes it another's.
"""

import fcntl
import hashlib
import io
import json
import os
import platform
import re
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
from afno_repro.files import make_folder, open_regular, read_regular, remove, storage_errors, sweep, write_atomic
from afno_repro.runs.provenance import device_name
from afno_repro.runs.record import MAX_BYTES, Record, misfits, read_record
from afno_repro.spec.plan import Run
from afno_repro.training.events import FOLDER as CURVES

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARTIFACTS, CONFIG, LOCKS, LOG, RECORD, WEIGHTS = (
    "artifacts.npz",
    "config.json",
    "locks",
    "log.csv",
    "record.json",
    "weights.safetensors",
)
PUT_BACK = "put the right file there, or remove the folder to do this run again"


class Store:
    """The run directories below one folder."""

    def __init__(self, root: Path):
        self.root = root

    def directory(self, run: Run) -> Path:
        """The run's directory, whichever row it was first made for; it need not exist yet."""
        return self.find(run.digest) or self.root / run.id

    def find(self, digest: str) -> Path | None:
        """The directory of the run of this digest, if there is one."""
        found = sorted(self.root.glob(f"*-{digest}"))
        return next((path for path in found if (path / RECORD).exists()), next(iter(found), None))

    def record(self, digest: str) -> Record | None:
        """The record of the finished run of this digest, or None. A file that is no record of it counts as none.

        Raises StorageError where it cannot be read: that is no absence.
        """
        directory = self.find(digest)
        if directory is None or not (directory / RECORD).exists():
            return None
        try:
            with storage_errors(directory / RECORD):
                record = read_record(directory / RECORD)
        except ValueError:
            return None
        if record.digest != digest:
            raise StorageError(f"{directory / RECORD}: the record of another run, {record.run_id}\n  {PUT_BACK}")
        return record

    def finished(self, run: Run, machine: Machine) -> Record | None:
        """The run's record if it need not run again.

        A latency is measured anew on another device or thread count; what diverged or ran out of memory is tried anew
        with other means. A run whose parent is not the one that it started from is not finished.
        """
        record = self.record(run.digest)
        if record is None or self._orphaned(run, record):
            return None
        if not (is_latency(run) or record.outcome != "ok"):
            return record
        before = {**record.provenance, **({"micro_batch": None} if record.provenance.get("fitted") else {})}
        here: dict[str, Any] = {"device": device_name(machine.device)}
        if is_latency(run):
            here["threads"] = machine.threads
        else:
            here |= {name: getattr(machine, name) for name in ("devices", "micro_batch", "activation_checkpointing")}
        return record if all(before.get(name) == value for name, value in here.items()) else None

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
        lock = self.root / LOCKS / run.digest
        with storage_errors(lock):
            make_folder(directory)
            make_folder(lock.parent)
            file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "rb+", buffering=0)
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
                sweep(directory)  # which lists it: NFS may have remembered that another machine's record is not there
            fault("run: locked")
            yield directory

    def begin(self, run: Run, directory: Path) -> None:
        """Write config.json, first of all files."""
        write_atomic(directory / CONFIG, json.dumps(asdict(run.config), indent=1, sort_keys=True) + "\n")

    def finish(self, record: Record, directory: Path) -> None:
        """Write record.json, last of all files; the checkpoints of what ended well are not needed any more."""
        write_atomic(directory / RECORD, record.to_json())
        fault("run: recorded")
        self.tidy(directory, record)

    def tidy(self, directory: Path, record: Record) -> None:
        """Remove what a finished run needs no more; one that did not end well may go on from its checkpoints."""
        (directory / "error.txt").unlink(missing_ok=True)
        if record.outcome == "ok":
            with suppress(OSError):
                remove(directory / "checkpoints")

    def forget(self, run: Run) -> None:
        """Remove all that a run has left, its record first, so that it begins anew. Raises LockedError."""
        with self.lock(run) as directory, storage_errors(directory):
            for name in (RECORD, WEIGHTS, ARTIFACTS, LOG, "error.txt"):
                (directory / name).unlink(missing_ok=True)
            for name in ("checkpoints", CURVES):
                remove(directory / name)

    def half_done(self, run: Run) -> bool:
        """Whether an unfinished run has a checkpoint to go on from."""
        return (self.directory(run) / "checkpoints").is_dir()

    def parent(self, run: Run) -> dict[str, Any] | None:
        """What tells the run that this one starts from: its weights and its data; None where it starts from none."""
        record = self.record(run.config.init) if run.parent and run.config.init else None
        return None if record is None else {key: record.provenance.get(key) for key in ("weights", "data")}

    def _orphaned(self, run: Run, record: Record) -> bool:
        """Whether the parent that stands there now is not the one that the run started from."""
        before, now = record.provenance.get("parent"), self.parent(run)
        return before is not None and now is not None and before != now

    def fed(self, run: Run) -> tuple[str, tuple[int, ...], dict[str, Any]] | None:
        """The data that a finished or half-done run was made with, its number of images, and the packages then."""
        record, directory = self.record(run.digest), self.find(run.digest)
        bound = checkpointed(directory / "checkpoints").get("bound") if directory else None
        made = record.provenance if record else bound if isinstance(bound, dict) else {}
        if not isinstance(made.get("data"), str):
            return None
        return made["data"], tuple(made.get("images") or ()), made.get("packages") or {}

    def before(self, run: Run) -> list[dict[str, Any]]:
        """What the steps of a half-done run's checkpoint were made with, stretch by stretch, if it says so."""
        made = checkpointed(self.directory(run) / "checkpoints").get("made")
        return made if isinstance(made, list) and not any(map(misfits, made)) else []

    def fail(self, directory: Path, text: str) -> None:
        """Write error.txt, if there is room for it: the run broke and will start again where its checkpoint stands."""
        with suppress(StorageError):
            write_atomic(directory / "error.txt", text)


def checksum(directory: Path, name: str) -> str | None:
    """SHA-256 of a file that a run has left; None where it has left none."""
    path = directory / name
    if not path.is_file():
        return None
    with storage_errors(path), open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def checkpointed(folder: Path) -> dict[str, Any]:
    """What the newest checkpoint in a folder says of itself; nothing where there is none."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            told = json.loads(read_regular(path / "manifest.json", MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        return told if isinstance(told, dict) else {}
    return {}


def is_latency(run: Run) -> bool:
    """Whether a run times the machine, and so must run alone, with all threads."""
    return run.config.kind == "profile" and run.config.task.name == "latency"


def records_folder(folder: Path, table: str) -> Path:
    """Where the records behind a table lie, below the scale's results folder."""
    return folder / "records" / table


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


def published_seeds(folder: Path) -> set[int]:
    """The seeds of all records that tables are built from."""
    names = (re.fullmatch(r".+\.(0|[1-9][0-9]{0,8})\.json", path.name) for path in folder.glob("*.json"))
    return {int(name[1]) for name in names if name}


def readable(folder: Path, row: str, stage: str, seed: int) -> Record | None:
    """The same, where a file that is no record counts as none."""
    try:
        return published(folder, row, stage, seed)
    except (OSError, ValueError):
        return None
