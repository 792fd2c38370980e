"""Processes that do one run after another, for runs side by side; each ends with the command, however that ends."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from afno_repro.config import Machine
from afno_repro.errors import Interrupted
from afno_repro.faults import ASKED, arm
from afno_repro.runs.devices import visible
from afno_repro.spec.plan import Run
from afno_repro.training.engine import end_with

END_S = 5.0
Work = Callable[[Run, Machine, Callable[[Any], None]], None]


@dataclass
class Worker:
    """A process, the pipe it speaks through, and the run that it is busy with."""

    process: BaseProcess
    pipe: Connection
    gpu: str | None = None  # that it sees
    run: Run | None = None
    started: float = 0.0

    def begin(self, run: Run) -> None:
        """Give it a run to do."""
        self.run, self.started = run, time.monotonic()
        with suppress(BrokenPipeError):  # it ended: that is its next message
            self.pipe.send(run)

    def message(self) -> Any:
        """What it says next; None when it ended without a word."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return None

    def stop(self) -> None:
        """Ask it to keep its work and end."""
        self.process.terminate()

    def abandon(self) -> None:
        """Have it end, and wait no longer than that takes: a driver may not let it."""
        self.stop()
        self.process.join(END_S)
        if self.process.is_alive():
            self.process.kill()
            multiprocessing.process._children.discard(self.process)  # type: ignore[attr-defined]  # or Python's end waits

    def dismiss(self) -> None:
        """Let it end: there is nothing more to do."""
        self.pipe.close()


def start_worker(work: Work, machine: Machine, gpu: str | None) -> Worker:
    """A new process that does `work` with every run it is given, on the one GPU that it sees, if any is named."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, machine, theirs, os.getpid(), dict(ASKED)))
    with _seeing(gpu):
        process.start()
    theirs.close()
    return Worker(process, ours, gpu)


@contextmanager
def _seeing(gpu: str | None) -> Iterator[None]:
    """Inside, processes that start see one GPU: CUDA looks when torch is imported."""
    variable = visible(os.environ)
    before = os.environ.get(variable)
    os.environ |= {} if gpu is None else {variable: gpu}
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        os.environ |= {} if before is None else {variable: before}


def wait_for(workers: list[Worker]) -> list[Worker]:
    """Those of which there is something to hear, after a moment at most."""
    ready = wait([worker.pipe for worker in workers], timeout=0.2)
    return [worker for worker in workers if worker.pipe in ready]


def _serve(work: Work, machine: Machine, pipe: Connection, parent: int, faults: dict[str, str]) -> None:
    """Do runs until there are no more.

    A worker ends with its parent, not by the terminal's own signals, which the parent passes on.
    """
    os.setpgrp()
    end_with(parent)
    arm(faults)
    try:
        while True:
            work(pipe.recv(), machine, pipe.send)
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_code)
    except (BrokenPipeError, EOFError):  # dismissed
        return
