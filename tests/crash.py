"""Kill whole commands at random, without end: nothing finished is lost, all is as after an uninterrupted command.

python -m tests.crash --rounds 200 --seed 0 --devices 2

A round starts `afno run` on what the rounds before left, waits, kills it in some way and looks at every file. A
command that ends by itself must leave the files of one that nobody killed. Processes are known by their session.
Linux only; Ctrl-C is enough.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import NamedTuple

from safetensors.numpy import load as load_tensors

from afno_repro.runs.record import Record
from afno_repro.runs.store import read_arrays
from tests.commands.test_own_images import STAGE
from tests.forked import Forked
from tests.specs import write_spec
from tests.training.test_loop import FINETUNED

CLONE = Path(__file__).parents[1]
GONE_S, END_S, POLL_S = 30.0, 300.0, 0.02  # for all to be gone after a kill, for a command to end by itself
STARTS = {1: (("--jobs", "1"), ("--jobs", "2"), ("--jobs", "1", "--workers", "1")), 2: ((), ("--workers", "1"))}
# The exit codes of each kill, besides 0: it may come too late, or hit a process that is not needed.
CODES = {
    "main": {-9},
    "all": {-9},
    "one": {1, 4},
    "SIGTERM": {143, -15},
    "SIGUSR1": {143, -15, -10},
    "SIGINT": {130, -2},
}
PROVENANCE = {".md": b"## Provenance\n", ".html": b'<section id="provenance">'}  # where a table's and a report's begins
VARYING = (
    "seconds",
    "num_workers",
    "device",
    "commit",
    "dirty",
)  # of a record's provenance: where, when and in what part it was made
ENDS = {
    ".json": b"}\n",
    ".csv": b"\n",
    ".md": b"\n",
    ".html": b"</html>\n",
    ".svg": b"</svg>\n",
    ".png": b"IEND\xaeB`\x82",
    ".pdf": b"%%EOF\n",
}
FIGURE = "figures:\n  - {name: triptychs, stage: triptychs, suffix: triptychs}\nscales:\n"
SPEC = FINETUNED.replace("columns:\n", STAGE + "columns:\n").replace(
    "    finetune: null\n", "    finetune: null\n    triptychs: null\n"
)
SPEC = SPEC.replace("scales:\n", FIGURE).replace("epochs: 3\n", "epochs: 4\n").replace("seeds: [0]", "seeds: [0, 1]")


class Round(NamedTuple):
    """A way to start a command and a way to kill it.

    `start` and `victim` choose among those that there are, `wait` is in lengths of a whole command: 0 to 1.
    """

    start: float
    wait: float
    how: str
    victim: float


@dataclass
class Tally:
    rounds: int = 0
    kills: int = 0
    resumes: int = 0
    finished: int = 0
    losses: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.resumes} resumes, {self.finished} finished, tracebacks: "
            f"{len(self.tracebacks)}, losses: {len(self.losses)}"
        )


class Command:
    """A command under way in a folder, its processes with one thread each: it uses a core for each job or device.

    It is a new interpreter, or forked from one that has the libraries loaded in the environment `loaded`.
    """

    last: "Command"  # that was started

    def __init__(
        self,
        root: Path,
        devices: int,
        start: tuple[str, ...],
        more: Mapping[str, str] | None = None,
        loaded: Mapping[str, str] | None = None,
    ):
        (root / "tmp").mkdir(exist_ok=True)
        self.root, self.arguments = root, ("run", "crash", "--device", "cpu", "--devices", str(devices), *start)
        cores = sorted(os.sched_getaffinity(0))[: 2 if devices == 2 or "2" in start else 1]
        first = {"PYTHONPATH": str(CLONE), "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **first, "TMPDIR": str(root / "tmp"), "AFNO_CHECKPOINT_EVERY_S": "0"}
        environment |= {**(loaded or {}), **(more or {})}
        line, self.began = (sys.executable, "-m", "afno_repro", *self.arguments), time.monotonic()
        with (root / "stderr.txt").open("w") as words:
            self.process: Popen[bytes] | Forked = (
                Popen(
                    line, cwd=root, env=environment, stdin=DEVNULL, stdout=DEVNULL, stderr=words, start_new_session=True
                )
                if loaded is None
                else Forked(self.arguments, root, environment, {**first, **loaded}, words)
            )
        os.sched_setaffinity(self.process.pid, cores)  # it has hardly begun
        Command.last = self

    def ended(self, within_s: float) -> bool:
        """Wait for the command and for every process that it started; whether all are gone."""
        deadline = time.monotonic() + within_s
        while (running := self.process.poll() is None or bool(members())) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return not running

    def said(self) -> str:
        return (self.root / "stderr.txt").read_text(errors="replace")


def members() -> dict[int, str]:
    """The living processes of the last command, with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended
            state, _, _, session, *_ = (path / "stat").read_text().rpartition(")")[2].split()
            if int(session) == Command.last.process.pid and state != "Z":
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def kill_all() -> None:
    while left := members():
        for pid in left:
            kill_9(pid)


