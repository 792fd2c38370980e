"""What a hostile neighbour on the machine can do: nothing of theirs runs, whatever they send or leave lying around.

Needs root, to be somebody else; where CI is set, being nobody else is a failure.
"""

import os
import pickle
import select
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.command import SCRIPT
from tests.specs import write_spec
from tests.training.test_loop import FINETUNED

NOBODY = 65534
PLANTED = ("torch", "pickle", "socket")
WORDS = struct.Struct("=6Q")  # of gloo's messages: bytes in all, kind, slot, offset, length, the other side's offset
SEND, SEND_READY, RECEIVE_READY = 1, 2, 3  # their kinds
SIZE = 8  # bytes in which an object's size precedes it
CONNECTIONS = 8  # to one port: gloo numbers the processes that it expects there from 0


class Ran:
    """Whoever unpickles this runs a command."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.system, (f"id -u > {self.file}",)


def listening(processes: Iterable[str]) -> set[int]:
    """The ports at which any of these processes listens, whatever the address."""
    sockets, found = set[str](), set[int]()
    for process in processes:
        with suppress(OSError):
            for file in os.scandir(f"/proc/{process}/fd"):
                with suppress(OSError):
                    sockets.add(os.readlink(file.path))
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and f"socket:[{parts[9]}]" in sockets:
                found.add(int(parts[1].rpartition(":")[2], 16))
    return found


def announce(site: Path, ports: Path, ended: Event) -> None:
    """Tell a neighbour where the processes of a command listen, which are named in a folder; others have no part."""
    while not ended.wait(0.02):
        found = listening(path.name for path in site.glob("[0-9]*"))
        ports.with_suffix(".new").write_text(" ".join(map(str, found)))
        ports.with_suffix(".new").replace(ports)


def called(port: int) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(1)
    connection.connect(("127.0.0.1", port))
    return connection


class Caller:
    """A connection that plays one of the processes which gloo expects: who waits for data gets a pickle."""

    def __init__(self, port: int, number: int, payload: bytes):
        self.payload, self.heard = payload, b""
        self.socket = called(port)
        self.socket.sendall(struct.pack("=q", number))

    def listen(self) -> bool:
        """Hear what came and answer; whether there may be more."""
        try:
            new = self.socket.recv(1 << 16)
            self.heard += new
            while len(self.heard) >= WORDS.size:
                total, kind, slot, _, length, _ = WORDS.unpack_from(self.heard)
                self.heard = self.heard[max(WORDS.size, total if kind == SEND else 0) :]
                if kind == SEND_READY:
                    self.say(RECEIVE_READY, slot, length, b"")
                elif kind == RECEIVE_READY:
                    data = (
                        struct.pack("=q", len(self.payload))
                        if length == SIZE
                        else self.payload.ljust(length, b".")[:length]
                    )
                    self.say(SEND_READY, slot, length, b"")
                    self.say(SEND, slot, length, data)
            return bool(new)
        except OSError:
            return False

    def say(self, kind: int, slot: int, length: int, data: bytes) -> None:
        self.socket.sendall(WORDS.pack(WORDS.size + len(data), kind, slot, 0, length, 0) + data)


def neighbour(report: Path, ports: Path, marks: Path, framed: bool) -> None:
    """Be somebody else, until killed: call every new port, and try the doors of every meeting.

    The calls are as gloo's processes make them, or bare pickles.
    """
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    payload = pickle.dumps(Ran(marks / "unpickled"))
    callers: list[Caller] = []
    before: set[int] = set()
    while True:
        for port in set(map(int, ports.read_text().split())) - before:
            before = before | {port}
            with suppress(OSError):
                callers += [Caller(port, number, payload) for number in range(CONNECTIONS)]
                callers[-1].socket.sendall(payload)
                note(report, f"called {port}")
        if not framed:
            for caller in callers:
                with suppress(OSError):
                    caller.socket.sendall(payload * 100)
        ready, _, _ = select.select([caller.socket for caller in callers], [], [], 0)
        callers = [caller for caller in callers if caller.socket not in ready or caller.listen()]
        for meeting in Path(tempfile.gettempdir()).glob("afno-*"):
            with suppress(PermissionError, FileNotFoundError):
                note(report, f"opened {list(meeting.iterdir())}")


def note(report: Path, words: str) -> None:
    with report.open("a") as file:
        file.write(f"{words}\n")


@pytest.fixture
def public():
    """A folder that everybody can reach and write."""
    with tempfile.TemporaryDirectory(prefix="doors-", dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.fixture
def somebody():
    """Fails where one cannot be somebody else but the test must run."""
    if os.geteuid() != 0:
        assert "CI" not in os.environ, "this test must run as root, to be somebody else"
        pytest.skip("needs root, to be somebody else")


def attacked(
    root: Path, public: Path, framed: bool, late: str, *options: str
) -> "tuple[subprocess.CompletedProcess[str], str, set[str]]":
    """A command beside a neighbour, with planted modules; what it said, what the neighbour told, what of theirs ran.

    The process `late` comes after the others, which leaves their ports open to whoever is faster. PYTHONPATH makes it
    so: that one still counts.
    """
    write_spec(root, FINETUNED)
    for name in PLANTED:
        (root / f"{name}.py").write_text(f"open({str(public / 'marks' / name)!r}, 'w')\n")
    report, marks, site = public / "report.txt", public / "marks", public / "site"
    marks.mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import os, time; time.sleep(1.5 * (os.environ.get('RANK') == '{late}'))\n"
        f"open(f'{site}/{{os.getpid()}}', 'w')\n"
    )
    report.touch()
    report.chmod(0o666)
    ports, ended = public / "ports.txt", Event()
    ports.touch()
    attacker = get_context("fork").Process(target=neighbour, args=(report, ports, marks, framed), daemon=True)
    attacker.start()
    Thread(target=announce, args=(site, ports, ended), daemon=True).start()
    command = [SCRIPT, "pretrain", "small", "--row", "gfn", "--device", "cpu", "--workers", "1", *options]
    try:
        done = subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=200
        )
    finally:
        ended.set()
        attacker.kill()
        attacker.join()
    return done, report.read_text(), {path.name for path in marks.iterdir()}


def test_nothing_that_is_planted_runs_where_runs_go_side_by_side_and_nothing_listens(tmp_path, public, somebody):
    done, told, ran = attacked(tmp_path, public, True, "", "--row", "afno", "--jobs", "2")
    assert (done.returncode, told, ran) == (0, "", set()), done.stderr
    assert len(list((public / "site").glob("[0-9]*"))) >= 3  # the command and two that train


@pytest.mark.parametrize(
    ("late", "framed"),
    [("0", True), pytest.param("1", True, marks=pytest.mark.slow), pytest.param("0", False, marks=pytest.mark.slow)],
)
def test_nothing_that_a_neighbour_sends_to_two_processes_runs(tmp_path, public, somebody, late, framed):
    done, told, ran = attacked(tmp_path, public, framed, late, "--devices", "2")
    assert ran == set()
    assert len(list((public / "site").glob("[0-9]*"))) == 3
    assert len(told.splitlines()) == 2
    assert told.count("called") == 2  # and none opened where they meet
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert "somebody else answered" in done.stderr or "did not all come" in done.stderr
    assert len(done.stderr.splitlines()) <= 4
