"""What a visualisation hands over, and what its computing and its drawing share.

That is label maps that keep their colours, and whole spectra. No torch here: a figure is redrawn from saved arrays.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pictures:
    """Metrics, means over the images; `repeats`, their values by image; `arrays`, what the figure is drawn from."""

    metrics: dict[str, float]
    repeats: dict[str, list[float]]
    arrays: dict[str, Array]


def means(repeats: dict[str, list[float]]) -> dict[str, float]:
    """The mean over images of every metric."""
    return {key: float(np.mean(values)) for key, values in repeats.items()}


def recoloured(labels: Array, reference: Array) -> Array:
    """Label maps of equal shapes, renamed so that most entries have the reference's label (the Hungarian method)."""
    from scipy.optimize import linear_sum_assignment  # not above: most figures do without

    count = 1 + int(max(labels.max(), reference.max()))
    overlap = np.bincount(labels.ravel().astype(int) * count + reference.ravel(), minlength=count**2).reshape(
        count, count
    )
    _, names = linear_sum_assignment(overlap, maximize=True)
    renamed: Array = names.astype(labels.dtype)[labels]
    return renamed


def full_spectrum(half: Array, width: int) -> Array:
    """The whole spectrum (..., H, W) from the half one (..., H, W // 2 + 1) of a real signal of W columns.

    A value at (u, v) also stands at (-u, -v).
    For magnitudes and masks. The columns of frequency 0 and W / 2 are their own mirrors and stay as they are.
    """
    mirrored = np.roll(half[..., ::-1, :], 1, axis=-2)  # row u takes row -u
    return np.concatenate([half, mirrored[..., (width - 1) // 2 : 0 : -1]], axis=-1)


def centred_spectrum(full: Array) -> Array:
    """Frequency (0, 0) moved to (H // 2, W // 2)."""
    shifted: Array = np.fft.fftshift(full, axes=(-2, -1))
    return shifted


def radius(grid: tuple[int, int]) -> Array:
    """The distance of every mode of a whole spectrum from frequency 0, in cycles a token: (H, W)."""
    distance: Array = np.hypot(np.fft.fftfreq(grid[0])[:, None], np.fft.fftfreq(grid[1]))
    return distance
