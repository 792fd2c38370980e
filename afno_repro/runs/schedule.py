"""Many runs: several trainings side by side, each in a process of its own, and whatever times the machine alone."""

import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from afno_repro.config import Machine
from afno_repro.errors import AfnoError, Interrupted, LockedError, refusal
from afno_repro.escape import visible
from afno_repro.host import cores
from afno_repro.runs.execute import run_one
from afno_repro.runs.order import longest_first
from afno_repro.runs.record import Record
from afno_repro.runs.show import Show, Step, title
from afno_repro.runs.store import Store, is_latency
from afno_repro.runs.workers import Worker, start_worker, wait_for
from afno_repro.spec.plan import Run
from afno_repro.spec.resolve import SEEDED, TRAINED
from afno_repro.training import engine
from afno_repro.training.loop import Progress
from afno_repro.training.stop import stop_flag

WAIT_FOR_HELD_S = 10.0  # of a command that is no worker
GPU_IS_LOST = (
    *("CUDA error: ", "HIP error: ", "CUDA driver error: ", "CUDA unknown error", "HIP unknown error"),
    *("No CUDA GPUs are available", "No HIP GPUs are available", "CUDA driver initialization failed"),
    "Unexpected error from cudaGetDeviceCount",
)
LOOK_AGAIN_S = (0.5, 10.0)  # at what others hold: after a tenth of the time waited so far, at least and at most


@dataclass(frozen=True)
class Failure:
    """A run that left no record, and why; `exit_code` is its error's, `trace` shows where the program is at fault.

    After an error that `stays`, a GPU does nothing more for this process.
    """

    run: Run
    message: str
    exit_code: int
    trace: str = ""
    stays: bool = False


def execute(runs: list[Run], machine: Machine, show: Show) -> list[Failure]:
    """Do all runs and keep going after a failed one. Raises Interrupted.

    Several processes train together first. Then they part: nobody waits for fillings, pictures and latencies, which the
    first one does alone.
    """
    if engine.ranks() == 1:
        return _with_held(runs, machine, show)
    first = engine.rank() == 0
    failures = _with_held([run for run in runs if run.config.kind in TRAINED], machine, show)
    engine.leave()
    alone = [run for run in runs if run.config.kind not in TRAINED]
    return failures + _with_held(alone, replace(machine, devices=1), show) if first else []


def _with_held(runs: list[Run], machine: Machine, show: Show) -> list[Failure]:
    """Do runs, and try again those that another command holds: to the end for a worker or where others of ours start
    from them, else for ten seconds, in which a killed command's processes end."""
    patient = Patient(show)
    failures = _in_order(runs, machine, patient if machine.worker else show)
    patient.told |= {failure.run.digest: failure.message for failure in failures}
    began = since = time.monotonic()
    while held := engine.agreed([f.run.digest for f in failures if f.exit_code == LockedError.exit_code]):
        if machine.worker or any(run.digest in held and run.config.init in held for run in runs):
            since = time.monotonic()
        elif engine.agreed(time.monotonic() - since >= WAIT_FOR_HELD_S):
            break
        time.sleep(_pause(began))
        failures = [f for f in failures if f.run.digest not in held]
        left = [run for run in runs if run.digest in held]
        some = machine.jobs > 1 and any(_free(run, machine) for run in left)
        look = replace(machine, jobs=1, gpus=())  # in this process, which computes nothing then
        failures += _in_order(left, machine if some else look, patient)
    return failures


def _free(run: Run, machine: Machine) -> bool:
    """Whether nobody holds a run, nor the one that it starts from."""
    store = Store(machine.runs_root)
    try:
        with ExitStack() as stack:
            for each in filter(None, (run, run.parent)):
                stack.enter_context(store.lock(each))
    except LockedError:
        return False
    return True


def _pause(began: float) -> float:
    """Seconds until it is worth to look again at what others hold; many workers may look at one file server."""
    least, most = LOOK_AGAIN_S
    return min(most, max(least, (time.monotonic() - began) / 10))


