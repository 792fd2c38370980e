"""Grids of small images: inpainting triptychs and segmentation overlays, one line of images for each mixer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from afno_repro.visualize.board import board, line_name, picture
from afno_repro.visualize.curves import COLORS, save

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
IGNORED = 255
SIDE, GAP, TITLE, CHARACTER = (
    0.9,
    0.06,
    0.2,
    0.075,
)  # inches: a picture, between pictures, above them, a letter of a line's name
EXTRA = (
    "#999999",
    "#F0E442",
    "#882255",
    "#44AA99",
    "#332288",
    "#DDCC77",
    "#117733",
    "#661100",
    "#6699CC",
    "#AA4466",
    "#4477AA",
    "#CCBB44",
    "#BBBBBB",
)


def triptych_figure(rows: Mapping[str, Arrays], paths: Sequence[Path]) -> None:
    """Masked, reconstructed and true images side by side, for each mixer a line."""
    lines = {
        title: [a[name][i] for i in range(len(a["true"])) for name in ("masked", "rebuilt", "true")]
        for title, a in rows.items()
    }
    count = len(next(iter(rows.values()))["true"])
    grid(lines, ["masked", "rebuilt", "true"] * count, paths)


def overlay_figure(rows: Mapping[str, Arrays], paths: Sequence[Path]) -> None:
    """Images, their true maps and each mixer's prediction: a line of images, one of labels, then one for each mixer."""
    first = next(iter(rows.values()))
    lines: dict[str, list[Any]] = {"image": list(first["true"]), "label": [colours(x) for x in first["label"]]}
    for title, arrays in rows.items():
        lines[title] = [
            np.where(label[..., None] == IGNORED, 255, colours(p))
            for p, label in zip(arrays["prediction"], arrays["label"], strict=True)
        ]
    grid(lines, [""] * len(first["true"]), paths)


def colours(classes: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """A map of classes as colours, the ignored ones white."""
    palette = np.array([to_rgb(color) for color in (*COLORS, *EXTRA)])
    shown = palette[classes % len(palette)]
    shown[classes == IGNORED] = 1.0
    pixels: np.ndarray[Any, Any] = (255 * shown).round().astype(np.uint8)
    return pixels


def grid(lines: Mapping[str, Sequence[Any]], titles: Sequence[str], paths: Sequence[Path]) -> None:
    """Images in lines with a name each; titles stand above the first line."""
    margin = CHARACTER * max(len(name) for name in lines) + GAP
    figure, axes = board(margin + len(titles) * (SIDE + GAP), TITLE + len(lines) * (SIDE + GAP))
    for y, (name, images) in enumerate(lines.items()):
        top = TITLE + y * (SIDE + GAP)
        for x, image in enumerate(images):
            picture(axes, margin + x * (SIDE + GAP), top, SIDE, "" if y else titles[x], image)
        line_name(axes, margin, top + SIDE / 2, name)
    save(figure, paths)
