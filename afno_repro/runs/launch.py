"""Several processes for one command, one a device.

`launch` starts them on one machine, torchrun or SLURM's srun on several. Every process runs the whole command; they
walk its plan together, and the first one alone writes and speaks. `launch` does not import torch. It is not
torchrun's agent: that one signals process groups, data-loading workers among them, leaves its processes behind when
it is killed, and logs every exit code.
"""

import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

from afno_repro.config import Machine
from afno_repro.errors import AfnoError, ConfigError, Interrupted

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER = "AFNO_LAUNCHER"  # the process that must be the parent of those it started
MEETING = "AFNO_MEETING"  # the file at which they meet and speak, in a folder that is theirs alone
SAYS = "AFNO_SAYS"  # the file descriptor at which each may tell the user what cannot wait
COMMAND = ("-m", "afno_repro")
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGXCPU)
GRACE_S = 10.0  # for the others to end by themselves after one failed, and again before they are killed
POLL_S = 0.05


def placed(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process beside others: such a one may see its own GPU alone."""
    several = environment.get(SRUN[1], "1") != "1"
    return (
        several and all(name in environment for name in SRUN[:3]) and not all(name in environment for name in TORCHRUN)
    )


def take_place(machine: Machine, nodes: int, environment: Mapping[str, str]) -> bool:
    """Join the processes that torchrun, srun or `launch` started; False where none of them did.

    Raises ConfigError when they are not as many as devices were asked for, or cannot find one another.
    """
    for names in (TORCHRUN, SRUN):
        if all(name in environment for name in names):
            host, port = (environment[name] for name in names[3:])
            rank, ranks, local_rank = (_number(name, environment) for name in names[:3])
            address = environment.get(MEETING, f"tcp://{host}:{port}")
            if ranks == machine.devices == 1:
                return False
            if ranks != machine.devices:
                raise ConfigError(
                    f"--devices and --nodes ask for {machine.devices} processes, {ranks} were started\n"
                    "  both must say the same"
                )
            from afno_repro.training.engine import Place, join

            parent = _number(LAUNCHER, environment) if LAUNCHER in environment else os.getppid()
            says = _number(SAYS, environment) if SAYS in environment else 2
            join(Place(rank, ranks, local_rank, address, parent, says), machine.device)
            return True
    missing = [name for name in SRUN if name not in environment]
    if machine.devices > 1 and not set(missing) & set(SRUN[:3]) and _number(SRUN[1], environment) > 1:
        raise ConfigError(
            f"srun started {environment[SRUN[1]]} processes, which cannot find one another: {' and '.join(missing)} "
            "not in the environment\n"
            "  export MASTER_ADDR=(the first node's name) and MASTER_PORT=(a free port) before srun"
        )
    if nodes > 1:
        raise ConfigError(
            f"--nodes {nodes}: start the command on every node, by torchrun --nnodes {nodes} --nproc-per-node "
            f"{machine.devices // nodes} -m afno_repro ...,\n"
            "  or by srun with MASTER_ADDR and MASTER_PORT in the environment"
        )
    return False


def _number(name: str, environment: Mapping[str, str]) -> int:
    if not re.fullmatch("[0-9]{1,9}", environment[name]):
        raise ConfigError(f"{name}: must be a whole number in the environment, is {environment[name][:50]!r}")
    return int(environment[name])


def left_alone(error: BaseException) -> AfnoError | None:
    """What to tell of an error outside a run: that another process ended or does not come; None of any other."""
    engine = sys.modules.get("afno_repro.training.engine")
    return (
        AfnoError(f"{engine.why_deserted(error)}so the command stopped; the same command continues")
        if engine and engine.deserted(error)
        else None
    )


def launch(arguments: Sequence[str], devices: int, environment: Mapping[str, str]) -> int:
    """Run this command once for each device of this machine, and pass signals on; returns its exit code.

    What the first process says is seen at once; what another one says, only when that one went wrong and the first
    did not say so.
    """
    with ExitStack() as stack:
        said = [None, *(stack.enter_context(TemporaryFile()) for _ in range(1, devices))]
        meeting = Path(stack.enter_context(TemporaryDirectory(prefix="afno-"))) / "meeting"
        processes = [_start(arguments, rank, devices, meeting, said[rank], environment) for rank in range(devices)]
        with _passing_on(processes) as passed:
            failed, asked = _wait(processes)
        if failed is None:
            return 0
        if passed:
            return Interrupted(passed[0]).exit_code
        code = processes[failed].returncode
        for rank, (process, words) in enumerate(zip(processes, said, strict=True)):
            if words is not None and (
                asked or process.returncode == 1 or process.returncode == code != processes[0].returncode
            ):
                if asked:
                    print(f"process {rank} of 0 to {devices - 1}:", file=sys.stderr)
                words.seek(0)
                print(words.read().decode(errors="replace"), end="", file=sys.stderr)
        if code < 0:
            print(
                f"process {failed} of 0 to {devices - 1} was killed by signal {-code}; the same command continues",
                file=sys.stderr,
            )
        return code if code > 0 else 1


def _start(
    arguments: Sequence[str], rank: int, ranks: int, meeting: Path, said: IO[bytes] | None, outer: Mapping[str, str]
) -> "Popen[bytes]":
    """One of the processes, in a group of its own: the terminal's signals reach it through this one alone, and once."""
    mouth = os.dup(2)
    values = (str(rank), str(ranks), str(rank), "127.0.0.1", "0")
    here = {LAUNCHER: str(os.getpid()), MEETING: str(meeting), SAYS: str(mouth), "GLOO_SOCKET_IFNAME": "lo"}
    environment = {**outer, **dict(zip(TORCHRUN, values, strict=True)), **here}
    command, out = [sys.executable, *COMMAND, *arguments], DEVNULL if rank else None
    try:
        return Popen(
            command, env=environment, stdin=DEVNULL, stdout=out, stderr=said, pass_fds=[mouth], process_group=0
        )
    finally:
        os.close(mouth)


@contextmanager
def _passing_on(processes: Sequence["Popen[bytes]"]) -> Iterator[list[int]]:
    """Inside, signals go to the processes; gives the list of those that did."""
    passed: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        passed.append(number)
        for process in processes:
            process.send_signal(number)

    heeded = [number for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence["Popen[bytes]"]) -> tuple[int | None, bool]:
    """Wait for all; returns the first that failed, and whether others were asked where they are.

    They have a while to notice, then are asked if the first told no mistake, then stopped, then killed. An exit code
    above 128 is no failure that others must notice: all were asked to stop, and the first may still be writing.
    """
    failed: int | None = None
    asked, untouched = False, True
    measures = [(signal.SIGUSR2, GRACE_S), (signal.SIGTERM, GRACE_S + 1), (signal.SIGKILL, 2 * GRACE_S + 1)]
    broken_at = math.inf
    while True:
        codes = [process.poll() for process in processes]
        own = [rank for rank, code in enumerate(codes) if code not in (None, 0, 1)]
        if failed is None or (codes[failed] == 1 and untouched):  # 1 may only say that another one ended
            failed = min(own or (rank for rank, code in enumerate(codes) if code), default=None)
        if None not in codes:
            return failed, asked
        if any(code and code < 128 for code in codes):
            broken_at = min(broken_at, time.monotonic())
        if measures and time.monotonic() - broken_at >= measures[0][1]:
            measure, _ = measures.pop(0)
            if measure == signal.SIGUSR2 and processes[failed or 0].returncode != 1:
                continue
            asked, untouched = asked or measure == signal.SIGUSR2, False
            for process in processes:
                process.send_signal(measure)
        time.sleep(POLL_S)
