"""In which order runs start side by side: first what takes longest, so that no GPU waits for another at the end."""

from collections.abc import Mapping
from functools import cache

from afno_repro.config import Machine, RunConfig
from afno_repro.profiling.kept import network
from afno_repro.runs.estimate import image_counts
from afno_repro.spec.plan import Run
from afno_repro.spec.resolve import SEEDED


def longest_first(runs: list[Run], machine: Machine) -> list[Run]:
    """Runs by the operations of their longest chain, from themselves to a run that nothing starts from; parents first.

    As they stand in the plan where they go one by one, and on a CPU: there the rows of a table take about as long.
    """
    if machine.device == "cpu" or machine.jobs == 1:
        return list(runs)
    images = {repr(run.config.data): image_counts(run.config.data, machine)[0] for run in runs}

    @cache
    def chain(digest: str) -> float:
        (run,) = (run for run in runs if run.digest == digest)
        after = [chain(child.digest) for child in runs if child.config.init == digest]
        return operations(run.config, images[repr(run.config.data)]) + max(after, default=0.0)

    return sorted(runs, key=lambda run: -chain(run.digest))


def elapsed_s(runs: list[Run], seconds: Mapping[str, float], machine: Machine) -> float:
    """From the first start to the last end, where every run takes its seconds, by digest.

    What is trained or drawn goes side by side, after the run that it starts from; the rest has the machine alone.
    """
    jobs, ends = [0.0] * machine.jobs, dict[str | None, float]()
    for run in longest_first([run for run in runs if run.config.kind in SEEDED], machine):
        ready = ends.get(run.config.init, 0.0)
        idle = max((end for end in jobs if end <= ready), default=min(jobs))
        jobs.remove(idle)
        ends[run.digest] = max(idle, ready) + seconds[run.digest]
        jobs.append(ends[run.digest])
    return max(jobs) + sum(seconds[run.digest] for run in runs if run.config.kind not in SEEDED)


def operations(config: RunConfig, images: tuple[int, int] | None) -> float:
    """Operations of a run's passes, evaluations left out; one pass where nothing is known of the data."""
    if config.model is None:
        return 0.0
    passes = 3 * config.train.epochs * images[0] if config.train and images else 1
    return network(config).flops * passes
