"""Images in folders, by class or flat: which there are, which are trained on and evaluated, and their labels.

`train/CLASS/NAME` and `val/CLASS/NAME`, or `train/NAME` and `val/NAME`: flat images have the class FLAT and no labels.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from afno_repro.contents import Contents, named_contents
from afno_repro.data.reading import failures, of_the_system, read_image, size_of
from afno_repro.data.transforms import Interpolation, center_square
from afno_repro.errors import DataError, require

FLAT = ""
SPLITS = ("train", "val")
PLACE = "name its parent folder with --data or AFNO_DATA"
SHOWN = 5  # names in a message
SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
FEW, KEPT_BYTES = 2000, 2**28  # of a set of no more images each process keeps those decoded that fit in
LOOKED_INTO = 1000  # headers that are read to know the sizes of training images
Kind = TypeVar("Kind")
Image = TypeVar("Image")
Square = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Splits:
    """The images of a data set in folders; `listed` gives those of each class of a split's folder, sorted by name."""

    name: str  # in messages
    folder: Path  # that holds train/ and val/
    listed: Mapping[str, Callable[[Path], dict[str, list[Path]]]]  # by split
    hint: str  # what is expected, and where it comes from

    def scan(self, split: str) -> dict[str, list[Path]]:
        """The images of each class, none where it has none; what systems leave in folders is passed over."""
        try:
            return self.listed[split](self.folder / split)
        except OSError as error:
            raise DataError(f"{self.name}: {self.folder / split} cannot be read ({error})") from error

    def classes(self, split: str) -> dict[str, list[Path]]:
        """The images of each class that has some; raises DataError with the layout expected where none has."""
        folder, scanned = self.folder / split, self.scan(split)
        found = {name: files for name, files in scanned.items() if files}
        if not found:
            what = f"{len(scanned)} class folders without images" if scanned else "none of its files is one"
            what = what if folder.is_dir() else "no such folder"
            raise DataError(f"{self.name}: no images in {folder} ({what})\n  {self.hint}")
        return found

    def odd_classes(self) -> Iterator[str]:
        """Class folders that would shift or take away labels: empty ones, and names that differ by case alone."""
        train, val = map(self.scan, SPLITS)
        for split, classes in zip(SPLITS, (train, val), strict=True):
            for name in (name for name, files in classes.items() if not files):
                endings = ", ".join(sorted(SUFFIXES))
                yield f"{self.folder / split / name}: a class without images ({endings}): add some or remove the folder"
        folded = {name.casefold(): name for name in train}
        for name in val:
            other = folded.get(name.casefold())
            if other is not None and name not in train:
                yield (
                    f"{self.folder / 'val' / name}: train/ calls this class {other}: "
                    "names that differ by case are different classes"
                )

    def left_out(self) -> Iterator[str]:
        """What lies among the images and is none: hidden files, those of systems, other endings, files beside
        classes."""
        for split in SPLITS:
            folder, classes = self.folder / split, self.scan(split)
            used = set(chain.from_iterable(classes.values()))
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                inside = sorted(path.iterdir()) if path.is_dir() and path.name in classes else [path]
                yield from (str(each) for each in inside if each not in used)

    def problems(self) -> Iterator[str]:
        """Every class that cannot be used and image that cannot be read: `path: what is wrong`; opens all files."""
        yield from self.odd_classes()
        with ThreadPoolExecutor() as pool:
            for split in SPLITS:
                for files in self.classes(split).values():
                    for told in pool.map(lambda file: failures(read_image, [file]), files):
                        yield from told


def by_class(folder: Path) -> dict[str, list[Path]]:
    """The images of each class folder, none where it has none."""
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return {path.name: sorted(images_in(path)) for path in sorted(found) if not of_the_system(path.name)}