def _in_order(runs: list[Run], machine: Machine, show: Show) -> list[Failure]:
    """Counts, then what is trained and drawn, side by side, then fillings, for which GPUs need not wait; latencies
    last, one at a time, with all threads, of several GPUs on one that is not lost."""
    timed = [run for run in runs if is_latency(run)]
    counted = [run for run in runs if run.config.kind == "profile" and not is_latency(run)]
    trained = [run for run in runs if run.config.kind in SEEDED]
    fillings = [run for run in runs if run.config.kind == "baseline"]
    failures = _one_by_one(counted, machine, show)
    together = replace(machine, jobs=max(1, min(machine.jobs, len(trained))))  # what fewer share leaves more for each
    apart = bool(machine.gpus) and max(len(machine.gpus), machine.jobs) > 1  # a GPU's memory is its own process's
    failures += (_side_by_side if apart or together.jobs > 1 else _one_by_one)(trained, together, show)
    failures += _one_by_one(fillings, machine, show)
    alone = replace(machine, jobs=1, threads=cores())
    return failures + (_side_by_side if apart else _one_by_one)(timed, alone, show)


class Patient(Show):
    """Tells of runs that are tried many times: who holds one, once for each holder, and what comes of it when it is
    free."""

    def __init__(self, show: Show):
        self.show, self.told = show, dict[str, str]()

    def started(self, run: Run) -> None:
        """Nothing yet: it may be held."""

    def progressed(self, run: Run, step: Step) -> None:
        if self.told.get(run.digest) != "started":
            self.told[run.digest] = "started"
            self.show.started(run)
        self.show.progressed(run, step)

    def finished(self, run: Run, outcome: str, reason: str, seconds: float, metrics: Mapping[str, float]) -> None:
        if outcome != "held" or self.told.get(run.digest) != reason:
            self.told[run.digest] = reason
            self.show.finished(run, outcome, reason, seconds, metrics)


def _one_by_one(runs: list[Run], machine: Machine, show: Show) -> list[Failure]:
    failures = list[Failure]()
    for run in runs:
        started = time.monotonic()
        show.started(run)
        held = engine.agreed(_held_parent(run, failures))
        failure, record = (
            (Failure(run, held, LockedError.exit_code), None)
            if held
            else _attempt(run, machine, partial(show.progressed, run))
        )
        _tell(show, run, time.monotonic() - started, failure, record)
        failures += [failure] if failure else []
        if failure and failure.stays:
            raise AfnoError(
                f"{title(run)} left the GPU in an error that stays, so the command stopped; run it again\n"
                "  should the GPU itself be at fault, CUDA_VISIBLE_DEVICES names the others"
            )
    return failures


def _held_parent(run: Run, failures: list[Failure]) -> str:
    """Who holds the run that this one starts from, if somebody does: should they be killed, that one comes first."""
    held = (f for f in failures if f.run.digest == run.config.init and f.exit_code == LockedError.exit_code)
    return next((failure.message for failure in held), "")


def _attempt(run: Run, machine: Machine, report: Callable[[Progress], None]) -> tuple[Failure | None, Record | None]:
    """Do a run; an error becomes a Failure, except an interruption."""
    try:
        return None, run_one(run, machine, report)
    except Interrupted:
        raise
    except AfnoError as error:
        if engine.ranks() > 1 and not isinstance(error, LockedError):
            raise  # the other processes wait for this one: ending is what they notice
        return Failure(run, str(error), error.exit_code), None
    except Exception as error:  # the other runs go on; error.txt holds the traceback
        if engine.deserted(error):
            raise AfnoError(
                f"{engine.why_deserted(error)}so {title(run)} stopped; the same command continues"
            ) from error
        if engine.ranks() > 1:
            raise
        if (refused := refusal(error)) is not None:
            return Failure(run, str(refused), refused.exit_code), None
        stays = any(words in str(error) for words in GPU_IS_LOST)
        return Failure(run, f"{type(error).__name__}: {error}", 1, traceback.format_exc(), stays), None


def _tell(show: Show, run: Run, seconds: float, failure: Failure | None, record: Record | None) -> None:
    if failure:
        if failure.trace:
            print(visible(failure.trace), file=sys.stderr)
        show.finished(
            run, "held" if failure.exit_code == LockedError.exit_code else "failed", failure.message, seconds, {}
        )
    elif record:
        show.finished(run, record.outcome, _too_much(record), seconds, record.metrics)


