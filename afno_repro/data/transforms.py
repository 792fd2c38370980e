"""From an image of any size to a square one: crops, resizing, and the augmentations that a spec names.

Images are uint8 (3, height, width). Every random choice comes from the generator handed in.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bilinear resizing of a uint8 image."""
    if image.shape[1:] == (height, width):
        return image
    resized = interpolate(image[None].float(), size=(height, width), mode="bilinear", antialias=True, align_corners=False)[0]
    return resized.round().clamp(0, 255).to(torch.uint8)


def center_square(image: Tensor, size: int, crop_fraction: float) -> Tensor:
    """The central square of crop_fraction of the short side, at size x size pixels."""
    side = round(min(image.shape[1:]) * crop_fraction)
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    return resize(image[:, top : top + side, left : left + side], size, size)


def random_square(image: Tensor, size: int, smallest: float, largest: float, rng: np.random.Generator) -> Tensor:
    """A square anywhere in the image, its side log-uniform between two numbers of pixels, at size x size pixels."""
    largest = min(largest, *image.shape[1:])
    side = round(float(np.exp(rng.uniform(np.log(min(smallest, largest)), np.log(largest)))))
    top, left = (int(rng.integers(extent - side + 1)) for extent in image.shape[1:])
    return resize(image[:, top : top + side, left : left + side], size, size)


def flip(image: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Mirror left and right with probability 1/2."""
    return image.flip(-1) if rng.random() < 0.5 else image


def random_crop(image: Tensor, size: int, rng: np.random.Generator, side: list[float]) -> Tensor:
    """A random square, its side log-uniform between two fractions of the short side, mirrored with probability 1/2."""
    short = min(image.shape[1:])
    return flip(random_square(image, size, side[0] * short, side[1] * short, rng), size, rng)


AUGMENTS: dict[str, Callable[..., Tensor]] = {"flip": flip, "random_crop": random_crop}
