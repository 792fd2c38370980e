"""Grids of small images: inpainting triptychs and segmentation overlays, one line of images for each mixer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from afno_repro.visualize.board import LINE, board, in_lines, legend, legend_rows, line_name, note, picture, room_for
from afno_repro.visualize.curves import save

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
IGNORED = 255
SIDE, GAP, TITLE = 0.9, 0.06, 0.2  # inches: a picture, between pictures, above them
# Of classes: Tol's muted and light schemes (2021), whose colours are no mixer's.
PALETTE = (
    *("#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#AA4499", "#44AA99", "#999933", "#882255"),
    *("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#BBCC33", "#AAAA00", "#666666", "#DDDDDD"),
)


def triptych_figure(rows: Mapping[str, Arrays], said: str, paths: Sequence[Path]) -> None:
    """Masked, reconstructed and true images side by side, for each mixer a line; `said` stands below."""
    lines = {
        title: [a[name][i] for i in range(len(a["true"])) for name in ("masked", "rebuilt", "true")]
        for title, a in rows.items()
    }
    count = len(next(iter(rows.values()))["true"])
    grid(lines, ["masked", "rebuilt", "true"] * count, said, {}, paths)


def overlay_figure(rows: Mapping[str, Arrays], said: str, classes: Sequence[str], paths: Sequence[Path]) -> None:
    """Images, their true maps and each mixer's prediction: a line of images, one of labels, then one for each mixer.

    `classes` are names by label, for the legend, and `said` stands below.
    """
    first = next(iter(rows.values()))
    lines: dict[str, list[Any]] = {"image": list(first["true"]), "label": [colours(x) for x in first["label"]]}
    for title, arrays in rows.items():
        lines[title] = [
            np.where(label[..., None] == IGNORED, 255, colours(p))
            for p, label in zip(arrays["prediction"], arrays["label"], strict=True)
        ]
    painted = np.unique([first["label"], *(arrays["prediction"] for arrays in rows.values())])
    shown = {_name(classes, i): PALETTE[i % len(PALETTE)] for i in painted.tolist() if i != IGNORED}
    grid(lines, [""] * len(first["true"]), said, shown | {"not labelled": "white"}, paths)


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if label < len(classes) else f"class {label}"


def colours(classes: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """A map of classes as colours, the ignored ones white."""
    palette = np.array([to_rgb(color) for color in PALETTE])
    shown = palette[classes % len(palette)]
    shown[classes == IGNORED] = 1.0
    pixels: np.ndarray[Any, Any] = (255 * shown).round().astype(np.uint8)
    return pixels


def grid(
    lines: Mapping[str, Sequence[Any]],
    titles: Sequence[str],
    said: str,
    colors: Mapping[str, str],
    paths: Sequence[Path],
) -> None:
    """Images in lines with a name each; titles stand above the first line, a legend of colours and a note below."""
    names = {name: name.replace(" (", "\n(") for name in lines}
    margin = room_for(list(names.values())) + 2 * GAP
    width, high = margin + len(titles) * (SIDE + GAP), TITLE + len(lines) * (SIDE + GAP)
    room = width - 2 * GAP
    rows, words = len(legend_rows(list(colors), room)) if colors else 0, in_lines(said, room)
    figure, axes = board(width, high + (rows + len(words)) * LINE + GAP)
    for y, (name, images) in enumerate(lines.items()):
        top = TITLE + y * (SIDE + GAP)
        for x, image in enumerate(images):
            picture(axes, margin + x * (SIDE + GAP), top, SIDE, "" if y else titles[x], image)
        line_name(axes, margin, top + SIDE / 2, names[name])
    legend(axes, GAP, high, list(colors.values()), list(colors), room)
    note(axes, GAP, high + rows * LINE, words)
    save(figure, paths)
