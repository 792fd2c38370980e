"""One run, from its lock to its record."""

import math
import time
import traceback
from itertools import chain
from pathlib import Path

import torch

from afno_repro.config import Machine
from afno_repro.errors import AfnoError, DataError, Diverged, Interrupted, LockedError, little_memory
from afno_repro.memory import held_by_others_bytes, out_of_memory, peak_mib
from afno_repro.precision import rounded
from afno_repro.runs.bound import fed_of, left_out
from afno_repro.runs.executors import EXECUTORS, Outcome, Report
from afno_repro.runs.fit import fitted, halved
from afno_repro.runs.provenance import device_name, provenance, stretches
from afno_repro.runs.record import Record
from afno_repro.runs.source import source_of
from afno_repro.runs.store import ARTIFACTS, LOG, WEIGHTS, Store, checksum, write_arrays
from afno_repro.spec.plan import Run
from afno_repro.spec.resolve import TRAINED
from afno_repro.training import engine


def run_one(run: Run, machine: Machine, report: Report) -> Record | None:
    """Do one run, or return its record when it is finished; its outcome may be `diverged` or `out_of_memory`.

    Where several processes train together, the first keeps the run's directory; the others only help it to train and
    return None. Raises LockedError when another process holds it, Interrupted after a checkpoint, and whatever the user
    can mend; any other error is written to error.txt and raised again.
    """
    together = run.config.kind in TRAINED
    if engine.rank() > 0:
        directory = engine.agreed(None) if together else None
        if directory is not None:
            _outcome(run, machine, Path(directory), report)
        return None
    store, leading = Store(machine.runs_root), False
    try:
        with store.lock(run) as directory:
            record = store.finished(run, machine)
            if record is not None:
                return record
            if run.parent is not None and store.record(run.parent.digest) is None and store.find(run.parent.digest):
                with store.lock(run.parent):  # raises LockedError, naming who does it
                    pass
            store.begin(run, directory)
            if together:
                leading = True  # who fails from here on ends, which the others notice
                engine.agreed(str(directory))
            return _lead(run, machine, report, store, directory)
    finally:
        if together and not leading:
            engine.agreed(None)


def _lead(run: Run, machine: Machine, report: Report, store: Store, directory: Path) -> Record:
    """Do a run whose lock is held, up to its record."""
    started, source = time.monotonic(), source_of(run.config, machine.code["source"])
    before = store.before(run)
    try:
        outcome, result, machine = _outcome(run, machine, directory, report)
    except (Interrupted, LockedError):
        raise
    except AfnoError as error:
        store.fail(directory, f"{error}\n")
        raise
    except Exception:
        store.fail(directory, traceback.format_exc())
        raise
    if result.arrays:
        write_arrays(directory / ARTIFACTS, result.arrays)
    of, seconds = result.data, time.monotonic() - started
    made = provenance(device_name(machine.device), machine, seconds, of.fingerprint if of else None)
    *earlier, last = stretches(before, made | {"source": source})
    made_with = {
        **last,
        "before": earlier,
        "images": list(of.images) if of else [],
        "weights": checksum(directory, WEIGHTS),
        "files": {name: found for name in (LOG, ARTIFACTS) if (found := checksum(directory, name)) is not None},
        "parent": store.parent(run),
        **left_out(run.config, machine),
        "tf32": None if run.config.model is None or run.config.counted else rounded(),
        "skipped": len(run.config.data.options.get("skip", [])),
    }
    record = Record(run.id, run.digest, run.config, outcome, result.metrics, result.repeats, made_with)
    store.finish(record, directory)
    return record


def _outcome(run: Run, machine: Machine, directory: Path, report: Report) -> tuple[str, Outcome, Machine]:
    """What a run came to, and by how many images at a time, if nobody chose.

    Running out of memory and diverging are results, as is any number that is not finite. Raises DataError where a GPU
    had no memory for the fewest images because other processes held it.
    """
    machine = fitted(run.config, machine)
    while True:
        try:
            found = EXECUTORS[run.config.kind](run, machine, directory, report)
            numbers = chain(found.metrics.values(), *found.repeats.values())
            finite = all(map(math.isfinite, numbers))
            return ("ok", found, machine) if finite else ("diverged", Outcome({}, data=found.data), machine)
        except Diverged:
            return "diverged", Outcome({}, data=fed_of(run.config, machine)), machine
        except (MemoryError, RuntimeError) as error:
            if not (out_of_memory(error) or little_memory(error)):
                raise
            engine.meet()
            device = torch.device(machine.device)
            fewer, peak, others = halved(run.config, machine), peak_mib(device), held_by_others_bytes(device)
            if fewer is None and not out_of_memory(error):
                raise
            if fewer is None and any(engine.anywhere(others > 0)):
                raise DataError(
                    f"{run.id} ran out of memory while other processes held {others / 2**30:.1f} GiB of the GPU\n"
                    "  the same command continues once they have ended; --micro-batch 1 needs least"
                ) from error
        if fewer is None:
            return (
                "out_of_memory",
                Outcome({} if peak is None else {"peak_memory_mib": peak}, data=fed_of(run.config, machine)),
                machine,
            )
        machine = fewer
