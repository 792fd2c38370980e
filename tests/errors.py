"""Every error of disk and system, one at a time: nothing finished is lost, all is as after an undisturbed command.

python -m tests.errors --points 1000 --seed 0 --devices 2

A point is one call that fails in one command: the Nth open, read, write, fsync, rename, link, flock or fork answers an
errno, torch's Nth allocation or Python's memory is not there, or the power is cut, after which what was not flushed is
as before. It starts from nothing or from work that was half done. The command must then end by itself with a
documented code, without a traceback and without ten silent seconds; what it finished must stay, and so must
checkpoints; the same command must end with the files of an undisturbed one. Commands are forked from a process that
has the libraries loaded (tests/forked.py), but for those whose forks fail. Linux only, with a C compiler.
"""

import argparse
import errno
import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from glob import glob  # of a folder that is removed meanwhile it says nothing, where Path.glob fails
from pathlib import Path
from typing import NamedTuple

from tests import crash
from tests.specs import write_spec

SPEC = crash.SPEC.replace("seeds: [0, 1]", "seeds: [0]")  # each kind of work once for each row
SOURCE = Path(__file__).with_name("errors.c")
COMPILERS = ("cc", "gcc", "clang")
KINDS = ("open", "read", "write", "fsync", "rename", "link", "flock", "fork", "allocate", "cut")  # as in errors.c
ERRORS = {
    "open": (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EINTR),
    "read": (errno.EIO, errno.EINTR),
    "write": (errno.EIO, errno.ENOSPC, errno.EINTR),
    "fsync": (errno.EIO, errno.ENOSPC, errno.EINTR),
    "rename": (errno.EIO, errno.ENOSPC),
    "link": (errno.EIO, errno.ENOSPC),
    "flock": (errno.ENOLCK, errno.EIO, errno.EINTR, errno.EAGAIN),
    "fork": (errno.EAGAIN, errno.ENOMEM),
    "allocate": (errno.ENOMEM,),
    "cut": (0,),
}
NO_FAULT = ("open", 0, 0)
MEMORY = "memory"  # Python's, at a named point of the command
STATE = struct.Struct("=4q")  # kind, nth, errno, delivered; behind it a count for each kind
CODES = {0, 3, 4, 6, 7}  # documented, but for 1, which is a fault of the program
KILLED = {"allocate": {-6, -11}}  # libraries below torch end a process that gets no memory: as good as a kill
SILENT_S, END_S = 10.0, 120.0


class Point(NamedTuple):
    """What fails in which command: the Nth passage of a kind, or of a named point; `start` is where it begins."""

    kind: str
    nth: int
    error: int
    start: str
    devices: int
    name: str = ""

    @property
    def fresh(self) -> bool:
        """Whether its command is a new interpreter: a forked one launches others in its own way."""
        return self.kind == "fork"

    def __str__(self) -> str:
        what = f"{self.kind} {self.nth} {errno.errorcode.get(self.error, '')} {self.name}".replace("  ", " ").strip()
        return f"{what}, {self.start}, {self.devices} process(es)"


@dataclass
class Tally:
    delivered: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


class Faulty:
    """The library that makes calls below `root` fail, and the file through which it is told which.

    `environment` is that of a process in which it does.
    """

    def __init__(self, work: Path, root: Path):
        compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
        if compiler is None:
            raise SystemExit(f"a C compiler is needed: {', '.join(COMPILERS)}")
        library, self.state, self.shadow = (work / name for name in ("errors.so", "state", "shadow"))
        line = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(line, check=True)
        names = {"STATE": self.state, "ROOT": root, "SHADOW": self.shadow}
        self.environment = {f"AFNO_ERRORS_{name}": str(path) for name, path in names.items()}
        self.environment["LD_PRELOAD"] = str(library)
        self.state.touch()

    def ask(self, kind: str, nth: int, error: int) -> None:
        """Count anew, and let the Nth call of that kind fail; nth 0 only counts."""
        shutil.rmtree(self.shadow, ignore_errors=True)
        self.shadow.mkdir()
        number = KINDS.index(kind) if kind in KINDS else len(KINDS)
        with self.state.open("r+b") as state:  # which processes may have mapped
            state.write(STATE.pack(number, nth, error, 0) + bytes(8 * len(KINDS)))

    @property
    def delivered(self) -> bool:
        return bool(STATE.unpack_from(self.state.read_bytes())[3])

    @property
    def counts(self) -> dict[str, int]:
        return dict(zip(KINDS, struct.unpack_from(f"={len(KINDS)}q", self.state.read_bytes(), STATE.size), strict=True))


