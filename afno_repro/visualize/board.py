"""Pictures side by side, placed in inches on one pair of axes: a pair for each is a hundred times as slow."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from afno_repro.visualize.pictures import Array

mpl.rcParams["image.composite_image"] = False  # in an SVG file every picture keeps its own pixels
FONT = 8
INCH = 72  # points


def board(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, x to the right and y down from its corner, both in inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes


def picture(axes: Axes, left: float, top: float, side: float, title: str, pixels: Array) -> None:
    """A square picture and its title above it."""
    axes.imshow(pixels, interpolation="nearest", aspect="auto", extent=(left, left + side, top + side, top))
    axes.text(left + side / 2, top - 2 / INCH, title, fontsize=FONT, ha="center", va="bottom", linespacing=1.0)


def line_name(axes: Axes, right: float, middle: float, name: str) -> None:
    """What stands to the left of a line of pictures."""
    axes.text(right - 4 / INCH, middle, name, fontsize=FONT, ha="right", va="center")


def outline(axes: Axes, left: float, top: float, side: float, edges: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Lines on a picture, from point to point in shares of its side."""
    segments = [[(left + x * side, top + y * side) for x, y in edge] for edge in edges]
    for color, thickness in (("black", 2.0), ("white", 1.0)):  # one of them is seen on any picture
        axes.add_collection(
            LineCollection(segments, colors=color, linewidths=thickness, capstyle="round"), autolim=False
        )
