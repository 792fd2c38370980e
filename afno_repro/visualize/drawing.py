"""Figures 5 and 6 from saved arrays: token clusters of several mixers, spectra of AFNO's layers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from afno_repro.visualize.board import FONT, LINE, board, in_lines, line_name, note, outline, picture
from afno_repro.visualize.curves import save
from afno_repro.visualize.pictures import Array, centred_spectrum, full_spectrum, recoloured

# Okabe and Ito 2008; the lightness of the first four is 46, 90, 0 and 71 of 100, so that they differ in grey.
CLUSTERS = ("#0072B2", "#F0E442", "#000000", "#E69F00", "#D55E00", "#56B4E9", "#009E73", "#CC79A7")
WIDTH, WIDEST_PANEL = 7.2, 1.2  # inches: the text of a printed page, one map of clusters
MARGIN, GAP, BLOCK_GAP, TITLE = (
    0.55,
    0.04,
    0.18,
    0.18,
)  # inches: left of the maps, between maps, between images, a line of text
DECADES = 4  # of magnitudes below the largest


def clusters_figure(columns: Mapping[str, Mapping[str, Array]], said: str, paths: Sequence[Path]) -> None:
    """Figure 5: a block for each image, which stands on top beside its regions.

    A block has a column for each mixer and a line for each layer.
    `columns` has the arrays of Clusters.compute by mixer. Within a block a region keeps its colour from layer to layer
    and from mixer to mixer. `said` stands below.
    """
    first = next(iter(columns.values()))
    images, layers = first["images"], [int(layer) for layer in first["layers"]]
    maps = matched([arrays["clusters"] for arrays in columns.values()])
    panel = min(WIDEST_PANEL, (WIDTH - MARGIN - (len(images) - 1) * BLOCK_GAP) / len(images) / len(columns) - GAP)
    block = len(columns) * (panel + GAP) - GAP
    side, lines = (block - GAP) / 2, 1 + max(wrapped(title).count("\n") for title in columns)
    head = TITLE + side + TITLE * (lines - 0.2)
    width, height = MARGIN + len(images) * (block + BLOCK_GAP) - BLOCK_GAP + GAP, head + len(layers) * (panel + GAP)
    words = in_lines(said, width - 2 * GAP)
    figure, axes = board(width, height + len(words) * LINE + GAP)
    for i, image in enumerate(images):
        left = MARGIN + i * (block + BLOCK_GAP)
        picture(axes, left, TITLE, side, "input", image)
        picture(axes, left + side + GAP, TITLE, side, "regions", image)
        outline(axes, left + side + GAP, TITLE, side, edges(first["regions"][i]))
        for x, title in enumerate(columns):
            for y, layer in enumerate(layers):
                place = (left + x * (panel + GAP), head + y * (panel + GAP))
                picture(axes, *place, panel, "" if y else wrapped(title), _painted(maps[x][i, y]))
                if x == i == 0:
                    line_name(axes, place[0], place[1] + panel / 2, f"layer {layer}")
    note(axes, GAP, height, words)
    save(figure, paths)


def matched(columns: Sequence[Array]) -> list[Array]:
    """Clusters (S, L, H, W) of each mixer, named like the first mixer's, image by image, by overlap in all layers."""
    return [
        np.stack([recoloured(maps, reference) for maps, reference in zip(column, columns[0], strict=True)])
        for column in columns
    ]


def wrapped(title: str) -> str:
    """A title in lines of one word, broken at spaces and behind hyphens, for narrow columns."""
    return "\n".join(re.findall(r"[^\s-]+-?", title))


def spectra_figure(arrays: Mapping[str, Array], said: str, paths: Sequence[Path]) -> None:
    """Figure 6: magnitudes after soft-thresholding and, below, the fraction of values set to zero, for each layer.

    Frequency 0 is in the centre. `arrays` are those of Spectra.compute, `said` stands below. Black is zero everywhere.
    """
    height, width = (int(extent) for extent in arrays["grid"])
    magnitude, zeroed = (
        centred_spectrum(full_spectrum(arrays[key].astype(np.float64), width)) for key in ("magnitude", "zeroed")
    )
    largest = magnitude.max() or 1.0
    smallest = max(magnitude[magnitude > 0].min(initial=largest), largest / 10**DECADES)
    count = len(magnitude)
    inches = min(WIDTH, 1.3 + 1.2 * count)
    words = in_lines(said, inches)
    figure = Figure(figsize=(inches, 3.1 + len(words) * LINE), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False, sharex=True, sharey=True)
    rows = (
        ("magnitude", magnitude, LogNorm(min(smallest, largest / 10), largest), "min"),
        ("fraction set to zero", zeroed, Normalize(0, zeroed.max() or 1.0), "neither"),
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
    figure.supylabel("vertical cycles per image", fontsize=FONT)
    figure.supxlabel("\n".join(["horizontal cycles per image", *words]), fontsize=FONT)
    save(figure, paths)


def _painted(labels: Array) -> Array:
    """Labels (H, W) in the clusters' colours, uint8 (H, W, 3)."""
    painted: Array = ListedColormap(CLUSTERS)(labels.astype(int), bytes=True)[..., :3]
    return painted


def edges(labels: Array) -> list[list[tuple[float, float]]]:
    """Lines between tokens (H, W) of different labels, as points (x, y) in shares of the grid."""
    high, wide = labels.shape
    below, right = np.argwhere(labels[1:] != labels[:-1]), np.argwhere(labels[:, 1:] != labels[:, :-1])
    lines = [[(j / wide, (i + 1) / high), ((j + 1) / wide, (i + 1) / high)] for i, j in below]
    return lines + [[((j + 1) / wide, i / high), ((j + 1) / wide, (i + 1) / high)] for i, j in right]
