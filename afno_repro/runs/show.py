"""Who watches runs: what is told while they go on, whatever shows it; and the words for a run and its end."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from afno_repro.spec.plan import Run
from afno_repro.spec.resolve import SEEDED

TOLD = (
    "psnr_masked",
    "psnr",
    "ssim",
    "miou",
    "top1",
    "gflops",
    "params_m",
    "latency_s",
)  # metrics of a finished run that a line has room for
STATES = (
    "running",
    "interrupted",
    "failed",
    "out_of_memory",
    "diverged",
    "held",
    "left_out",
    "waiting",
    "done",
)  # what several runs together are: the first that one of them is


class Step(Protocol):
    """A run's own report: see training.loop.Progress."""

    @property
    def step(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def images_per_s(self) -> float: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...

    @property
    def note(self) -> str: ...


class Place(NamedTuple):
    """Where a run stands among the rows and stages; `state` is waiting, done (before this command) or left_out."""

    digest: str
    row: str
    stage: str
    state: str


class Show:
    """Says nothing: the quiet form, and what the others share."""

    def __enter__(self) -> "Show":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def note(self, text: str) -> None:
        """A sentence for the user."""

    def plan(self, places: Sequence[Place]) -> None:
        """The runs of this command, before the first; a run has a place for every row and stage that needs it."""

    def started(self, run: Run) -> None:
        """A run begins or continues."""

    def progressed(self, run: Run, step: Step) -> None:
        """A run got further."""

    def finished(self, run: Run, outcome: str, reason: str, seconds: float, metrics: Mapping[str, float]) -> None:
        """A run ended: ok, diverged, out_of_memory, or for a reason as failed or held."""


def counted(states: Mapping[str, str]) -> str:
    """How many runs came to what, each counted once; `states` are by digest."""
    counts = Counter(states.values())
    parts = [f"{counts[state]} {state.replace('_', ' ')}" for state in STATES if counts[state] and state != "done"]
    return ", ".join([f"{counts['done']} of {len(states)} runs done", *parts])


def title(run: Run) -> str:
    """A run's name in messages."""
    return f"{run.row}/{run.stage}" + (f" seed {run.config.seed}" if run.config.kind in SEEDED else "")


def ending(run: Run, outcome: str, reason: str, seconds: float, metrics: Mapping[str, float]) -> str:
    """A finished run in one line, with a few of its metrics."""
    told = [f"  {key} {metrics[key]:.4g}" for key in TOLD if key in metrics]
    return (
        f"{title(run)}: {outcome.replace('_', ' ')}{f' ({reason})' if reason else ''} after {seconds:.1f} "
        f"s{''.join(told[:3])}"
    )
