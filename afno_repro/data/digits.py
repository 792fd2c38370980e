"""Handwritten digits that come inside scikit-learn: the classification data of the tiny scale. Nothing is downloaded.

1797 grey images of 8x8 pixels, ten classes (Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from afno_repro.contents import Contents
from afno_repro.data.transforms import resize
from afno_repro.errors import require

COUNT = 1797
INK = 16  # the brightest value of the 8x8 images


class Digits:
    """Grey images (N, size, size), uint8, and the digit on each; the images have no randomness."""

    files: Sequence[Path] = ()

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images, labels
        self.num_classes: int | None = 10
        self.content = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()

    def fingerprint(self, contents: Contents) -> str:
        """SHA-256 of the pixels that samples are made of."""
        return self.content

    def __len__(self) -> int:
        return len(self.images)

    def sizes(self) -> set[tuple[int, int]]:
        """Heights and widths of the images."""
        return {(self.images.shape[1], self.images.shape[2])}

    def example(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """The image of this index, uint8 (3, size, size), and its digit."""
        return self.images[index].repeat(3, 1, 1), self.labels[index]


def digits(image_size: int, fraction: float, seed: int, root: Path, train_images: int) -> tuple[Digits, Digits]:
    """`train_images` digits, chosen by `seed`, to train on, and all others to test on; enlarged bilinearly."""
    require(
        (
            0 < train_images < COUNT,
            "train_images",
            f"digits: must lie in [1, {COUNT - 1}], so that some of the {COUNT} are left, is {train_images}",
        ),
        (fraction == 1, "fraction", f"digits: only 1 is possible, is {fraction}"),
    )
    from sklearn.datasets import load_digits  # slow to import

    found = load_digits()
    small = torch.from_numpy(found.images * (255 / INK)).round().to(torch.uint8)  # N 8 8
    images, labels = resize(small, image_size, image_size), torch.from_numpy(found.target.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(COUNT))
    train, test = order[:train_images], order[train_images:]
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])
