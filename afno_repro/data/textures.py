"""Texture mosaics: segmentation data of any resolution with exact labels, made from photographs inside scikit-image.

A mosaic is a set of warped Voronoi regions, each filled with one homogeneous texture (Randen & Husoy, "Filtering for
texture classification", TPAMI 1999; Haindl & Mikes, "Texture segmentation benchmark", ICPR 2008). Training mosaics are
cut from one half of each photograph, test mosaics from the other. Each half has every grey level equally often, so that
a pixel's grey tells nothing.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import find_objects, gaussian_filter, maximum_filter, minimum_filter, zoom
from torch import Tensor

from afno_repro.contents import Contents
from afno_repro.data.photos import photograph
from afno_repro.data.transforms import IGNORED, resize
from afno_repro.errors import require

TEXTURES = ("brick", "grass", "gravel", "moon", "immunohistochemistry", "hubble", "text", "coins")
TRAIN, TEST = 0, 1  # also the index of the half
GAP = 1 / 16  # share of a photograph's width that lies between its halves
KNOTS, WARP = 4, 0.06  # the warp: inner knots a side, standard deviation of a knot's shift in mosaic sides
CANDIDATES = 8  # a Voronoi seed is the one of these that is farthest from the seeds so far
Array = np.ndarray[Any, Any]


class Mosaics:
    """`count` mosaics; each follows from (seed, split, index), is made when first asked for, and is kept."""

    files: Sequence[Path] = ()

    def __init__(
        self,
        split: int,
        count: int,
        side: int,
        seed: int,
        textures: list[str],
        regions: int,
        shrink: float,
        border: int,
    ):
        self.split, self.count, self.side, self.seed = split, count, side, seed
        self.textures, self.regions, self.shrink, self.border = textures, regions, shrink, border
        self.num_classes: int | None = len(textures)
        self.made: dict[int, tuple[Array, Array]] = {}
        options = repr((split, count, side, seed, textures, regions, shrink, border))
        self.content = hashlib.sha256(
            b"".join([options.encode(), *(photograph(name).numpy().tobytes() for name in textures)])
        ).hexdigest()

    def fingerprint(self, contents: Contents) -> str:
        """SHA-256 of the pixels that samples are made of."""
        return self.content

    def __len__(self) -> int:
        return self.count

    def sizes(self) -> set[tuple[int, int]]:
        """Heights and widths of the mosaics."""
        return {(self.side, self.side)}

    def example(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """The mosaic of this index, uint8 (3, side, side), and its classes, uint8 (side, side), 255 near others."""
        if index not in self.made:
            self.made[index] = self.mosaic(np.random.default_rng([self.seed, self.split, index]))
        grey, labels = self.made[index]
        return torch.tensor(grey).repeat(3, 1, 1), torch.tensor(labels)

    def mosaic(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Grey levels and labels of a new mosaic. As many different textures as possible take part."""
        region = voronoi(self.regions, self.side, rng)
        rounds = -(-self.regions // len(self.textures))
        classes = np.concatenate([rng.permutation(len(self.textures)) for _ in range(rounds)])[: self.regions]
        grey = np.zeros(region.shape, dtype=np.uint8)
        for number, box in enumerate(find_objects(region + 1)):  # find_objects counts from 1
            inside = region[box] == number
            half = halves(self.textures[classes[number]], self.shrink)[self.split]
            grey[box][inside] = patch(half, inside.shape[0], inside.shape[1], rng)[inside]
        near = 2 * self.border + 1
        meets = maximum_filter(region, near) != minimum_filter(region, near)
        return grey, np.where(meets, IGNORED, classes[region]).astype(np.uint8)


def textures(
    image_size: int,
    fraction: float,
    seed: int,
    root: Path,
    textures: list[str],
    side: int,
    train_images: int,
    test_images: int,
    regions: int,
    zoom: float,
    border: int,
) -> tuple[Mosaics, Mosaics]:
    """Training and test mosaics of `side` x `side` pixels and `regions` regions; a class is an index in `textures`.

    A side above the image size leaves it to an augmentation to cut the training mosaics. Photographs are shrunk by the
    factor `zoom`; pixels with another region at most `border` pixels away are ignored.
    """
    unknown = [name for name in textures if name not in TEXTURES]
    most_regions, widest = max(1, (side // 8) ** 2), side // 8
    require(
        (not unknown, "textures", f"textures: there is no {', '.join(unknown)}; there are {', '.join(TEXTURES)}"),
        (
            len(set(textures)) == len(textures) >= 2,
            "textures",
            f"textures: at least two different ones are needed, is {textures}",
        ),
        (side >= image_size, "side", f"textures: must be at least the image size {image_size}, is {side}"),
        (train_images > 0, "train_images", f"textures: must be at least 1, is {train_images}"),
        (test_images > 0, "test_images", f"textures: must be at least 1, is {test_images}"),
        (
            1 <= regions <= most_regions,
            "regions",
            f"textures: must lie in [1, {most_regions}] at {side} pixels, is {regions}",
        ),
        (0.1 <= zoom <= 1, "zoom", f"textures: must lie in [0.1, 1], is {zoom}"),
        (0 <= border <= widest, "border", f"textures: must lie in [0, {widest}] at {side} pixels, is {border}"),
        (fraction == 1, "fraction", f"textures: only 1 is possible, is {fraction}"),
    )
    train, test = (
        Mosaics(split, n, side, seed, textures, regions, zoom, border)
        for split, n in ((TRAIN, train_images), (TEST, test_images))
    )
    return train, test


def voronoi(regions: int, size: int, rng: np.random.Generator) -> Array:
    """The number of the region at each pixel: that of the nearest seed, after the pixels were shifted smoothly.

    The shift is zero along the edge, so the shifted pixels still cover the square and no seed is left without any.
    """
    seeds = rng.random((1, 2))
    while len(seeds) < regions:
        candidates = rng.random((CANDIDATES, 2))
        distance = np.linalg.norm(candidates[:, None] - seeds, axis=-1).min(axis=1)
        seeds = np.vstack([seeds, candidates[distance.argmax()]])
    knots = np.pad(rng.normal(0, WARP, (2, KNOTS, KNOTS)), ((0, 0), (1, 1), (1, 1)))
    shift = zoom(knots, (1, size / (KNOTS + 2), size / (KNOTS + 2)), order=3)
    y, x = np.mgrid[:size, :size] / (size - 1) + shift
    nearest: Array = np.argmin([(y - row) ** 2 + (x - column) ** 2 for row, column in seeds], axis=0)
    return nearest


def patch(half: Array, height: int, width: int, rng: np.random.Generator) -> Array:
    """A random rectangle of a half, continued by mirroring where it is too small; mirrored with probability 1/2."""
    missing = [max(0, need - have) for need, have in zip((height, width), half.shape, strict=True)]
    whole = np.pad(half, [(0, m) for m in missing], mode="symmetric")
    top, left = rng.integers(whole.shape[0] - height + 1), rng.integers(whole.shape[1] - width + 1)
    cut = whole[top : top + height, left : left + width]
    return cut[:, ::-1] if rng.random() < 0.5 else cut


@lru_cache
def halves(name: str, shrink: float) -> tuple[Array, Array]:
    """The left and the right part of a shrunk photograph with a gap between them, each equalised on its own."""
    source = photograph(name)
    height, width = (round(extent * shrink) for extent in source.shape[1:])
    red, green, blue = resize(source, height, width).numpy().astype(np.float64)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    side = round(width * (1 - GAP) / 2)
    return equalised(grey[:, :side]), equalised(grey[:, -side:])


def equalised(grey: Array) -> Array:
    """Every one of 256 levels equally often; ties are ordered by their surroundings.

    Coltuc et al., "Exact histogram specification", TIP 2006.
    """
    order = np.lexsort([gaussian_filter(grey, 2).ravel(), gaussian_filter(grey, 1).ravel(), grey.ravel()])
    levels = np.empty(grey.size, dtype=np.uint8)
    levels[order] = np.arange(grey.size) * 256 // grey.size
    return levels.reshape(grey.shape)