class Disk:
    """A folder as it lies on the disk: what was there, and what was flushed since (errors.c)."""

    def __init__(self, root: Path):
        self.root = root
        self.files = {path.stat().st_ino: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        self.folders = {
            path.stat().st_ino: list(self._entries(path)) for path in (root, *root.rglob("*")) if path.is_dir()
        }

    @staticmethod
    def _entries(folder: Path) -> Iterator[tuple[bool, int, str]]:
        return ((path.is_dir(), path.stat().st_ino, path.name) for path in folder.iterdir())

    def after_a_power_cut(self, shadow: Path) -> None:
        """Make the folder what a machine finds when its power is back."""
        for path in shadow.glob("*[0-9]"):
            self.files[int(path.name)] = path.read_bytes()
        for path in shadow.glob("*.folder"):
            lines = (line.split(" ", 2) for line in path.read_text().splitlines())
            self.folders[int(path.stem)] = [(kind == "1", int(inode), name) for kind, inode, name in lines]
        lost = self.root.with_name(f"{self.root.name}-before-the-cut")
        inode = self.root.stat().st_ino
        self.root.rename(lost)
        self._make(self.root, inode)
        shutil.rmtree(lost)

    def _make(self, folder: Path, inode: int) -> None:
        folder.mkdir()
        for is_folder, each, name in self.folders.get(inode, []):
            if is_folder:
                self._make(folder / name, each)
            else:
                (folder / name).write_bytes(self.files.get(each, b""))


def told_in_time(command: crash.Command, silent_s: float) -> str:
    """Wait for a command's end; what is wrong with how it waited, if anything."""
    words, size, changed = command.root / "stderr.txt", -1, time.monotonic()
    began = changed
    while not command.ended(0.2):
        now = time.monotonic()
        if (grown := words.stat().st_size) != size:
            size, changed = grown, now
        if now - changed > silent_s or now - began > END_S:
            return f"silent for {now - changed:.0f} s, {now - began:.0f} s in all\n{crash.stacks()}"
    return ""


def unfinished(root: Path) -> set[str]:
    """The runs that have checkpoints and no record that says ok, also while a command goes on and removes some."""
    found = {root / Path(path).parents[2] for path in glob("runs/*/checkpoints/step-*/*", root_dir=root)}
    return {run.name for run in found if not _is_ok(run / "record.json")}


def lasting(root: Path) -> dict[str, tuple[int, str]]:
    """What is finished and ok; a run that lacked memory is done again where that is asked for."""
    return {name: what for name, what in crash.finished_work(root).items() if _is_ok(_record_beside(root / name))}


def _record_beside(file: Path) -> Path:
    return file.with_name("record.json") if file.parents[1].name == "runs" else file.with_suffix(".json")


def _is_ok(record: Path) -> bool:
    return record.is_file() and json.loads(record.read_text()).get("outcome") == "ok"


def begin(root: Path, devices: int, faulty: Faulty, fresh: bool, more: dict[str, str]) -> crash.Command:
    """A command in which that fails which was asked for, in a new interpreter or a forked one."""
    start, mine = crash.STARTS[devices][0], faulty.environment
    return (
        crash.Command(root, devices, start, mine | more) if fresh else crash.Command(root, devices, start, more, mine)
    )


def disturbed(root: Path, point: Point, faulty: Faulty, tally: Tally, starts: "Starts") -> bool:
    """One command with one fault and the same command again; whether the fault was delivered."""
    disk, begun, kept = Disk(root), unfinished(root), crash.finished_work(root)
    faulty.ask(point.kind, point.nth, point.error)
    told, more = root.parent / "told", {}
    told.unlink(missing_ok=True)
    if point.kind == MEMORY:
        asked = {"point": point.name, "passage": point.nth, "rank": 0, "memory": str(told)}
        more = {"AFNO_FAULT": json.dumps(asked), "PYTEST_CURRENT_TEST": "errors"}
    command = begin(root, point.devices, faulty, point.fresh, more)
    wrong = [waited] if (waited := told_in_time(command, SILENT_S + starts.lengths[point.devices, point.fresh])) else []
    crash.kill_all()
    code, said = command.process.wait(), command.said()
    if not (told.exists() if point.kind == MEMORY else faulty.delivered):
        return False
    if point.kind == "cut":
        disk.after_a_power_cut(faulty.shadow)
    elif code not in CODES | KILLED.get(point.kind, set()) and not was_killed(point, said):
        wrong.append(f"exit code {code}")
    wrong += ["a traceback"] * ("Traceback" in said)
    finished = crash.finished_work(root)
    wrong += [f"{name} is gone or another" for name in kept if finished.get(name, ("", ""))[1] != kept[name][1]]
    gone = begun - unfinished(root)
    wrong += [f"{run}: its checkpoints are gone" for run in gone if not _is_ok(root / "runs" / run / "record.json")]
    again = ("--rerun",) if point.kind in ("allocate", MEMORY) else ()  # what lacked memory is done again then
    lasts = lasting(root) if again else finished
    faulty.ask(*NO_FAULT)
    try:
        crash.uninterrupted(root, point.devices, again, SPEC, faulty.environment)
        after = crash.finished_work(root)
        wrong += [f"{name} was finished and was done again" for name in lasts if after.get(name) != lasts[name]]
        wrong += crash.differences(root, starts.folder("reference", point.devices))
    except RuntimeError as error:
        wrong.append(f"the same command: {error}")
    tally.delivered[point.kind] += 1
    tally.violations += [f"{point}: {each}\n{said}" for each in wrong]
    return True


def was_killed(point: Point, said: str) -> bool:
    """Whether a command of several processes says that one of them was killed as that may be."""
    return any(f"was killed by signal {-each};" in said for each in KILLED.get(point.kind, ()))


class Starts:
    """Folders to start from, by the number of processes: nothing done, or half of it; and one that is finished."""

    def __init__(self, work: Path, devices: int, faulty: Faulty):
        self.counts: dict[tuple[str, int], dict[str, int]] = {}
        self.points: dict[tuple[str, int], list[str]] = {}
        self.work, self.faulty = work, faulty
        self.lengths: dict[tuple[int, bool], float] = {}  # seconds of an undisturbed command
        for each in range(1, devices + 1):
            write_spec(self.folder("nothing", each), SPEC, "crash")
            began = time.monotonic()
            self._count("nothing", each)
            self.lengths[each, False] = time.monotonic() - began
            (reference := self.folder("reference", each)).mkdir()
            self.lengths[each, True] = crash.uninterrupted(reference, each, spec=SPEC)
            write_spec(half := self.folder("half", each), SPEC, "crash")
            command = crash.Command(half, each, crash.STARTS[each][0])
            while not (unfinished(half) and glob("runs/pretrain-*/record.json", root_dir=half)):
                if command.ended(crash.POLL_S):
                    raise SystemExit(f"ended before it was half done\n{command.said()}")
            crash.kill_all()
            self._count("half", each)

    def folder(self, start: str, devices: int) -> Path:
        return self.work / f"{start}-{devices}"

    def copy(self, start: str, devices: int) -> Path:
        return shutil.copytree(self.folder(start, devices), self.work / "tried")

    def _count(self, start: str, devices: int) -> None:
        """How often a command that starts so makes calls of each kind, and the named points that it passes."""
        root, points = self.copy(start, devices), self.work / "points"
        points.unlink(missing_ok=True)
        asked = {"AFNO_FAULT": json.dumps({"list": str(points)}), "PYTEST_CURRENT_TEST": "errors"}
        self.faulty.ask(*NO_FAULT)
        command = begin(root, devices, self.faulty, False, asked)
        if not command.ended(END_S) or command.process.returncode:
            raise SystemExit(f"an undisturbed command fails: {command.said()}")
        self.counts[start, devices] = self.faulty.counts
        self.points[start, devices] = sorted(set(points.read_text().splitlines()))
        shutil.rmtree(root)


def points(starts: Starts, devices: int, seed: int) -> Iterator[Point]:
    """Points without end, the kinds in turn; most for one process, which takes less time."""
    pick = random.Random(seed)
    while True:
        for kind in (*KINDS, MEMORY):
            start, together = pick.choice(("nothing", "half")), pick.choice((1, pick.randint(1, devices)))
            if kind == MEMORY:
                yield Point(kind, 1, 0, start, together, pick.choice(starts.points[start, together]))
            elif count := starts.counts[start, together][kind]:
                yield Point(kind, pick.randint(1, count), pick.choice(ERRORS[kind]), start, together)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.errors", description="Let every call fail, one at a time.")
    for option, default in (("--points", 20), ("--seed", 0), ("--devices", 1)):
        parser.add_argument(option, type=int, default=default)
    asked, work, tally = parser.parse_args(), Path(tempfile.mkdtemp(prefix="afno-errors-")), Tally()
    try:
        with suppress(KeyboardInterrupt):  # enough
            faulty = Faulty(work, work / "tried")
            starts = Starts(work, asked.devices, faulty)
            for (start, each), counts in starts.counts.items():
                print(f"{start}, {each}: {counts}", flush=True)
            for point in points(starts, asked.devices, asked.seed):
                if tally.delivered.total() >= asked.points:
                    break
                root, known = starts.copy(point.start, point.devices), len(tally.violations)
                disturbed(root, point, faulty, tally, starts)
                print(*tally.violations[known:], sep="\n", end="\n" * (len(tally.violations) > known), flush=True)
                print(f"{tally.delivered.total()} of {asked.points} points", file=sys.stderr, flush=True)
                shutil.rmtree(root)
    finally:
        crash.kill_all()
        shutil.rmtree(work)
    print(", ".join(f"{kind} {tally.delivered[kind]}" for kind in (*KINDS, MEMORY)))
    print(f"violations: {len(tally.violations)}")
    return int(bool(tally.violations))


if __name__ == "__main__":
    sys.exit(main())
