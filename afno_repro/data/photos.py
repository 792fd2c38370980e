"""Photographs that come inside the installed packages: the inpainting data of the tiny scale. Nothing is downloaded.

Every image is a square crop of random place and size; whole photographs are held out, never crops of a training one.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from afno_repro.contents import Contents
from afno_repro.data.transforms import Example, random_square
from afno_repro.errors import DataError, require

SKIMAGE = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cell": "cell.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "immunohistochemistry": "ihc.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "text": "text.png",
}
PHOTOS = {
    **{name: ("skimage", f"data/{file}") for name, file in SKIMAGE.items()},
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}


class Crops:
    """`count` random square crops of some photographs, image_size pixels a side; a crop depends on its rng alone."""

    num_classes = None
    files: Sequence[Path] = ()

    def __init__(self, names: list[str], count: int, side: list[float], image_size: int):
        self.photographs = [photograph(name) for name in names]
        self.count, self.side, self.image_size = count, side, image_size
        self.content = hashlib.sha256(b"".join(p.numpy().tobytes() for p in self.photographs)).hexdigest()

    def fingerprint(self, contents: Contents) -> str:
        """SHA-256 of the pixels that samples are made of."""
        return self.content

    def __len__(self) -> int:
        return self.count

    def sizes(self) -> set[tuple[int, int]]:
        """Heights and widths of the crops."""
        return {(self.image_size, self.image_size)}

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """The crop of this index: uint8 (3, image_size, image_size), without a label."""
        source = self.photographs[index % len(self.photographs)]
        return random_square((source, None), self.image_size, self.side[0], self.side[1], rng)


def photos(
    image_size: int,
    fraction: float,
    seed: int,
    root: Path,
    train: list[str],
    test: list[str],
    train_crops: int,
    test_crops: int,
    side: list[float],
) -> tuple[Crops, Crops]:
    """Training and test crops; `train` and `test` name photographs, `side` is the range of the crops' sides."""
    unknown = sorted({*train, *test} - set(PHOTOS))
    shared = sorted(set(train) & set(test))
    require(
        (
            not unknown,
            "train" if set(unknown) & set(train) else "test",
            f"photos: there is no {', '.join(unknown)}; there are {', '.join(PHOTOS)}",
        ),
        (bool(train) and bool(test), "train" if not train else "test", "photos: at least one photograph is needed"),
        (not shared, "test", f"photos: {', '.join(shared)} must not be both trained and tested on"),
        (train_crops > 0, "train_crops", f"photos: must be at least 1, is {train_crops}"),
        (test_crops > 0, "test_crops", f"photos: must be at least 1, is {test_crops}"),
        (
            len(side) == 2 and 1 <= side[0] <= side[1],
            "side",
            f"photos: must be two ascending numbers of pixels, is {side}",
        ),
        (fraction == 1, "fraction", f"photos: only 1 is possible, is {fraction}"),
    )
    return Crops(train, train_crops, side, image_size), Crops(test, test_crops, side, image_size)


@lru_cache
def photograph(name: str) -> Tensor:
    """One photograph: uint8 (3, height, width), grey ones repeated to three channels."""
    package, file = PHOTOS[name]
    spec = find_spec(package)
    path = (
        Path(spec.submodule_search_locations[0]) / file
        if spec and spec.submodule_search_locations
        else Path(package) / file
    )
    if not path.is_file():
        raise DataError(
            f"the photograph {name!r} should be inside the installed package {package} at {file}, but is not there"
        )
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
