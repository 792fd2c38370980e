"""Writing that a killed process cannot tear: every file is whole, old or new. What it leaves behind is swept later."""

import errno
import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from afno_repro.errors import LockedError, StorageError
from afno_repro.faults import fault

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNKNOWN = (errno.EINVAL, errno.ENOTSUP)  # the answer of a file system on which folders cannot be flushed
TEMPORARY = re.compile(r"\..+\.[0-9]+\.tmp")  # what `write_atomic` calls a file that is not whole yet
OTHER = """import fcntl, sys
with open(sys.argv[1], "r+") as file:
    print(file.read(), end=" ")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("granted", end="")
    except BlockingIOError:
        print("refused", end="")
"""  # what a second process sees of a file that the first one wrote and locked
SAY_AFTER_S, WAIT_S, POLL_S = 10.0, 600.0, 0.05  # for a folder in which another process writes


@contextmanager
def storage_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn a system's refusal into a StorageError with the path, and the bytes needed where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageError(f"{path}: {error.strerror}: {_space(path, needed)}") from error
        raise StorageError(f"{path}: {error.strerror or error}") from error


def check_space(folder: Path, needed: int) -> None:
    """Raise StorageError unless so many bytes are free where the folder, which exists, lies."""
    if shutil.disk_usage(folder).free < needed:
        raise StorageError(f"{folder}: not enough space: {_space(folder, needed)}")


def _space(path: Path, needed: int) -> str:
    here = next(each for each in (path, *path.absolute().parents) if each.exists())
    numbers = " and ".join(
        [f"{needed / 2**20:.1f} MiB needed"] * (needed > 0) + [f"{shutil.disk_usage(here).free / 2**20:.1f} MiB free"]
    )
    return f"{numbers}\n  make room, or name another folder with --runs; the same command continues"


def open_regular(path: Path) -> BinaryIO:
    """A file to read from. Raises OSError for a pipe, a socket or a device, and waits for none of them."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file but a pipe, a socket or a device", str(path))


def check_regular(path: Path) -> None:
    """Raise OSError unless it is a file that can be read."""
    open_regular(path).close()


def read_regular(path: Path, most: int) -> bytes:
    """A file's content. Raises OSError where it is no regular file, or larger than `most` bytes."""
    with open_regular(path) as file:
        data = file.read(most + 1) if (size := os.fstat(file.fileno()).st_size) <= most else b""
    if size > most or len(data) > most:
        raise OSError(errno.EOVERFLOW, f"has {size} bytes, at most {most} are read", str(path))
    return data


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write beside the file, flush, then rename over it. Raises StorageError; the old file is then still there."""
    content = data.encode() if isinstance(data, str) else data
    with storage_errors(path, len(content)):
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:  # never through a link that somebody put there
                fault(f"{path.name}: opened")
                file.write(content)
                file.flush()
                fault(f"{path.name}: written")
                os.fsync(file.fileno())
            fault(f"{path.name}: flushed")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fault(f"{path.name}: renamed")
        sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a folder and all in it, or whatever else lies there: shutil.rmtree waits for a pipe."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Flush a folder's own entries, so that a rename in it survives a crash; some file systems know no such thing."""
    with _opened(path) as descriptor:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in UNKNOWN:
                raise


def make_folder(path: Path) -> None:
    """Make a folder and its parents, if they are not there, and flush those that got a new entry."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in reversed(new):
        sync_folder(each.parent)


@contextmanager
def alone_in(*folders: Path) -> Iterator[None]:
    """Wait until no other process is in a block like this with the first folder; makes it, and sweeps them all.

    Says who holds it after SAY_AFTER_S, and raises LockedError after WAIT_S. What is locked is a file: a lock on a
    folder itself keeps out no other machine's processes on NFS.
    """
    with storage_errors(folders[0]):
        make_folder(folders[0])
        lock = os.open(folders[0] / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with os.fdopen(lock, "rb+"):
        with storage_errors(folders[0]):
            _lock(lock, folders[0])
            for folder in folders:
                sweep(folder)
        yield


def _lock(descriptor: int, folder: Path) -> None:
    began, said = time.monotonic(), False
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited, held = time.monotonic() - began, f"{folder} is held by {_holder(descriptor)}"
        if waited >= WAIT_S:
            raise LockedError(f"{held} for {WAIT_S:.0f} s\n  the same command continues when that one has ended")
        if waited >= SAY_AFTER_S and not said:
            print(f"{held}; waiting for it, at most {WAIT_S:.0f} s", file=sys.stderr, flush=True)
            said = True
        time.sleep(POLL_S)


def _holder(descriptor: int) -> str:
    """Who holds a lock on an open file, as far as the kernel tells."""
    inode = str(os.fstat(descriptor).st_ino)
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        locks = []
    pids = [lock[4] for lock in locks if lock[5:6] and lock[5].split(":")[-1] == inode]
    return f"process {pids[0]}" if pids else "another process"


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder, by our names; nobody else may be writing there."""
    for stale in folder.glob(".*.tmp"):
        if TEMPORARY.fullmatch(stale.name) and not stale.is_dir():
            stale.unlink(missing_ok=True)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Raise StorageError unless files can be made in the folder, which is made if it does not exist."""
    probe = folder / f".write-test.{os.getpid()}.tmp"
    with storage_errors(folder):
        make_folder(folder)
        probe.touch()
        probe.unlink(missing_ok=True)


def check_lock(folder: Path) -> None:
    """Raise StorageError unless another process is kept out by a lock in a folder, which exists, and sees what was
    written there and flushed."""
    probe = folder / f".lock-test.{os.getpid()}.tmp"
    with storage_errors(folder):
        try:
            with probe.open("w") as file:
                file.write("flushed")
                file.flush()
                os.fsync(file.fileno())
                sync_folder(folder)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other = subprocess.run([sys.executable, "-I", "-c", OTHER, probe], capture_output=True, text=True)
        finally:
            probe.unlink(missing_ok=True)
    seen, _, lock = other.stdout.partition(" ")
    if lock == "granted":
        raise StorageError(
            f"{folder}: a lock keeps no other process out, it was granted twice: commands may not share this folder\n"
            "  --runs FOLDER keeps runs elsewhere; NFS before version 4 needs its lock service, Lustre the option flock"
        )
    if (seen, lock) != ("flushed", "refused"):
        told = other.stderr.strip().splitlines()[-1:] or [f"it read {seen!r}"]
        raise StorageError(f"{folder}: another process does not see what was written and flushed here: {told[0]}")
