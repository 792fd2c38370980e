"""Curves: cost against tokens on two logarithmic axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

mpl.rcParams["svg.hashsalt"] = "afno_repro"  # the same bytes from the same numbers
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
MARKERS = "osD^vPX"


def fitted_exponent(tokens: Sequence[float], cost: Sequence[float]) -> float:
    """The power of `tokens` that cost grows with: the slope of a least-squares line through the logarithms."""
    slope, _ = np.polyfit(np.log(tokens), np.log(cost), 1)
    return float(slope)


def cost_curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], unit: str, path: Path) -> None:
    """Draw (tokens, cost) of each mixer with its fitted exponent into a PNG or SVG file; points of cost 0 are left out."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (name, (tokens, cost)), color, marker in zip(series.items(), COLORS, MARKERS, strict=False):
        axes.loglog(tokens, cost, color=color, marker=marker, label=f"{name}, tokens^{fitted_exponent(tokens, cost):.2f}")
    axes.set_xlabel("tokens of the finest grid")
    axes.set_ylabel(unit)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
