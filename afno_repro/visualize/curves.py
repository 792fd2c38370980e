"""Curves: cost against tokens, quality against parameters (Figure 1), ablations (Figure 4), and training."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, NullFormatter, NullLocator

from afno_repro.files import write_atomic
from afno_repro.visualize.marks import Mark, marks

mpl.rcParams["svg.hashsalt"] = "afno_repro"  # the same bytes from the same numbers
METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def fitted_exponent(tokens: Sequence[float], cost: Sequence[float]) -> float:
    """The power of `tokens` that cost grows with: the slope of a least-squares line through the logarithms."""
    slope, _ = np.polyfit(np.log(tokens), np.log(cost), 1)
    return float(slope)


def cost_curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], unit: str, paths: Sequence[Path]
) -> None:
    """Draw (tokens, cost) of each mixer into files, leaving out costs of 0; three sizes or more have an exponent."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (name, (tokens, cost)), mark in zip(series.items(), marks(series), strict=True):
        power = f", tokens^{fitted_exponent(tokens, cost):.2f}" if len(set(tokens)) > 2 else ""
        axes.loglog(tokens, cost, color=mark.color, marker=mark.marker, label=f"{name}{power}")
    axes.set_xlabel("tokens of the finest grid")
    axes.set_ylabel(unit)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, paths)


def save(figure: Figure, paths: Sequence[Path]) -> None:
    """PNG, SVG and PDF files, the same bytes from the same figure."""
    for path in paths:
        data = BytesIO()
        figure.savefig(data, format=path.suffix[1:], dpi=150, metadata=METADATA[path.suffix])
        write_atomic(path, data.getvalue())
        figure.set_layout_engine("none")  # what was laid out once stays


Point = tuple[float, float, float | None]  # x, y, spread of y


def family_curves(
    families: Mapping[str, Sequence[Point]],
    mixers: Mapping[str, str],
    unplaced: Mapping[str, float],
    lost: Sequence[tuple[float, float]],
    labels: tuple[str, str],
    paths: Sequence[Path],
) -> None:
    """A line of points for each family against a logarithmic axis; `unplaced` x values, without y, lie hollow on it.

    `mixers` are those of the families. Points that are `lost` are not shown to learn.
    """
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    for (name, points), mark in zip(families.items(), marks(mixers[name] for name in families), strict=True):
        _errorbars(axes, points, mark, name)
    axes.set_xscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low - (0.25 * (high - low) if unplaced else 0.0), high)  # room for names
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
    axes.set_xticks(ticks := _round_numbers(axes.get_xlim()), [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, paths)


def _errorbars(axes: Axes, points: Sequence[Point], mark: Mark, name: str | None = None) -> None:
    """Points from left to right, each with its spread."""
    x, y, spread = zip(*sorted(points), strict=True)
    bars = [s or 0.0 for s in spread]
    axes.errorbar(x, y, bars, color=mark.color, marker=mark.marker, elinewidth=1, capsize=3, label=name)


def _round_numbers(limits: tuple[float, float]) -> list[float]:
    """1, 2 and 5 times powers of ten between two limits above zero."""
    powers = range(int(np.floor(np.log10(limits[0]))), int(np.ceil(np.log10(limits[1]))) + 1)
    return [n * 10.0**power for power in powers for n in (1, 2, 5) if limits[0] <= n * 10.0**power <= limits[1]]


def _crossed_out(axes: Axes, lost: Sequence[tuple[float, float]]) -> None:
    """Mark points of networks not shown to learn."""
    if lost:
        x, y = zip(*lost, strict=True)
        axes.plot(x, y, "x", color="black", markersize=10, label="not shown to learn", zorder=3)


def ablation_curves(
    curves: Mapping[str, Sequence[Point]],
    lost: Mapping[str, Sequence[tuple[float, float]]],
    mixer: str,
    axis: str,
    linear_below: float | None,
    peak: float | None,
    paths: Sequence[Path],
) -> None:
    """A panel for each column against an option, symmetric-logarithmic where it reaches zero; `peak` is the paper's.

    Points that are `lost`, by column, are not shown to learn.
    """
    figure = Figure(figsize=(3.8 * len(curves), 3.6), layout="constrained")
    (mark,) = marks([mixer])
    for axes, (title, points) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        x = [point[0] for point in sorted(points)]
        _errorbars(axes, points, mark)
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


def training_curves(
    runs: Mapping[str, Sequence[Log]], mixers: Mapping[str, str], networks: str, metric: str, paths: Sequence[Path]
) -> None:
    """The loss of each row against steps, beside it a metric of the validation where some log has it.

    `runs` are logs by row title and seed, `mixers` those of the rows; all seeds of a row have one color.
    """
    panels = (
        ["training loss", f"{metric} of the validation images"]
        if any(log[1] for logs in runs.values() for log in logs)
        else ["training loss"]
    )
    figure = Figure(figsize=(4.5 * len(panels), 4.2), layout="constrained")
    drawn = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
    for part, (axes, title) in enumerate(zip(drawn, panels, strict=True)):
        for (name, logs), mark in zip(runs.items(), marks(mixers[name] for name in runs), strict=True):
            for i, log in enumerate(logs):
                label = f"{name}, n = {len(logs)}" if i == 0 else None
                axes.plot(
                    *zip(*log[part], strict=True),
                    color=mark.color,
                    marker=mark.marker if part else "",  # where it was evaluated
                    linestyle=mark.line,
                    label=label if part == len(panels) - 1 else None,
                )
        axes.set(xlabel="step", ylabel=f"{title}\n{networks}", yscale="linear" if part else "log")
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.grid(visible=True, which="major", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, title="a line for each of n seeds", title_fontsize=8)
    save(figure, paths)
