"""What a user sees while runs go on: a live table on a terminal, plain lines elsewhere, nothing when asked to be quiet.

Everything goes to standard error, so that standard output stays the command's answer.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from afno_repro.suite.escape import plain, visible
from afno_repro.suite.plan import Run
from afno_repro.suite.resolve import SEEDED

PLAIN_EVERY_S = 10.0
TOLD = ("psnr_masked", "psnr", "ssim", "miou", "top1", "gflops", "params_m", "latency_s")  # metrics of a finished run that a line has room for


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
        """The runs of this command, before the first of them; a run has a place for every row and stage that needs it."""

    def started(self, run: Run) -> None:
        """A run begins or continues."""

    def progressed(self, run: Run, step: Step) -> None:
        """A run got further."""

    def finished(self, run: Run, outcome: str, reason: str, seconds: float, metrics: Mapping[str, float]) -> None:
        """A run ended: ok, diverged, out_of_memory, or for a reason as failed or held."""


def title(run: Run) -> str:
    """A run's name in messages."""
    return f"{run.row}/{run.stage}" + (f" seed {run.config.seed}" if run.config.kind in SEEDED else "")


def ending(run: Run, outcome: str, reason: str, seconds: float, metrics: Mapping[str, float]) -> str:
    """A finished run in one line, with a few of its metrics."""
    told = [f"  {key} {metrics[key]:.4g}" for key in TOLD if key in metrics]
    return f"{title(run)}: {outcome.replace('_', ' ')}{f' ({reason})' if reason else ''} after {seconds:.1f} s{''.join(told[:3])}"


class Plain(Show):
    """One line when a run starts and ends, and every ten seconds between."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}

    def note(self, text: str) -> None:
        print(visible(text), file=sys.stderr, flush=True)

    def started(self, run: Run) -> None:
        self.told[run.digest] = time.monotonic()
        self.note(f"{title(run)}: started")

    def progressed(self, run: Run, step: Step) -> None:
        if step.note:
            self.note(f"{title(run)}: {step.note}")
        now = time.monotonic()
        if now - self.told.get(run.digest, 0.0) >= PLAIN_EVERY_S:
            self.told[run.digest] = now
            values = "  ".join(f"{key} {value:.4g}" for key, value in step.metrics.items())
            self.note(f"{title(run)}: step {step.step}/{step.total}  {step.images_per_s:.0f} images/s  {values}")

    def finished(self, run: Run, outcome: str, reason: str, seconds: float, metrics: Mapping[str, float]) -> None:
        self.note(ending(run, outcome, reason, seconds, metrics))


def show_for(quiet: bool) -> Show:
    """The form that fits where standard error goes."""
    if quiet:
        return Show()
    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        return Plain()
    from afno_repro.suite.live import LiveTable

    return LiveTable(console)


def say(*lines: object) -> None:
    """Lines on standard output, whatever files their words came from."""
    for line in lines:
        print(visible(str(line)))


def print_grid(title: str, header: list[str], lines: list[list[str]], whole: int = 0) -> None:
    """A table of text on standard output; cells wrap instead of being cut, between words as long as there is room for these.

    Those of the first `whole` columns wrap last.
    """
    console = Console(highlight=False)
    header, lines = [plain(name) for name in header], [[plain(part) for part in line] for line in lines]
    drawn = RichTable(title=Text(plain(title), "table.title"), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, (name, width) in enumerate(zip(header, column_widths([header, *lines], whole, console.width), strict=True)):
        drawn.add_column(escape(name), overflow="fold", width=width, no_wrap=width is None and i < whole)
    for line in lines:
        drawn.add_row(*(escape(part) for part in line))
    console.print(drawn)


def column_widths(lines: list[list[str]], whole: int, room: int) -> list[int | None]:
    """Widths in which words stay whole, the room left over given to the columns that lack least; None where there is not enough."""
    columns = list(zip(*lines, strict=True))
    full = [max(map(len, column)) for column in columns]
    words = [max((len(word) for part in column for word in part.split()), default=0) for column in columns]
    room -= 2 * len(columns)
    for least in (full[:whole] + words[whole:], words):
        if sum(least) <= room:
            widths = list(least)
            while sum(widths) < min(room, sum(full)):
                closest = min((i for i in range(len(widths)) if widths[i] < full[i]), key=lambda i: full[i] - widths[i])
                widths[closest] += 1
            return list(widths)
    return [None] * len(columns)