def _too_much(record: Record) -> str:
    """How much memory a run held when it ran out, and what needs less: half the images that a device had at a time."""
    peak, recipe, made_with = record.metrics.get("peak_memory_mib"), record.config.train, record.provenance
    if peak is None:
        return ""
    at_a_time = (
        min(recipe.batch_size // made_with["devices"], made_with["micro_batch"] or recipe.batch_size) if recipe else 0
    )
    return f"peak {peak:.0f} MiB" + (
        f"; --micro-batch {at_a_time // 2} or --checkpoint-activations needs less" if at_a_time > 1 else ""
    )


def _side_by_side(runs: list[Run], machine: Machine, show: Show) -> list[Failure]:
    """Do runs in processes of their own, as many at once as the machine has jobs; each takes run after run, on a GPU of
    its own where there are such. A worker's processes look again, as they get idle, at what another command holds.

    A run that leaves its GPU in an error that stays is tried on another one: where it does well there, the first GPU
    was at fault, and has no further run.
    """
    waiting, workers, failures = longest_first(runs, machine), list[Worker](), list[Failure]()
    held, began, lost = list[Run](), time.monotonic(), dict[str, str]()  # GPUs, by the run that failed there
    looked = began
    with stop_flag() as stop:
        while stop.signal is None and (waiting or held or any(worker.run for worker in workers)):
            if held and time.monotonic() - looked >= _pause(began):
                waiting, held, looked = held + waiting, [], time.monotonic()
            while (run := _ready(waiting, held, workers)) and (idle := _idle(workers, machine, lost)):
                waiting.remove(run)
                idle.begin(run)
                show.started(run)
            for worker in wait_for(workers):
                run, message = worker.run, worker.message()
                if message is None:
                    workers.remove(worker)
                if run is None:  # it ended while it had nothing to do
                    continue
                if isinstance(message, Progress):
                    show.progressed(run, message)
                    continue
                failure, record = message or (
                    Failure(run, f"its process ended with exit code {worker.process.exitcode}", 1),
                    None,
                )
                worker.run = None
                again = False
                if failure and failure.stays:  # nothing more can be done in it
                    workers.remove(worker)
                    worker.abandon()
                    again = lost.pop(run.digest, None) is None and len({*lost.values(), worker.gpu}) < len(machine.gpus)
                    lost |= {run.digest: worker.gpu} if again and worker.gpu else {}
                _tell(show, run, time.monotonic() - worker.started, failure, record)
                if again:
                    waiting.insert(0, run)
                elif failure and failure.exit_code == LockedError.exit_code and machine.worker:
                    held.append(run)
                elif failure:
                    failures.append(failure)
        for worker in workers:
            worker.dismiss() if stop.signal is None else worker.stop()
        for worker in workers:
            worker.process.join()
        if stop.signal is not None:
            raise Interrupted(stop.signal)
    return failures


def _ready(waiting: list[Run], held: list[Run], workers: list[Worker]) -> Run | None:
    """The first waiting run that starts from none that is still to be done."""
    unfinished = {run.digest for run in (*waiting, *held, *(worker.run for worker in workers if worker.run))}
    return next((run for run in waiting if run.config.init not in unfinished), None)


def _idle(workers: list[Worker], machine: Machine, lost: Mapping[str, str]) -> Worker | None:
    """A process that waits for work, if need be a new one; None when all the machine's jobs are taken, on GPUs that
    are not lost."""
    idle = next((worker for worker in workers if worker.run is None and worker.gpu not in lost.values()), None)
    taken = Counter(worker.gpu for worker in workers)
    left = [gpu for gpu in machine.gpus if gpu not in lost.values() and taken[gpu] < machine.per_gpu]
    if idle is None and len(workers) < machine.jobs and (left or not machine.gpus):
        idle = start_worker(_work, machine, min(left, key=taken.__getitem__, default=None))
        workers.append(idle)
    return idle


def _work(run: Run, machine: Machine, send: Callable[[Any], None]) -> None:
    """What a process does with a run: say how far it is, then how it ended."""
    send(_attempt(run, machine, send))
