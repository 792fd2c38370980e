"""The live table of a terminal: rows and stages with their states, a line for each running run, the newest result.

A cell says how many of its runs are done, how far the first running one is, and what went wrong:

    row    cost  pretrain
    gfn    1/1   3/3
    afno   1/1   1/3 45%

What does not fit is told in one line (rows) or one column (stages). A thread draws once a second, whatever the command
is busy with, so that the clock goes on; the clock alone is drawn anew then, for a latency is timed meanwhile.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.segment import Segment, SegmentLines
from rich.table import Table
from rich.text import Text

from afno_repro.escape import plain, visible
from afno_repro.runs.show import STATES, Place, Show, Step, counted, ending, title
from afno_repro.spec.plan import Run

DRAW_EVERY_S = 0.25
ROW_WIDTH = 28  # of a row's name, longer ones are shortened
BAR = 14  # columns of a bar, where a running run's name and numbers leave room for it
NUMBERS = 40  # columns that a running run's numbers take
STYLES = {"running": "cyan", "done": "green", "waiting": "dim", "left_out": "dim", "held": "yellow"}  # all others: red


@dataclass(frozen=True)
class Going:
    """A run that goes on: since when it reports, from which step, and its newest report."""

    run: Run
    since: float
    first: int = 0
    step: Step | None = None

    @property
    def percent(self) -> str:
        return f"{100 * self.step.step // max(self.step.total, 1)}%" if self.step else "..."

    @property
    def left(self) -> str:
        """Time left at the mean speed since the first report, evaluations among it."""
        if self.step is None or self.step.step <= self.first:
            return ""
        seconds = (self.step.total - self.step.step) * (time.monotonic() - self.since) / (self.step.step - self.first)
        return duration(seconds)


class LiveTable(Show):
    """The show of a terminal; notes and runs that went wrong scroll by above."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.places: Sequence[Place] = ()
        self.states: dict[str, str] = {}  # by digest
        self.going: dict[str, Going] = {}
        self.newest = ""
        self.began = self.drawn = time.monotonic()
        self.lock = Lock()  # between what happens and what is drawn of it; nothing is drawn inside
        self.kept: tuple[object, list[list[Segment]]] | None = None  # a terminal's size, and lines for it
        self.live = Live(
            console=console,
            get_renderable=self.draw,
            refresh_per_second=1,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> "LiveTable":
        self.live.start(refresh=True)
        self.console.show_cursor(True)  # a killed process could not show it again
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        self.states |= dict.fromkeys(self.going, "interrupted")
        if self.states:
            self.note(self.summary())

    def note(self, text: str) -> None:
        self.console.print(visible(text), highlight=False, markup=False)

    def plan(self, places: Sequence[Place]) -> None:
        with self.lock:
            self.places = places
            self.states = {place.digest: place.state for place in places}
        self.refresh()

    def started(self, run: Run) -> None:
        with self.lock:
            self.going[run.digest] = Going(run, time.monotonic())
            self.states[run.digest] = "running"
        self.refresh()

    def progressed(self, run: Run, step: Step) -> None:
        if step.note:
            self.note(f"{title(run)}: {step.note}")
        before = self.going[run.digest]
        first = before if before.step else Going(run, time.monotonic(), step.step)
        with self.lock:
            self.going[run.digest] = Going(run, first.since, first.first, step)
            self.kept = None
        if time.monotonic() - self.drawn >= DRAW_EVERY_S:
            self.refresh()

    def finished(self, run: Run, outcome: str, reason: str, seconds: float, metrics: Mapping[str, float]) -> None:
        said = ending(run, outcome, reason, seconds, metrics)
        with self.lock:
            self.going.pop(run.digest, None)
            self.states[run.digest] = "done" if outcome == "ok" else outcome
            self.newest = said if outcome == "ok" else self.newest
        if outcome != "ok":
            self.note(said)
        self.refresh()

    def refresh(self) -> None:
        self.drawn = time.monotonic()
        with self.lock:
            self.kept = None
        self.live.refresh()

    def summary(self) -> str:
        """How many runs came to what, each counted once, and the time since the command began."""
        said = counted(self.states) if self.states else "at work"
        return f"{said}, {duration(time.monotonic() - self.began)}"

    def draw(self) -> Group:
        """Everything, in no more lines than the terminal has."""
        with self.lock:
            if self.kept is None or self.kept[0] != self.console.size:
                self.kept = (self.console.size, self._above() if self.places else [])
            return Group(SegmentLines(self.kept[1], new_lines=True), self.footer())

    def _above(self) -> list[list[Segment]]:
        """The lines above the clock."""
        rows, room = (
            list(dict.fromkeys(place.row for place in self.places)),
            self.console.height - 2 - bool(self.newest),
        )
        shown = len(rows)
        while True:
            going = [self.running(max(1, room // 3))] if self.going else []
            lines = self.console.render_lines(Group(*self.table(rows, shown), *going), pad=False)
            excess = len(lines) - room
            if excess <= 0 or shown <= 1:
                return lines
            shown = max(1, shown - excess)

    def table(self, rows: list[str], shown: int) -> list[Table | Text]:
        """Rows and stages; where not all rows fit, those that run come first, and the last ones are only counted."""
        cells: dict[tuple[str, str], list[str]] = {}
        for place in self.places:
            cells.setdefault((place.row, place.stage), []).append(place.digest)
        states = {row: self.state([place.digest for place in self.places if place.row == row]) for row in rows}
        if shown < len(rows):
            rows = sorted(rows, key=lambda row: STATES.index(states[row]))
        stages, others = self.stages(cells, rows[:shown])
        drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        drawn.add_column("row", no_wrap=True, overflow="ellipsis", max_width=ROW_WIDTH)
        for name in [*stages, *(["others"] if others else [])]:
            drawn.add_column(name.replace("_", " "), overflow="fold")
        for row in rows[:shown]:
            rest = [digest for stage in others for digest in cells.get((row, stage), [])]
            parts = [cells.get((row, stage), []) for stage in stages] + ([rest] if others else [])
            drawn.add_row(escape(row), *(self.cell(digests) for digests in parts))
        hidden = Counter(states[row].replace("_", " ") for row in rows[shown:])
        more = Text(
            f"and {hidden.total()} more rows: {', '.join(f'{count} {state}' for state, count in hidden.items())}", "dim"
        )
        return [drawn, more] if hidden else [drawn]

    def stages(self, cells: Mapping[tuple[str, str], list[str]], rows: list[str]) -> tuple[list[str], list[str]]:
        """The stages that fit the width, unfinished ones first, and the others; both in the order of the plan."""
        names = list(dict.fromkeys(stage for _, stage in cells))
        room = self.console.width - min(ROW_WIDTH, max(map(len, rows))) - 2 - len("others  ")
        chosen: list[str] = []
        for name in sorted(
            names,
            key=lambda name: (
                self.state([d for (_, stage), digests in cells.items() if stage == name for d in digests]) == "done"
            ),
        ):
            words = [word for row in rows for word in self.cell(cells.get((row, name), [])).plain.split()]
            width = max(map(len, [*words, *name.split("_"), "1/3 45%"]))
            if room >= width + 2:
                chosen.append(name)
                room -= width + 2
        return [name for name in names if name in chosen], [name for name in names if name not in chosen]

    def state(self, digests: Sequence[str]) -> str:
        """What several runs together are."""
        return min((self.states[digest] for digest in digests), key=STATES.index)

    def cell(self, digests: Sequence[str]) -> Text:
        """Done of all, and what else there is to say."""
        if not digests:
            return Text("")
        state = self.state(digests)
        going = next((self.going[digest].percent for digest in digests if digest in self.going), "")
        word = going if state == "running" else "" if state in ("done", "waiting") else state.replace("_", " ")
        return Text(
            f"{sum(self.states[digest] == 'done' for digest in digests)}/{len(digests)} {word}".rstrip(),
            STYLES.get(state, "red"),
        )

    def running(self, shown: int) -> Table:
        """A line for each run that goes on, with its rate, time left and newest metric."""
        drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
        drawn.add_column("running", ratio=1, overflow="fold")
        names = {digest: title(going.run) for digest, going in list(self.going.items())[:shown]}
        bars = self.console.width >= max(map(len, names.values())) + BAR + NUMBERS
        for name in (*(["bar"] if bars else []), "", "images/s", "left", "newest"):
            drawn.add_column(
                "" if name == "bar" else name, no_wrap=True, justify="left" if name in ("bar", "newest") else "right"
            )
        for digest, name in names.items():
            going, step = self.going[digest], self.going[digest].step
            bar = [ProgressBar(step.total if step else 1, step.step if step else 0, width=BAR)] if bars else []
            values = [f"{key} {value:.4g}" for key, value in step.metrics.items()] if step else []
            rate = f"{step.images_per_s:.0f}" if step else ""
            drawn.add_row(escape(name), *bar, going.percent, rate, going.left, escape(plain("  ".join(values[:2]))))
        if len(self.going) > shown:
            drawn.add_row(f"and {len(self.going) - shown} more")
        return drawn

    def footer(self) -> Text:
        """Counts, and the newest result; on one line each."""
        lines = [self.summary(), *([self.newest] if self.newest else [])]
        return Text("\n".join(map(plain, lines)), no_wrap=True, overflow="ellipsis", style="dim")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03 or 2:03."""
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours}:{minutes:02}:{int(seconds) % 60:02}" if hours else f"{minutes}:{int(seconds) % 60:02}"