def kill_9(pid: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.kill(pid, signal.SIGKILL)


def stacks() -> str:
    """Where every process is that should have ended: they are aborted, at which each writes its threads' stacks."""
    with ExitStack() as stack:
        said = {}
        for pid in members():
            with suppress(OSError):  # it ended by itself
                words = stack.enter_context(Path(f"/proc/{pid}/fd/2").open(errors="replace"))
                said[os.fstat(words.fileno()).st_ino] = words
                os.kill(pid, signal.SIGABRT)
        deadline = time.monotonic() + GONE_S
        while members() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        kill_all()
        return "\n".join(words.read() for words in said.values())


def strike(command: Command, how: str, victim: float) -> str:
    """Kill a command; returns how, which is its main process where it has no other."""
    others = sorted(members().keys() - {command.process.pid}) if how == "one" else []
    if how == "all":
        kill_all()
    elif others:
        kill_9(others[int(victim * len(others))])
    else:
        how = "main" if how == "one" else how
        command.process.send_signal(signal.SIGKILL if how == "main" else signal.Signals[how])
    return how


def play(root: Path, devices: int, now: Round, length_s: float, tally: Tally) -> bool:
    """One round in a folder; whether its command finished all there is to do."""
    tally.rounds, tally.resumes = tally.rounds + 1, tally.resumes + (root / "runs").is_dir()
    before, half, how = finished_work(root), half_done(root), "not killed"
    command = Command(root, devices, STARTS[devices][int(now.start * len(STARTS[devices]))])
    if not command.ended(now.wait * length_s):
        how = strike(command, now.how, now.victim)
        tally.kills += 1
    name = (
        f"round {tally.rounds} in {root.name}, {' '.join(command.arguments)}, {how} after "
        f"{time.monotonic() - command.began:.2f} s"
    )
    if not command.ended(END_S if how in ("not killed", "one") else GONE_S):
        tally.losses.append(f"{name}: still alive: {members()}\n{stacks()}")
    code, said, after = command.process.wait(), command.said(), finished_work(root)
    tally.tracebacks += [f"{name}: exit code {code}\n{said}"] if "Traceback" in said else []
    tally.losses += [f"{name}: exit code {code}\n{said}"] if code not in CODES.get(how, set()) | {0} else []
    tally.losses += [
        f"{name}: {path} was finished and is not what it was" for path in before if after.get(path) != before[path]
    ]
    tally.losses += [f"{name}: {problem}" for problem in broken(root)]
    if half and code == 0 and "continues at step " not in said:
        tally.losses.append(f"{name}: {half} were done again from the start\n{said}")
    return code == 0


def finished_work(root: Path) -> dict[str, tuple[int, str]]:
    """The files of finished runs and the committed records, when they were written and their digests.

    None may ever be written again.
    """
    kept = [
        record.with_name(name)
        for record in root.glob("runs/*/record.json")
        for name in ("record.json", "weights.safetensors", "log.csv")
    ]
    kept = [path for path in (*kept, *root.glob("results/*/records/*/*[!p]")) if path.is_file()]  # no .tmp
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in kept
    }


def half_done(root: Path) -> list[str]:
    """The runs that have a checkpoint and no record: a command goes on with them."""
    found = {path.parents[2] for path in root.glob("runs/*/checkpoints/step-*/manifest.json")}
    return sorted(run.name for run in found if not (run / "record.json").exists())


def broken(root: Path) -> list[str]:
    """The files that are not whole; a checkpoint's own are looked at by the run that continues."""
    problems = []
    for path in [each for each in files(root) if "checkpoints" not in each.parts]:
        try:
            if not whole(path, path.read_bytes()):
                problems.append(f"{path.relative_to(root)} is cut off")
        except Exception as error:
            problems.append(f"{path.relative_to(root)} is not whole: {type(error).__name__}: {error}")
    return problems


def whole(path: Path, data: bytes) -> bool:
    """Whether a file ends as its kind does; raises whatever its reader does."""
    if path.suffix == ".json":
        json.loads(data) if path.name == "config.json" else Record.from_json(data.decode())
    elif path.suffix == ".safetensors":
        load_tensors(data)
    elif path.suffix == ".npz":
        read_arrays(path)
    widths = {len(row) for row in csv.reader(data.decode().splitlines())} if path.suffix == ".csv" else {1}
    return len(widths) == 1 and data.endswith(ENDS.get(path.suffix, b""))


