"""From an example of any size to a square one: crops, resizing, and the augmentations that a spec names.

An example is a uint8 image (3, height, width) and its label: a class, a map of classes (height, width), or None. What
moves pixels moves a map with them. Every random choice comes from the generator handed in.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from afno_repro.errors import require

IGNORED = 255  # the class of pixels that neither loss nor metrics look at
IMAGENET_GREY = [124, 116, 104]  # its mean colour
Example = tuple[Tensor, Tensor | None]
Interpolation = Literal["bilinear", "bicubic"]


def resize(image: Tensor, height: int, width: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """Antialiased resizing of a uint8 image."""
    if image.shape[1:] == (height, width):
        return image
    return interpolate(image[None], size=(height, width), mode=interpolation, antialias=True, align_corners=False)[0]


def resize_example(example: Example, height: int, width: int) -> Example:
    """An example at another size; a map of classes takes the nearest pixel's."""
    image, label = example
    if label is not None and label.ndim == 2:
        label = interpolate(label[None, None], size=(height, width), mode="nearest-exact")[0, 0]
    return resize(image, height, width), label


def cut(example: Example, top: int, left: int, side: int) -> Example:
    """The square of `side` pixels at (top, left)."""
    image, label = example
    window = (..., slice(top, top + side), slice(left, left + side))
    return image[window], label[window] if label is not None and label.ndim == 2 else label


def center_square(image: Tensor, size: int, crop_fraction: float, interpolation: Interpolation) -> Tensor:
    """The central square of crop_fraction of the short side, at size x size pixels."""
    side = round(min(image.shape[1:]) * crop_fraction)
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    return resize(image[:, top : top + side, left : left + side], size, size, interpolation)


def random_square(example: Example, size: int, smallest: float, largest: float, rng: np.random.Generator) -> Example:
    """A square anywhere in the image, its side log-uniform between two numbers of pixels, at size x size pixels."""
    extents = example[0].shape[1:]
    largest = min(largest, *extents)
    side = round(float(np.exp(rng.uniform(np.log(min(smallest, largest)), np.log(largest)))))
    top, left = (int(rng.integers(extent - side + 1)) for extent in extents)
    return resize_example(cut(example, top, left, side), size, size)


def none(example: Example, size: int, rng: np.random.Generator) -> Example:
    """The example as it is."""
    return example


def flip(example: Example, size: int, rng: np.random.Generator) -> Example:
    """Mirror left and right with probability 1/2."""
    if rng.random() >= 0.5:
        return example
    image, label = example
    return image.flip(-1), label.flip(-1) if label is not None and label.ndim == 2 else label


def random_crop(example: Example, size: int, rng: np.random.Generator, side: list[float]) -> Example:
    """A random square, its side log-uniform between two fractions of the short side, mirrored with probability 1/2."""
    short = min(example[0].shape[1:])
    return flip(random_square(example, size, side[0] * short, side[1] * short, rng), size, rng)


def scale_crop(example: Example, size: int, rng: np.random.Generator, scale: list[float], photometric: bool) -> Example:
    """A size x size piece of the image at a random scale, mirrored half the time (Cityscapes' usual recipe, A.3).

    Where the scaled image is smaller than the piece, the rest is black and its label ignored. `photometric` also
    changes brightness, contrast, saturation and hue.
    """
    side = round(size / rng.uniform(scale[0], scale[1]))  # cut first, then scale: less to resize
    image, label = example
    missing = [max(0, side - extent) for extent in image.shape[1:]]
    padding = (0, missing[1], 0, missing[0])
    label = pad(label, padding, value=IGNORED) if label is not None and label.ndim == 2 else label
    image = pad(image, padding)
    top, left = (int(rng.integers(extent - side + 1)) for extent in image.shape[1:])
    image, label = flip(resize_example(cut((image, label), top, left, side), size, size), size, rng)
    if photometric:
        from torchvision.transforms import v2  # not above: most recipes do without

        image = drawn_from(rng, v2.RandomPhotometricDistort(), image)
    return image, label


def rand_augment(
    example: Example,
    size: int,
    rng: np.random.Generator,
    area: list[float],
    operations: int,
    magnitude: int,
    levels: int,
    translation: float,
    probability: float,
    fill: Literal["black", "mean"],
) -> Example:
    """A random resized crop of a share of the area, mirrored half the time, then RandAugment (Cubuk et al. 2020).

    Of `levels` magnitudes, from 0 on, the last is 30 degrees, a shear of 0.3, a shift by the share `translation` of the
    side and a change of colour of 0.9. Each operation is done with a probability; what it uncovers is black or of
    ImageNet's mean colour.
    """
    from torchvision.transforms import v2

    from afno_repro.data.rand_augment import RandAugment

    crop = v2.RandomResizedCrop(
        size, scale=(area[0], area[1]), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
    )
    operation: nn.Module = RandAugment(magnitude, levels, translation, IMAGENET_GREY if fill == "mean" else None)
    operation = operation if probability == 1 else v2.RandomApply([operation], probability)
    image, label = example
    return drawn_from(rng, v2.Compose([crop, v2.RandomHorizontalFlip(), *[operation] * operations]), image), label


def check_augment(name: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigError for values that are of the right types and no augmentation can use."""
    spans = {"side": 1.0, "scale": inf, "area": 1.0}  # a smallest and a largest value; the most that the latter may be
    checks = [
        (len(span) == 2 and 0 < span[0] <= span[-1] <= spans[key], key, f"two rising numbers in (0, {spans[key]:g}]")
        for key, span in options.items()
        if key in spans
    ]
    if name == "rand_augment":
        levels = options["levels"]
        checks += [
            (options["operations"] > 0, "operations", "at least 1"),
            (levels > 1, "levels", "at least 2"),
            (0 <= options["magnitude"] < levels, "magnitude", f"in [0, {levels - 1}], below levels"),
            *((0 <= options[key] <= 1, key, "in [0, 1]") for key in ("translation", "probability")),
        ]
    require(*((holds, key, f"{name}: must be {allowed}, is {options[key]}") for holds, key, allowed in checks))


def drawn_from(rng: np.random.Generator, transform: Callable[..., Any], *inputs: Tensor) -> Any:
    """What a transform that draws from PyTorch's generator makes of its inputs, with that generator seeded by ours."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))  # no other device's generator
        return transform(*inputs)


WHOLE = ("none", "flip")  # augmentations that leave an image at its size
AUGMENTS: dict[str, Callable[..., Example]] = {
    "none": none,
    "flip": flip,
    "random_crop": random_crop,
    "scale_crop": scale_crop,
    "rand_augment": rand_augment,
}
