"""Curves: cost against tokens, quality against parameters (Figure 1), ablations (Figure 4), and training."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afno_repro.files import write_atomic

mpl.rcParams["svg.hashsalt"] = "afno_repro"  # the same bytes from the same numbers
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
MARKERS = "osD^vPX"


def fitted_exponent(tokens: Sequence[float], cost: Sequence[float]) -> float:
    """The power of `tokens` that cost grows with: the slope of a least-squares line through the logarithms."""
    slope, _ = np.polyfit(np.log(tokens), np.log(cost), 1)
    return float(slope)


def cost_curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], unit: str, paths: Sequence[Path]
) -> None:
    """Draw (tokens, cost) of each mixer with its fitted exponent into PNG or SVG files, leaving out costs of 0."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (name, (tokens, cost)), color, marker in zip(series.items(), COLORS, MARKERS, strict=False):
        axes.loglog(
            tokens, cost, color=color, marker=marker, label=f"{name}, tokens^{fitted_exponent(tokens, cost):.2f}"
        )
    axes.set_xlabel("tokens of the finest grid")
    axes.set_ylabel(unit)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, paths)


def save(figure: Figure, paths: Sequence[Path]) -> None:
    """PNG and SVG files, the same bytes from the same figure."""
    for path in paths:
        data = BytesIO()
        figure.savefig(
            data,
            format=path.suffix[1:],
            dpi=150,
            metadata={"Date": None} if path.suffix == ".svg" else {"Software": None},
        )
        write_atomic(path, data.getvalue())
        figure.set_layout_engine("none")  # what was laid out once stays


Point = tuple[float, float, float | None]  # x, y, spread of y


def family_curves(
    families: Mapping[str, Sequence[Point]],
    unplaced: Mapping[str, float],
    lost: Sequence[tuple[float, float]],
    labels: tuple[str, str],
    paths: Sequence[Path],
) -> None:
    """A line of points for each family against a logarithmic axis; `unplaced` x values, without y, lie hollow on it.

    Points that are `lost` did not learn.
    """
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for (name, points), color, marker in zip(families.items(), COLORS, MARKERS, strict=False):
        x, y, spread = zip(*sorted(points), strict=True)
        axes.errorbar(x, y, [s or 0.0 for s in spread], color=color, marker=marker, capsize=3, label=name)
    axes.set_xscale("log")
    for i, (name, value) in enumerate(unplaced.items()):
        label = "quoted, without a value" if i == 0 else None
        axes.plot(
            value, 0.02, "o", transform=axes.get_xaxis_transform(), mfc="none", mec="black", clip_on=False, label=label
        )
        axes.annotate(
            name,
            (value, 0.02),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 8),
            textcoords="offset points",
            fontsize=8,
            rotation=60,
        )
    _crossed_out(axes, lost)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, paths)


def _crossed_out(axes: Axes, lost: Sequence[tuple[float, float]]) -> None:
    """Mark points of networks that did not learn."""
    if lost:
        x, y = zip(*lost, strict=True)
        axes.plot(x, y, "x", color="black", markersize=10, label="did not learn", zorder=3)


def ablation_curves(
    curves: Mapping[str, Sequence[Point]],
    lost: Mapping[str, Sequence[tuple[float, float]]],
    axis: str,
    linear_below: float | None,
    peak: float | None,
    paths: Sequence[Path],
) -> None:
    """A panel for each column against an option, symmetric-logarithmic where it reaches zero; `peak` is the paper's.

    Points that are `lost`, by column, did not learn.
    """
    figure = Figure(figsize=(3.6 * len(curves), 3.2), layout="constrained")
    for axes, (title, points), color in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), COLORS, strict=False
    ):
        x, y, spread = zip(*sorted(points), strict=True)
        axes.errorbar(x, y, [s or 0.0 for s in spread], color=color, marker="o", capsize=3)
        if linear_below is None:
            axes.set_xscale("log", base=2)
        else:
            axes.set_xscale("symlog", linthresh=linear_below)
        axes.set_xticks(x, [f"{value:g}" for value in x], fontsize=8)
        _crossed_out(axes, lost.get(title, ()))
        if peak is not None:
            axes.axvline(peak, color="black", linestyle=":", label="the paper's peak")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
        axes.set(xlabel=axis, ylabel=title)
        axes.grid(visible=True, alpha=0.3)
    save(figure, paths)


Log = tuple[Sequence[tuple[float, float]], ...]  # (step, training loss), then (step, metric of the validation)


def training_curves(runs: Mapping[str, Sequence[Log]], metric: str, paths: Sequence[Path]) -> None:
    """The loss of each row against steps, beside it a metric of the validation where some log has it.

    `runs` are logs by row title and seed; all seeds of a row have one color.
    """
    panels = (
        ["training loss", f"{metric} of the validation images"]
        if any(log[1] for logs in runs.values() for log in logs)
        else ["training loss"]
    )
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    drawn = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
    for part, (axes, title) in enumerate(zip(drawn, panels, strict=True)):
        for (name, logs), color in zip(runs.items(), COLORS, strict=False):
            for i, log in enumerate(logs):
                marker = "o" if part else ""  # where it was evaluated
                axes.plot(*zip(*log[part], strict=True), color=color, marker=marker, label=name if i == 0 else None)
        axes.set(xlabel="step", ylabel=title, yscale="linear" if part else "log")
        axes.grid(visible=True, which="major", alpha=0.3)
    figure.axes[0].legend(fontsize=8, title="a line for each seed", title_fontsize=8)
    save(figure, paths)
