"""Hashes of files' contents, each file read once: what was read is remembered by inode, size and times.

One JSON file for each folder that was looked into, so that a million images take minutes once and seconds afterwards.
"""

import fcntl
import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from afno_repro.errors import DataError, StorageError
from afno_repro.files import open_regular, write_atomic

LONGEST_WAIT_S, LOOK_EVERY_S = 600.0, 0.1  # for who reads the same files; a stopped process never ends
SETTLED_S = 2.0  # since a file's last change, before its times can tell that it is the same
Stat = tuple[int, int, int, int]


class Contents:
    """Hashes of files, remembered in a folder."""

    def __init__(self, folder: Path, hashed: Callable[[Path], str] | None = None):
        self.folder, self.hashed = folder, hashed or sha256_of

    def hashes(self, files: Iterable[Path]) -> list[str]:
        """The hash of each file. Raises DataError for one that cannot be read."""
        groups: dict[Path, list[Path]] = defaultdict(list)
        ordered = list(files)
        for file in ordered:
            groups[file.parent].append(file)
        found = dict(pair for folder, inside in groups.items() for pair in self._folder(folder, inside))
        return [found[file] for file in ordered]

    def unread(self, files: Iterable[Path]) -> tuple[int, int]:
        """How many of the files would have to be read, and their bytes."""
        groups: dict[Path, list[Path]] = defaultdict(list)
        for file in files:
            groups[file.parent].append(file)
        sizes = [
            stat[1]
            for folder, inside in groups.items()
            for file, stat, known in self._known(folder, inside)
            if known is None
        ]
        return len(sizes), sum(sizes)

    def _folder(self, folder: Path, files: list[Path]) -> Iterator[tuple[Path, str]]:
        known = list(self._known(folder, files))
        if all(found for _, _, found in known):
            return ((file, str(found)) for file, _, found in known)
        with self._alone(folder):
            return self._read(folder, list(self._known(folder, files)))

    @contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """Inside, nobody else reads the folder's files to remember them: who waited finds them remembered.

        Nobody waits for ever. Where there are no locks each reads them at once.
        """
        with ExitStack() as stack:
            if self.folder.parent.is_dir():
                with suppress(OSError):
                    self.folder.mkdir(exist_ok=True)
                    lock, flags = self._memory(folder).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
                    file = stack.enter_context(os.fdopen(os.open(lock, flags, 0o666), "rb+"))
                    began = time.monotonic()
                    while not _locked(file) and time.monotonic() - began < LONGEST_WAIT_S:
                        time.sleep(LOOK_EVERY_S)
            yield

    def _read(self, folder: Path, known: list[tuple[Path, Stat, str | None]]) -> Iterator[tuple[Path, str]]:
        with ThreadPoolExecutor() as pool:
            new = dict(
                zip(
                    (f for f, _, h in known if h is None),
                    pool.map(self.hashed, (f for f, _, h in known if h is None)),
                    strict=True,
                )
            )
        if new and self.folder.parent.is_dir():  # a mistaken command leaves nothing
            settled = time.time_ns() - int(SETTLED_S * 1e9)
            lines = {f.name: [*stat, new.get(f, h)] for f, stat, h in known if h or max(stat[2:]) < settled}
            with suppress(StorageError):  # it is read again then
                write_atomic(self._memory(folder), json.dumps({**self._remembered(folder), **lines}))
        return ((f, h or new[f]) for f, _, h in known)

    def _known(self, folder: Path, files: list[Path]) -> Iterator[tuple[Path, Stat, str | None]]:
        """Each file with what tells it, and its hash where that is remembered."""
        remembered = self._remembered(folder)
        for file in files:
            try:
                at = file.stat()
            except OSError as error:
                raise DataError(f"{file}: cannot be read ({error.strerror})") from error
            stat = (at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
            *before, found = remembered.get(file.name, [None])
            yield file, stat, found if tuple(before) == stat else None

    def _remembered(self, folder: Path) -> dict[str, list]:  # type: ignore[type-arg]
        try:
            with open_regular(self._memory(folder)) as file:
                found = json.load(file)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and all(isinstance(v, list) and v for v in found.values()) else {}

    def _memory(self, folder: Path) -> Path:
        return self.folder / f"{hashlib.sha256(str(folder.resolve()).encode(errors='replace')).hexdigest()[:16]}.json"


def _locked(file: IO[bytes]) -> bool:
    """Whether a lock was free, and is this process's now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def names_and_contents(files: Iterable[Path], root: Path, contents: Contents) -> str:
    """The fingerprint of some files: SHA-256 of their names below a folder and of what each holds, in their order."""
    ordered = list(files)
    return named_contents((str(file.relative_to(root)) for file in ordered), ordered, contents)


def named_contents(names: Iterable[str], files: Iterable[Path], contents: Contents) -> str:
    """The fingerprint of some files under names of their own, in their order."""
    lines = [f"{name} {found}" for name, found in zip(names, contents.hashes(files), strict=True)]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def sha256_of(file: Path) -> str:
    """SHA-256 of a file. Raises DataError when it cannot be read."""
    try:
        with open_regular(file) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