def files(root: Path) -> list[Path]:
    """All but locks, and what is remembered of files that were read, by their inodes and times."""
    return sorted(
        path
        for top in ("runs", "results")
        for path in (root / top).rglob("*")
        if (path.is_file() or path.name == "checkpoints") and path.parent.name not in ("contents", "locks")
    )


def differences(root: Path, reference: Path) -> list[str]:
    """What a finished folder lacks, holds too much or holds otherwise; provenance may differ in time and place."""
    mine, theirs = ({str(path.relative_to(each)): path for path in files(each)} for each in (root, reference))
    found = [f"{name} is missing" for name in theirs if name not in mine]
    found += [f"{name} is left over" for name in mine if name not in theirs]
    return found + [
        f"{name} differs" for name in mine if name in theirs and content(mine[name]) != content(theirs[name])
    ]


def content(path: Path) -> object:
    """What must be the same in any command."""
    data = b"" if path.name == "checkpoints" else path.read_bytes()
    with suppress(ValueError):
        tree = json.loads(data) if path.suffix == ".json" else {}
        if "provenance" in tree:
            return {
                **tree,
                "provenance": {key: value for key, value in tree["provenance"].items() if key not in VARYING},
                "sha256": "",
            }
    return data.split(PROVENANCE[path.suffix])[0] if path.suffix in PROVENANCE else data


def uninterrupted(
    root: Path,
    devices: int,
    more: tuple[str, ...] = (),
    spec: str = SPEC,
    loaded: Mapping[str, str] | None = None,
) -> float:
    """Do the whole spec, or what is left of it; returns the seconds that it took. Raises RuntimeError when it fails."""
    write_spec(root, spec, "crash")
    command = Command(root, devices, (*STARTS[devices][0], *more), loaded=loaded)
    if not command.ended(END_S) or command.process.returncode:
        kill_all()
        raise RuntimeError(
            f"{root.name}: {' '.join(command.arguments)} ended with {command.process.wait()}\n{command.said()}"
        )
    return time.monotonic() - command.began


def crash(work: Path, rounds: int, seed: int, devices: int, tally: Tally) -> None:
    """All rounds, below a folder; each finished folder is compared and removed."""
    lengths = {each: uninterrupted(work / f"reference-{each}", each) for each in range(1, devices + 1)}
    print(f"uninterrupted: {', '.join(f'{length:.1f} s by {each}' for each, length in lengths.items())}", flush=True)
    pick = random.Random(seed)
    waiting = [Round(pick.random(), pick.random(), pick.choice(list(CODES)), pick.random()) for _ in range(rounds)]
    while waiting:
        together, root, done = tally.finished % devices + 1, work / f"folder-{tally.finished}", False
        write_spec(root, SPEC, "crash")
        while waiting and not done:
            known, shown = len(tally.losses), len(tally.tracebacks)
            done = play(root, together, waiting.pop(0), lengths[together], tally)
            now = [f"lost or different: {each}" for each in tally.losses[known:]] + [
                f"a traceback: {each}" for each in tally.tracebacks[shown:]
            ]
            now += [f"round {tally.rounds}: {tally}"] * (tally.rounds % 10 == 0)
            print(*now, sep="\n", end="\n" * bool(now), flush=True)
        try:
            done or uninterrupted(root, together)
            found = [f"{root.name}: {each}" for each in differences(root, work / f"reference-{together}")]
        except RuntimeError as error:
            found = [str(error)]
        tally.losses, tally.finished = tally.losses + found, tally.finished + 1
        if not found:
            shutil.rmtree(root)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash", description="Kill whole commands at random; nothing may be lost."
    )
    for option, default in (("--rounds", 10), ("--seed", 0), ("--devices", 1)):
        parser.add_argument(
            option, type=int, default=default
        )  # of two devices, every second folder is filled by two processes together
    asked, work, tally = parser.parse_args(), Path(tempfile.mkdtemp(prefix="afno-crash-")), Tally()
    try:
        with suppress(KeyboardInterrupt):  # enough
            crash(work, asked.rounds, asked.seed, asked.devices, tally)
    finally:
        kill_all()
    print(*(f"lost or different: {each}" for each in tally.losses), f"{tally.rounds} rounds: {tally}", sep="\n")
    print(f"what is left lies in {work}") if tally.losses else shutil.rmtree(work)
    print(f"losses: {len(tally.losses)}")
    return int(bool(tally.losses))


if __name__ == "__main__":
    sys.exit(main())
