"""Batches prepared by other processes, each of which is known to have come to life."""

import itertools
import os
import shutil
import signal
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkContext, ForkProcess
from multiprocessing.popen_fork import Popen
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from torch import Generator
from torch.utils.data import DataLoader

from afno_repro.data.samples import Key, Samples, TrainingBatches
from afno_repro.errors import DataError, LoadingError

Batches = TrainingBatches | list[list[Key]]
Prepared = tuple[Samples, Batches]
LONGEST_TEMPORARY = 107 - len(
    "/pymp-12345678/listener-12345678"
)  # of a socket's path on Linux, less what multiprocessing adds
SHARED, PREFETCHED = Path("/dev/shm"), 2  # where batches pass from process to process, and how many of each may wait
FULL = "unable to allocate shared memory"  # as torch says it
TRIES, LIFE_S = 3, 10.0  # to start a process, and for it to come to life


def loader(
    samples: Samples,
    batches: Batches,
    num_workers: int,
    pin_memory: bool,
    beside: Sequence[Prepared] = (),
    jobs: int = 1,
) -> Iterator[Any]:
    """Batches of samples, prepared by `num_workers` other processes (0: by this one), one a batch at most.

    There is to be shared memory for what is prepared `beside` them, too, and for as much of each of so many jobs.
    Raises DataError where the path of the folder of temporary files is too long for the processes' tensors to arrive,
    or shared memory too small for them, LoadingError when a process ended.
    """
    if num_workers and len(tempfile.gettempdir()) > LONGEST_TEMPORARY:
        hint = f"name a folder of at most {LONGEST_TEMPORARY} characters with TMPDIR, or use --workers 0"
        raise DataError(f"{tempfile.gettempdir()}: too long a path for the sockets of data-loading processes\n  {hint}")
    check_shared(num_workers, jobs, (samples, batches), *beside)
    num_workers = min(num_workers, len(batches))
    context, generator = Living() if num_workers else None, Generator().manual_seed(0)
    loading = DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=num_workers,
        prefetch_factor=PREFETCHED if num_workers else None,
        generator=generator,
        pin_memory=pin_memory,
        multiprocessing_context=context,
    )
    try:
        prepared = iter(loading)
        if num_workers:
            signal.signal(
                signal.SIGCHLD, signal.SIG_DFL
            )  # torch's handler raises wherever this process is; the next batch tells as well
        yield from prepared
    except (OSError, EOFError, RuntimeError) as error:
        if FULL in str(error):
            hint = "use fewer --workers (0: none), or give the container more shared memory"
            raise DataError(f"{SHARED}: has no room for another batch; others may have filled it\n  {hint}") from error
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker (pid"):
            raise
        if isinstance(error, OSError) and error.filename is not None:
            raise
        ended = "a data-loading process ended, or its temporary files were removed"
        raise LoadingError(f"{ended}\n  the same command continues") from error


def check_shared(num_workers: int, jobs: int, *prepared: Prepared) -> None:
    """Raise DataError where shared memory is too small for what is prepared at the same time, by each of some jobs."""
    if not num_workers or not SHARED.is_dir():
        return
    sizes = [  # bytes of a batch, and how many there are
        (len(some) * sum(part.nbytes for part in samples[some[0]]), len(batches))
        for samples, batches in prepared
        for some in itertools.islice(batches, 1)
    ]

    def needed(workers: int) -> int:
        return sum(size * min(workers * PREFETCHED, count) for size, count in sizes)

    shared = shutil.disk_usage(SHARED)
    room = min(shared.free, shared.total // jobs)
    if needed(num_workers) > room:
        fewer = bisect_right(range(1, num_workers), room, key=needed)
        gib = -(-(shared.total - shared.free + jobs * needed(num_workers)) // 2**30)
        raise DataError(
            f"{SHARED}: the batches of {num_workers} data-loading processes need {needed(num_workers) / 2**20:.0f} MiB "
            f"and {room / 2**20:.0f} MiB are free{f' for each of {jobs} runs' if jobs > 1 else ''}\n"
            f"  use --workers {fewer}, or give the container more shared memory, as in docker run --shm-size {gib}g"
        )


class LoadingProcess(ForkProcess):
    """A fork of this process that is started anew until it lives. Raises DataError when it never does.

    A fork beside other threads may not live: a lock that one of them held at that moment stays taken in it, and its
    parent would wait for data for ever. CPython 3.11 has such a lock on its list of threads, which the threads of a
    process group take at any time.
    """

    alive = -1  # where it says so

    def run(self) -> None:
        """Leave the trainer's process group, so that signals to that one let the trainer finish its step; then work."""
        os.setpgrp()
        os.write(self.alive, b".")
        os.close(self.alive)
        Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]
        sys.excepthook = lambda *error: None  # of the thread that hands tensors over: a trainer that ended took none
        try:
            super().run()
        except Exception as error:
            _tell(error)
            raise
        finally:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (where Python shows what went wrong, for nobody)

    @staticmethod
    def _Popen(process: BaseProcess) -> Popen:  # by which every kind of process starts
        for _ in range(TRIES):
            heard, process.alive = os.pipe()  # type: ignore[attr-defined]
            started = Popen(process)
            os.close(process.alive)  # type: ignore[attr-defined]
            lives = wait([heard], LIFE_S)
            os.close(heard)
            if lives:
                return started
            started.kill()
            started.wait()
        raise DataError(
            f"{TRIES} data-loading processes in a row did not come to life within {LIFE_S:.0f} s each\n"
            "  use --workers 0"
        )


def _tell(error: Exception) -> None:
    with suppress(BrokenPipeError):
        os.write(2, f"a data-loading process: {error}\n".encode())


def _end(error: Exception, batch: Any) -> None:
    """End a process whose batch cannot be sent: its parent would wait for that one for ever."""
    _tell(error)
    os._exit(1)


class Living(ForkContext):
    """How a loader starts its processes: never by spawn, which would import torch anew in every one."""

    Process = LoadingProcess
