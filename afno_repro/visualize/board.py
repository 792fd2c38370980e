"""Pictures side by side, placed in inches on one pair of axes: a pair for each is a hundred times as slow."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from afno_repro.visualize.pictures import Array

mpl.rcParams["image.composite_image"] = False  # in an SVG file every picture keeps its own pixels
FONT = 8
INCH = 72  # points
LETTER, LINE, SQUARE = 0.062, 0.15, 0.1  # inches: a letter, a line of text, a colour in a legend


def board(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, x to the right and y down from its corner, both in inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes


def picture(axes: Axes, left: float, top: float, side: float, title: str, pixels: Array) -> None:
    """A square picture and its title above it."""
    axes.imshow(pixels, interpolation="none", aspect="auto", extent=(left, left + side, top + side, top))
    axes.text(left + side / 2, top - 2 / INCH, title, fontsize=FONT, ha="center", va="bottom", linespacing=1.0)


def line_name(axes: Axes, right: float, middle: float, name: str) -> None:
    """What stands to the left of a line of pictures."""
    axes.text(right - 4 / INCH, middle, name, fontsize=FONT, ha="right", va="center")


def room_for(names: Sequence[str]) -> float:
    """The width of the widest line of some names, which may be all capitals."""
    lines = [line for name in names for line in name.splitlines()]
    return max(max(LETTER * len(line), TextPath((0, 0), line, size=FONT).get_extents().width / INCH) for line in lines)


def in_lines(text: str, width: float) -> list[str]:
    """A text in lines of a width in inches."""
    return textwrap.wrap(text, max(1, int(width / LETTER)))


def note(axes: Axes, left: float, top: float, lines: Sequence[str]) -> None:
    """Lines of text below pictures."""
    axes.text(left, top, "\n".join(lines), fontsize=FONT, ha="left", va="top", linespacing=LINE * INCH / FONT / 1.2)


def legend_rows(names: Sequence[str], width: float) -> list[list[int]]:
    """Which entries of a legend stand side by side in a width in inches."""
    rows: list[list[int]] = [[]]
    for i in range(len(names)):
        if rows[-1] and sum(map(_entry, (names[j] for j in (*rows[-1], i)))) > width:
            rows.append([])
        rows[-1].append(i)
    return rows


def legend(axes: Axes, left: float, top: float, colors: Sequence[str], names: Sequence[str], width: float) -> None:
    """Squares in colours with their names, in as many rows as the width needs."""
    for y, row in enumerate(legend_rows(names, width)):
        at, middle = left, top + (y + 0.5) * LINE
        for i in row:
            corner = (at, middle - SQUARE / 2)
            axes.add_patch(Rectangle(corner, SQUARE, SQUARE, facecolor=colors[i], edgecolor="black", linewidth=0.5))
            axes.text(at + 1.5 * SQUARE, middle, names[i], fontsize=FONT, ha="left", va="center_baseline")
            at += _entry(names[i])


def _entry(name: str) -> float:
    return 3 * SQUARE + len(name) * LETTER


def outline(axes: Axes, left: float, top: float, side: float, edges: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Lines on a picture, from point to point in shares of its side."""
    segments = [[(left + x * side, top + y * side) for x, y in edge] for edge in edges]
    for color, thickness in (("black", 2.0), ("white", 1.0)):  # one of them is seen on any picture
        axes.add_collection(
            LineCollection(segments, colors=color, linewidths=thickness, capstyle="round"), autolim=False
        )
