"""Figures 5 and 6 from saved arrays: token clusters of several mixers, spectra of AFNO's layers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from afno_repro.visualize.curves import save
from afno_repro.visualize.pictures import Array, centred_spectrum, full_spectrum, recoloured

# Okabe and Ito 2008; the lightness of the first four is 46, 90, 0 and 71 of 100, so that they differ in grey.
CLUSTERS = ("#0072B2", "#F0E442", "#000000", "#E69F00", "#D55E00", "#56B4E9", "#009E73", "#CC79A7")
FONT = 8
WIDTH, WIDEST_PANEL = 7.2, 1.2  # inches: the text of a printed page, one map of clusters
MARGIN, GAP, BLOCK_GAP, TITLE = 0.55, 0.04, 0.18, 0.18  # inches: left of the maps, between maps, between images, a line of text
DECADES = 4  # of magnitudes below the largest


def clusters_figure(columns: Mapping[str, Mapping[str, Array]], path: Path) -> None:
    """Figure 5: a block for each image, which stands on top beside its regions; in it a column for each mixer and a line for each layer.

    `columns` has the arrays of Clusters.compute by mixer. Within a block a region keeps its colour from layer to layer and from
    mixer to mixer.
    """
    first = next(iter(columns.values()))
    images, layers = first["images"], [int(layer) for layer in first["layers"]]
    maps = matched([arrays["clusters"] for arrays in columns.values()])
    panel = min(WIDEST_PANEL, (WIDTH - MARGIN - (len(images) - 1) * BLOCK_GAP) / len(images) / len(columns) - GAP)
    block = len(columns) * (panel + GAP) - GAP
    side, lines = (block - GAP) / 2, 1 + max(wrapped(title).count("\n") for title in columns)
    head = TITLE + side + TITLE * (lines - 0.2)
    width, height = MARGIN + len(images) * (block + BLOCK_GAP) - BLOCK_GAP + GAP, head + len(layers) * (panel + GAP)
    figure = Figure(figsize=(width, height))
    for i, image in enumerate(images):
        left = MARGIN + i * (block + BLOCK_GAP)
        _map(figure, left, TITLE, side, "input", image)
        outlined = _map(figure, left + side + GAP, TITLE, side, "regions", image)
        _outline(outlined, first["regions"][i], image.shape[:2])
        for x, title in enumerate(columns):
            for y, layer in enumerate(layers):
                place = (left + x * (panel + GAP), head + y * (panel + GAP))
                axes = _map(figure, *place, panel, "" if y else wrapped(title), _painted(maps[x][i, y]))
                if x == i == 0:
                    axes.set_ylabel(f"layer {layer}", fontsize=FONT, rotation=0, ha="right", va="center")
    save(figure, path)


def matched(columns: Sequence[Array]) -> list[Array]:
    """Clusters (S, L, H, W) of each mixer, named image by image after the first mixer's by their overlap in all layers."""
    return [np.stack([recoloured(maps, reference) for maps, reference in zip(column, columns[0], strict=True)]) for column in columns]


def wrapped(title: str) -> str:
    """A title in lines of one word, broken at spaces and behind hyphens, for narrow columns."""
    return "\n".join(re.findall(r"[^\s-]+-?", title))


def spectra_figure(arrays: Mapping[str, Array], path: Path) -> None:
    """Figure 6: for each layer the magnitude after soft-thresholding and, below, the fraction of values set to zero; frequency 0 in the centre.

    `arrays` are those of Spectra.compute. Black: every value is zero.
    """
    height, width = (int(extent) for extent in arrays["grid"])
    magnitude, zeroed = (centred_spectrum(full_spectrum(arrays[key].astype(np.float64), width)) for key in ("magnitude", "zeroed"))
    largest = magnitude.max() or 1.0
    smallest = max(magnitude[magnitude > 0].min(initial=largest), largest / 10**DECADES)
    count = len(magnitude)
    figure = Figure(figsize=(min(WIDTH, 1.3 + 1.2 * count), 3.0), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False, sharex=True, sharey=True)
    rows = (
        ("magnitude", magnitude, LogNorm(min(smallest, largest / 10), largest), "min"),
        ("fraction zeroed", zeroed, Normalize(0, 1), "neither"),
    )
    left, top = -(width // 2) - 0.5, -(height // 2) - 0.5
    extent = (left, left + width, top + height, top)
    for row, (title, values, norm, extend) in enumerate(rows):
        colours = mpl.colormaps["cividis"].with_extremes(bad="black")
        for x, layer in enumerate(arrays["layers"]):
            drawn = axes[row, x].imshow(values[x], norm=norm, cmap=colours, extent=extent, interpolation="nearest")
            axes[row, x].set(xticks=[-(width // 2), 0], yticks=[-(height // 2), 0])
            axes[row, x].tick_params(labelsize=FONT)
            if row == 0:
                axes[row, x].set_title(f"layer {layer}", fontsize=FONT)
        bar = figure.colorbar(drawn, ax=axes[row, :], extend=extend, aspect=12, pad=0.01)
        bar.set_label(title, fontsize=FONT)
        bar.ax.tick_params(labelsize=FONT)
    figure.supxlabel("cycles per image", fontsize=FONT)
    save(figure, path)


def _map(figure: Figure, left: float, top: float, side: float, title: str, pixels: Array) -> Axes:
    """A square picture `left` and `top` inches from the figure's corner."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=FONT, pad=2, linespacing=1.0)
    return axes


def _painted(labels: Array) -> Array:
    """Labels (H, W) in the clusters' colours, uint8 (H, W, 3)."""
    painted: Array = ListedColormap(CLUSTERS)(labels.astype(int), bytes=True)[..., :3]
    return painted


def _outline(axes: Axes, labels: Array, size: tuple[int, ...]) -> None:
    """Lines between tokens (H, W) of different labels, on a picture of `size` pixels."""
    high, wide = size[0] / labels.shape[0], size[1] / labels.shape[1]
    below, right = np.argwhere(labels[1:] != labels[:-1]), np.argwhere(labels[:, 1:] != labels[:, :-1])
    segments = [[(j * wide, (i + 1) * high), ((j + 1) * wide, (i + 1) * high)] for i, j in below]
    segments += [[((j + 1) * wide, i * high), ((j + 1) * wide, (i + 1) * high)] for i, j in right]
    for color, thickness in (("black", 2.0), ("white", 1.0)):  # one of them is seen on any image
        lines = LineCollection([[(x - 0.5, y - 0.5) for x, y in segment] for segment in segments], colors=color, linewidths=thickness, capstyle="round")
        axes.add_collection(lines)
