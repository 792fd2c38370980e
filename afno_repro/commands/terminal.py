"""What a user sees while runs go on: a live table on a terminal, plain lines elsewhere, nothing when asked to be quiet.

Everything goes to standard error, so that standard output stays the command's answer.
"""

import sys
import textwrap
import time
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from afno_repro.escape import plain, visible
from afno_repro.runs.show import Place, Show, Step, counted, ending, title
from afno_repro.spec.plan import Run

PLAIN_EVERY_S = 10.0
BOUND = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"  # keeps a number with its spread on one line


class Plain(Show):
    """One line when a run starts and ends, and every ten seconds between."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}
        self.states: dict[str, str] = {}  # by digest

    def note(self, text: str) -> None:
        print(visible(text), file=sys.stderr, flush=True)

    def plan(self, places: Sequence[Place]) -> None:
        self.states = {place.digest: place.state for place in places}
        self.note(counted(self.states))

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
        self.states[run.digest] = "done" if outcome == "ok" else outcome
        left = sum(state in ("waiting", "running") for state in self.states.values())
        self.note(f"{ending(run, outcome, reason, seconds, metrics)}; {left} to go")


def show_for(quiet: bool) -> Show:
    """The form that fits where standard error goes."""
    if quiet:
        return Show()
    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        return Plain()
    from afno_repro.commands.live import LiveTable

    return LiveTable(console)


def say(*lines: object) -> None:
    """Lines on standard output, whatever files their words came from; a terminal breaks none of their words."""
    width = Console().width if sys.stdout.isatty() else sys.maxsize
    for line in "\n".join(map(str, lines)).split("\n"):
        words = visible(line)
        parts = textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)
        print("\n".join(parts) if len(words) > width else words)


def print_grid(
    title: str, header: list[str], lines: list[list[str]], whole: int = 0, ranks: Sequence[int] | None = None
) -> None:
    """A table of text on standard output, whose cells wrap between words; those of the first `whole` columns wrap last.

    Columns that do not fit are left out and named: those of the highest rank first, of equal ones the last. Empty
    ones are not named.
    """
    console = Console(highlight=False)
    text = [[plain(part).replace(" ± ", BOUND) for part in line] for line in (header, *lines)]
    kept = columns_that_fit(text, console.width, ranks or range(len(header)))
    short = [[line[i] for i in kept] for line in text]
    drawn = RichTable(
        title=Text(plain(title), "table.title"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    widths = column_widths(short, whole, console.width)
    wrapped = [[_wrapped(part, width) for part, width in zip(line, widths, strict=True)] for line in short]
    for name, width in zip(wrapped[0], widths, strict=True):
        drawn.add_column(escape(name), overflow="fold", width=width)
    for line in wrapped[1:]:
        drawn.add_row(*(escape(part) for part in line))
    console.print(drawn)
    filled = {i for line in text[1:] for i, part in enumerate(line) if part}
    if missing := [_name(text[0], i) for i in range(len(header)) if i in filled and i not in kept]:
        say(f"no room here for {', '.join(missing)}")


def _name(header: list[str], i: int) -> str:
    """A column's name, with that of its neighbour where it is not the only one of its name."""
    return header[i] if header.count(header[i]) == 1 else f"{header[i - 1]} {header[i]}"


def columns_that_fit(lines: list[list[str]], room: int, ranks: Sequence[int]) -> list[int]:
    """The columns whose words stay whole in this room, at least one."""
    kept = list(range(len(lines[0])))
    for i in sorted(kept, key=lambda i: (ranks[i], i), reverse=True)[:-1]:
        if sum(_words([line[j] for line in lines]) + 2 for j in kept) <= room:
            break
        kept.remove(i)
    return kept


def _words(column: Sequence[str]) -> int:
    """The length of a column's longest word; a number and its spread are one."""
    return max((len(word) for part in column for word in part.split(" ")), default=0)


def _wrapped(part: str, width: int | None) -> str:
    """A cell's lines, which keep words whole where there is a width."""
    lines = textwrap.wrap(part, width, break_on_hyphens=False) if width else [part]
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def column_widths(lines: list[list[str]], whole: int, room: int) -> list[int | None]:
    """Widths that keep words whole, spare room given to the columns that lack least; None where room is too small."""
    columns = list(zip(*lines, strict=True))
    full, words = [max(map(len, column)) for column in columns], [_words(column) for column in columns]
    room -= 2 * len(columns)
    for least in (full[:whole] + words[whole:], words):
        if sum(least) <= room:
            widths = list(least)
            while sum(widths) < min(room, sum(full)):
                closest = min((i for i in range(len(widths)) if widths[i] < full[i]), key=lambda i: full[i] - widths[i])
                widths[closest] += 1
            return list(widths)
    return [None] * len(columns)
