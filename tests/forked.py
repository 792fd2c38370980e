"""Commands as processes of their own, forked from one that has the libraries loaded: a short command saves most time.

What a command is made of is as in a new interpreter: its own code is loaded anew, and so are arguments, environment,
folder, session and files. The processes that it launches, one a device, are forks of it in the same way.
`python -m tests.forked FD` answers requests at a socket: a JSON object and where to write outputs and exit code.
What an interpreter and its libraries read as they start, that process has read: `loaded` is that part of its
environment.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from select import select
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import IO, Any

FIRST = "AFNO_TEST_FIRST"  # code that a forked command runs before its own, as a new interpreter runs sitecustomize
LOADED = (
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "pandas", "PIL.Image", "pydantic", "rich.progress"),
    *("rich.table", "safetensors.torch", "scipy.special", "scipy.stats", "skimage.data", "skimage.metrics"),
    *("sklearn.cluster", "sklearn.datasets", "torch._dynamo", "torch.distributed", "torch.utils.data"),
    *("torchvision.transforms.v2", "typer", "yaml"),
)


class Forked:
    """A command under way, to be used as a subprocess.Popen."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        root: Path,
        environment: dict[str, str],
        loaded: Mapping[str, str] | None = None,
        stderr: IO[str] | None = None,
    ):
        self.stdout = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed when it was read)
        self.stderr = stderr or tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.told, answer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps({"arguments": arguments, "root": str(root), "environment": environment}).encode()
        with answer:
            files = [self.stdout.fileno(), self.stderr.fileno(), answer.fileno()]
            socket.send_fds(_loaded(frozenset((loaded or {}).items()))[0], [request], files)
        self.pid, self.returncode = int(self.told.recv(64)), None

    def poll(self) -> int | None:
        if self.returncode is None and select([self.told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select([self.told], [], [], timeout)[0]:
                raise TimeoutExpired(["afno"], timeout or 0)
            with self.told:
                self.returncode = int(self.told.recv(64))
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return _all_of(self.stdout), _all_of(self.stderr)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _all_of(file: IO[str]) -> str:
    with file:
        file.seek(0)
        return file.read()


@cache
def _loaded(more: frozenset[tuple[str, str]]) -> tuple[socket.socket, "Popen[bytes]"]:
    """A process that has the libraries loaded, and the socket to ask it at; it ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
        return ours, Popen(
            command,
            cwd=Path(__file__).parents[1],
            env=os.environ | dict(more),
            pass_fds=[theirs.fileno()],
            stdin=DEVNULL,
            stdout=DEVNULL,
        )


def serve(requests: socket.socket) -> None:
    """Fork a command for every request, below a parent that tells its number and its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # parents leave no zombies
    while (received := socket.recv_fds(requests, 1 << 20, 3))[0]:
        request, files, *_ = received
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            if command := os.fork():
                tell(command, files)
            become(files, **json.loads(request))
        for file in files:
            os.close(file)


def tell(command: int, files: list[int]) -> None:
    os.write(files[2], str(command).encode())
    os.write(files[2], str(os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])).encode())
    os._exit(0)


def become(files: list[int], arguments: list[str], root: str, environment: dict[str, str]) -> None:
    """Be `python -m afno_repro` with these arguments."""
    os.dup2(files[0], 1)
    os.dup2(files[1], 2)
    for file in files:
        os.close(file)
    os.setsid()
    os.chdir(root)
    subprocess.Popen = popen  # type: ignore[misc, assignment]
    run(arguments, environment)


def popen(command: Any, **options: Any) -> Any:
    """A subprocess.Popen, forked where the command starts itself once more, for one of its devices."""
    return (
        Launched(command[3:], **options)
        if list(command[:3]) == [sys.executable, "-m", "afno_repro"]
        else Popen(command, **options)
    )


class Launched:
    """The same command in a fork of its launcher, to be used as a subprocess.Popen; in a group of its own."""

    def __init__(
        self,
        arguments: list[str],
        env: dict[str, str],
        stdin: int,
        stdout: int | None,
        stderr: IO[bytes] | None,
        pass_fds: list[int],  # which a fork has anyway
        process_group: int,
    ):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        os.setpgid(0, process_group)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(1 if stdout is None else null, 1)
        os.dup2(2 if stderr is None else stderr.fileno(), 2)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name in [name for name in sys.modules if name.partition(".")[0] == "afno_repro"]:
            del sys.modules[name]
        run(arguments, env)

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def run(arguments: list[str], environment: dict[str, str]) -> None:
    """The command itself; it ends without taking apart what was loaded before it."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir, sys.argv[1:] = None, arguments
    exec(environment.get(FIRST, ""), {})
    code: Any = 0
    try:
        runpy.run_module("afno_repro", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in LOADED:
        import_module(name)
    gc.freeze()  # or every process would copy it all
    serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)
