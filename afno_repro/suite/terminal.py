"""What a user sees while runs go on: bars on a terminal, plain lines elsewhere, nothing when asked to be quiet.

Everything goes to standard error, so that standard output stays the command's answer.
"""

import sys
import time
from collections.abc import Mapping
from typing import Protocol

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

PLAIN_EVERY_S = 10.0


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


class Show:
    """Says nothing: the quiet form, and what the others share."""

    def __enter__(self) -> "Show":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def note(self, text: str) -> None:
        """A sentence for the user."""

    def started(self, name: str) -> None:
        """A run begins or continues."""

    def progressed(self, name: str, step: Step) -> None:
        """A run got further."""

    def finished(self, name: str, outcome: str, seconds: float, metrics: Mapping[str, float]) -> None:
        """A run ended."""


def short(metrics: Mapping[str, float]) -> str:
    """A few metrics in one line."""
    chosen = [key for key in ("psnr_masked", "psnr", "ssim", "miou", "top1", "gflops", "params_m", "latency_s") if key in metrics]
    return "  ".join(f"{key} {metrics[key]:.4g}" for key in chosen[:3])


class Plain(Show):
    """One line when a run starts and ends, and every ten seconds between."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def started(self, name: str) -> None:
        self.told[name] = time.monotonic()
        self.note(f"{name}: started")

    def progressed(self, name: str, step: Step) -> None:
        if step.note:
            self.note(f"{name}: {step.note}")
        now = time.monotonic()
        if now - self.told.get(name, 0.0) >= PLAIN_EVERY_S:
            self.told[name] = now
            values = "  ".join(f"{key} {value:.4g}" for key, value in step.metrics.items())
            self.note(f"{name}: step {step.step}/{step.total}  {step.images_per_s:.0f} images/s  {values}")

    def finished(self, name: str, outcome: str, seconds: float, metrics: Mapping[str, float]) -> None:
        self.note(f"{name}: {outcome} after {seconds:.1f} s  {short(metrics)}".rstrip())


class Bars(Show):
    """A bar for every running training, with its rate and time left; finished runs scroll by above."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def note(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)

    def started(self, name: str) -> None:
        self.tasks[name] = self.progress.add_task(name, total=None, rate="")

    def progressed(self, name: str, step: Step) -> None:
        if step.note:
            self.note(f"{name}: {step.note}")
        self.progress.update(self.tasks[name], total=step.total, completed=step.step, rate=f"{step.images_per_s:.0f} images/s")

    def finished(self, name: str, outcome: str, seconds: float, metrics: Mapping[str, float]) -> None:
        self.progress.remove_task(self.tasks.pop(name))
        self.note(f"{name}: {outcome} after {seconds:.1f} s  {short(metrics)}".rstrip())


def show_for(quiet: bool) -> Show:
    """The form that fits where standard error goes."""
    console = Console(stderr=True)
    if quiet:
        return Show()
    return Bars(console) if console.is_terminal else Plain()


def print_grid(title: str, header: list[str], lines: list[list[str]], whole: int = 0) -> None:
    """A table of text on standard output; cells wrap instead of being cut, except those of the first `whole` columns."""
    drawn = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(header):
        drawn.add_column(name, overflow="fold", no_wrap=i < whole)
    for line in lines:
        drawn.add_row(*(escape(part) for part in line))
    Console(highlight=False).print(drawn)
