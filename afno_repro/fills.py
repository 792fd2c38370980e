"""Fillings that learn nothing: what a reader compares an inpainting network with.

Each takes an image (3, height, width) in [0, 1] and a mask (height, width), true where hidden, and returns the image
with the hidden pixels filled from the visible ones.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]


def fill_mean(image: Image, mask: Mask) -> Image:
    """The mean colour of the visible pixels."""
    return np.where(mask, image[:, ~mask].mean(axis=1)[:, None, None], image)


def fill_nearest(image: Image, mask: Mask) -> Image:
    """The colour of the nearest visible pixel."""
    rows, columns = distance_transform_edt(mask, return_distances=False, return_indices=True)
    return image[:, rows, columns]


def fill_harmonic(image: Image, mask: Mask) -> Image:
    """The smoothest filling: every hidden pixel is the mean of its neighbours inside the image (Laplace's equation)."""
    height, width = mask.shape
    unknown = np.full(mask.shape, -1)
    unknown[mask] = np.arange(mask.sum())
    here = np.argwhere(mask)
    degree, right = np.zeros(len(here)), np.zeros((len(here), len(image)))
    entries: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        there = here + step
        inside = np.flatnonzero(((there >= 0) & (there < (height, width))).all(axis=1))
        row, column = there[inside].T
        degree[inside] += 1
        hidden = mask[row, column]
        right[inside[~hidden]] += image[:, row[~hidden], column[~hidden]].T
        entries.append((inside[hidden], unknown[row[hidden], column[hidden]]))
    diagonal = np.arange(len(here))
    rows = np.concatenate([diagonal, *(e[0] for e in entries)])
    columns = np.concatenate([diagonal, *(e[1] for e in entries)])
    values = np.concatenate([degree, *(np.full(len(e[0]), -1.0) for e in entries)])
    solution = spsolve(coo_array((values, (rows, columns))).tocsc(), right)
    filled = image.copy()
    filled[:, mask] = solution.reshape(len(here), -1).T
    return filled


FILLS: dict[str, Callable[[Image, Mask], Image]] = {
    "mean": fill_mean,
    "nearest": fill_nearest,
    "harmonic": fill_harmonic,
}