def images_in(folder: Path) -> Iterator[Path]:
    """The image files right in a folder. Raises DataError for a name of one at which no file can be read."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if path.suffix.lower() in SUFFIXES and not of_the_system(entry.name) and not entry.is_dir():
                if not entry.is_file():
                    raise DataError(f"{path}: no file can be read there: a broken link, a pipe or a device")
                yield path


class Folder:
    """Images of a split; the label is the index of their class in the sorted class names of training.

    Training images come whole, for an augmentation to crop (`square` is None); validation images as a square.
    Flat images, and those of which validation has classes that training lacks, have no labels: `classes` is None.
    """

    def __init__(
        self,
        name: str,
        split: str,
        files: Mapping[str, list[Path]],
        classes: Iterable[str] | None,
        square: Square | None,
        side: int | None,
        megapixels: int,
    ):
        self.name, self.split, self.square, self.side, self.megapixels = name, split, square, side, megapixels
        self.files, self._kept = list(chain.from_iterable(files.values())), dict[int, Tensor]()
        self._room = KEPT_BYTES if len(self.files) <= FEW else 0
        self.folders = [folder for folder, inside in files.items() for _ in inside]
        self.labels = None if classes is None else {of: label for label, of in enumerate(classes)}
        self.num_classes = None if self.labels is None else len(self.labels)

    def fingerprint(self, contents: Contents) -> str:
        """SHA-256 of the files' names, their class folders among them, and of their bytes."""
        return named_contents(map(self._name, range(len(self))), self.files, contents)

    def __len__(self) -> int:
        return len(self.files)

    def sizes(self) -> set[tuple[int, int]]:
        """Heights and widths: of whole images, those of the first LOOKED_INTO."""
        if self.side is not None:
            return {(self.side, self.side)}
        return {size_of(file, self.megapixels) for file in self.files[:LOOKED_INTO]}

    def example(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """The image of this index, uint8 (3, height, width), and its class."""
        label = None if self.labels is None else torch.tensor(self.labels[self.folders[index]])
        if index in self._kept:
            return self._kept[index], label
        image = self._read(index)
        if self.square is not None:
            image = self.square(image).clone()  # and nothing of the rest
        if image.nbytes <= self._room:
            self._room -= image.nbytes
            self._kept[index] = image
        return image, label

    def _read(self, index: int) -> Tensor:
        try:
            return read_image(self.files[index], self.megapixels)
        except DataError as error:
            may_go = self.split == "train"
            hint = f"\n  to train without it, add {self._name(index)} to the data's skip in the spec" if may_go else ""
            raise DataError(f"{self.name}: image {index}: {error}{hint}") from error

    def _name(self, index: int) -> str:
        return _name(self.split, self.folders[index], self.files[index])


def _name(split: str, of: str, file: Path) -> str:
    """An image's name below the folder that holds the splits: wherever it lies, its class stands in it."""
    return "/".join(part for part in (split, of, file.name) if part)


def load_folders(
    splits: Splits,
    image_size: int,
    fraction: float,
    seed: int,
    crop_fraction: float,
    skip: list[str],
    interpolation: Interpolation,
    tuning: int | None,
    max_megapixels: int,
) -> tuple[Folder, Folder]:
    """Training and validation images; `fraction` of each class (chosen by `seed`) is trained on.

    `crop_fraction` is the share of the short side that the validation's central square takes, `interpolation` how it is
    resized. `skip` names broken training images, like train/CLASS/NAME.JPEG, to train without; what is evaluated is
    never left out. For choosing settings without a look at the validation images, every `tuning`-th training image by
    name is evaluated in their place, and not trained on. Images of more than `max_megapixels` are refused.
    """
    name = splits.name
    require(*choice_checks(name, fraction, crop_fraction, tuning, max_megapixels))
    train, val = map(splits.classes, SPLITS)
    odd = list(splits.odd_classes())
    if odd:
        raise DataError("\n  ".join([f"{name}: its class folders cannot be used", *odd[:SHOWN]]))
    train, evaluated = _without(train, skip, splits), "val"
    classes = list(train)
    if tuning is not None:
        train, val, evaluated = *held_out(train, tuning), "train"
    labelled = FLAT not in classes and set(val) <= set(classes)
    square = partial(center_square, size=image_size, crop_fraction=crop_fraction, interpolation=interpolation)
    named = classes if labelled else None
    return (
        Folder(name, "train", chosen(train, fraction, seed), named, None, None, max_megapixels),
        Folder(name, evaluated, val, named, square, image_size, max_megapixels),
    )


def choice_checks(
    name: str, fraction: float, crop_fraction: float, tuning: int | None, max_megapixels: int
) -> list[tuple[bool, str, str]]:
    """What `require` holds the numbers to by which images are chosen and cropped."""
    return [
        (0 < fraction <= 1, "fraction", f"{name}: must lie in (0, 1], is {fraction}"),
        (0 < crop_fraction <= 1, "crop_fraction", f"{name}: must lie in (0, 1], is {crop_fraction}"),
        (tuning is None or tuning > 1, "tuning", f"{name}: must be null or at least 2, is {tuning}"),
        (max_megapixels > 0, "max_megapixels", f"{name}: must be at least 1, is {max_megapixels}"),
    ]


def held_out(train: dict[Kind, list[Image]], every: int) -> tuple[dict[Kind, list[Image]], dict[Kind, list[Image]]]:
    """The training images of each class less every so many-th one in their order, and those that are held out."""
    held = set(list(chain.from_iterable(train.values()))[::every])
    return (
        {kind: [image for image in images if image not in held] for kind, images in train.items()},
        {kind: [image for image in images if image in held] for kind, images in train.items()},
    )


def chosen(train: dict[Kind, list[Image]], fraction: float, seed: int) -> dict[Kind, list[Image]]:
    """A share of each class, at least one image, in the order that they had."""
    rng = np.random.default_rng(seed)
    picked = {
        kind: sorted(rng.permutation(len(images))[: max(1, round(fraction * len(images)))])
        for kind, images in train.items()
    }
    return {kind: [train[kind][i] for i in indices] for kind, indices in picked.items()}


def _without(train: dict[str, list[Path]], skip: list[str], splits: Splits) -> dict[str, list[Path]]:
    """The training files less those to skip. Raises ConfigError for a name that is none of them."""
    if not skip:
        return train
    found = {_name("train", of, file) for of, files in train.items() for file in files}
    strange = sorted(set(skip) - found)
    like = f"a name is like {min(found)}"
    require((not strange, "skip", f"{splits.name}: {', '.join(strange[:SHOWN])}: no such training image; {like}"))
    kept = {of: [file for file in files if _name("train", of, file) not in skip] for of, files in train.items()}
    emptied = [of or "any kind" for of, files in kept.items() if not files]
    require((not emptied, "skip", f"{splits.name}: leaves no training image of {', '.join(emptied[:SHOWN])}"))
    return kept
