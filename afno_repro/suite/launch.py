"""Several processes for one command, one a device: started by `launch` on one machine, by torchrun or SLURM's srun on several.

Every process runs the whole command; they walk its plan together, and the first one alone writes and speaks. `launch` does not
import torch. It is not torchrun's agent: that one signals process groups, data-loading workers among them, leaves its processes
behind when it is killed, and logs every exit code.
"""

import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from subprocess import DEVNULL, Popen
from tempfile import TemporaryFile
from typing import IO, Any

from afno_repro.config import Machine
from afno_repro.errors import ConfigError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER = "AFNO_LAUNCHER"  # the process that must be the parent of those it started
COMMAND = ("-m", "afno_repro")
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE_S = 10.0  # for the others to end by themselves after one failed, and again before they are killed
POLL_S = 0.05


def take_place(machine: Machine, nodes: int, environment: Mapping[str, str]) -> bool:
    """Join the processes that torchrun, srun or `launch` started; False where none of them did.

    Raises ConfigError when they are not as many as devices were asked for.
    """
    for names in (TORCHRUN, SRUN):
        if all(name in environment for name in names):
            rank, ranks, local_rank, host, port = (environment[name] for name in names)
            if int(ranks) == machine.devices == 1:
                return False
            if int(ranks) != machine.devices:
                raise ConfigError(f"--devices and --nodes ask for {machine.devices} processes, {ranks} were started\n  both must say the same")
            from afno_repro.training.engine import Place, join

            parent = int(environment[LAUNCHER]) if LAUNCHER in environment else os.getppid()
            join(Place(int(rank), int(ranks), int(local_rank), f"{host}:{port}", parent), machine.device)
            return True
    if nodes > 1:
        raise ConfigError(
            f"--nodes {nodes}: start the command on every node, by torchrun --nnodes {nodes} --nproc-per-node {machine.devices // nodes} -m afno_repro ...,\n"
            "  or by srun with MASTER_ADDR and MASTER_PORT in the environment"
        )
    return False


def launch(arguments: Sequence[str], devices: int, environment: Mapping[str, str]) -> int:
    """Run this command once for each device of this machine, and pass signals on; returns its exit code.

    What the first process says is seen at once; what another one says, only when that one went wrong and the first did not say so.
    """
    with ExitStack() as stack:
        said = [None, *(stack.enter_context(TemporaryFile()) for _ in range(1, devices))]
        port = _free_port()
        processes = [_start(arguments, rank, devices, port, said[rank], environment) for rank in range(devices)]
        with _passing_on(processes) as passed:
            failed = _wait(processes)
        if failed is None:
            return 0
        if passed:
            return 128 + passed[0]
        code = processes[failed].returncode
        for process, words in zip(processes, said, strict=True):
            if words is not None and (process.returncode == 1 or process.returncode == code != processes[0].returncode):
                words.seek(0)
                print(words.read().decode(errors="replace"), end="", file=sys.stderr)
        if code < 0:
            print(f"process {failed} of 0 to {devices - 1} was killed by signal {-code}; the same command continues", file=sys.stderr)
        return code if code > 0 else 1


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _start(arguments: Sequence[str], rank: int, ranks: int, port: int, said: IO[bytes] | None, outer: Mapping[str, str]) -> "Popen[bytes]":
    """One of the processes, in a group of its own: the terminal's signals reach it through this one alone, and once."""
    values = (str(rank), str(ranks), str(rank), "127.0.0.1", str(port))
    environment = {**outer, **dict(zip(TORCHRUN, values, strict=True)), LAUNCHER: str(os.getpid())}
    command = [sys.executable, *COMMAND, *arguments]
    return Popen(command, env=environment, stdin=DEVNULL, stdout=DEVNULL if rank else None, stderr=said, process_group=0)


@contextmanager
def _passing_on(processes: Sequence["Popen[bytes]"]) -> Iterator[list[int]]:
    """Inside, signals go to the processes; gives the list of those that did."""
    passed: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        passed.append(number)
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence["Popen[bytes]"]) -> int | None:
    """Wait for all; returns the first that failed. Once one has, the others have a while to notice, then are stopped, then killed.

    An exit code above 128 is no failure that others must notice: all were asked to stop, and the first may still be writing.
    """
    failed: int | None = None
    measures = [(Popen.terminate, GRACE_S), (Popen.kill, 2 * GRACE_S)]
    broken_at = math.inf
    while True:
        codes = [process.poll() for process in processes]
        if failed is None and any(codes):  # 1 may only say that another one ended
            failed = min((rank for rank, code in enumerate(codes) if code), key=lambda rank: codes[rank] == 1)
        if None not in codes:
            return failed
        if any(code and code < 128 for code in codes):
            broken_at = min(broken_at, time.monotonic())
        if measures and time.monotonic() - broken_at >= measures[0][1]:
            measure, _ = measures.pop(0)
            for process in processes:
                measure(process)
        time.sleep(POLL_S)
