"""An ImageNet-like folder: `imagenet/train/CLASS/*.JPEG` and `imagenet/val/CLASS/*.JPEG` below the data root."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from afno_repro.contents import Contents, names_and_contents
from afno_repro.data.reading import failures, of_the_system, read_image, size_of
from afno_repro.data.transforms import Interpolation, center_square
from afno_repro.errors import DataError, require

LAYOUT = "imagenet/train/CLASS/*.JPEG and imagenet/val/CLASS/*.JPEG"
SOURCE = "ImageNet-1k comes from image-net.org, after registration"
PLACE = "name its parent folder with --data or AFNO_DATA"
SHOWN = 5  # names in a message
SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
LOOKED_INTO = 1000  # headers that are read to know the sizes of training images


class Folder:
    """Images of a folder of class folders; the label is the index in the sorted class names of training.

    Training images come whole, for an augmentation to crop (`square` is None); validation images as a square.
    Where validation has classes that training lacks there are no labels, and `num_classes` is None.
    """

    def __init__(
        self,
        files: list[Path],
        root: Path,
        square: Callable[[Tensor], Tensor] | None,
        side: int | None,
        classes: list[str] | None,
        megapixels: int,
    ):
        self.files, self.square, self.side = files, square, side
        self.labels = None if classes is None else {name: label for label, name in enumerate(classes)}
        self.num_classes = None if classes is None else len(classes)
        self.root, self.megapixels = root, megapixels

    def fingerprint(self, contents: Contents) -> str:
        """SHA-256 of the files' names, their class folders among them, and of their bytes."""
        return names_and_contents(self.files, self.root, contents)

    def __len__(self) -> int:
        return len(self.files)

    def sizes(self) -> set[tuple[int, int]]:
        """Heights and widths: of whole images, those of the first LOOKED_INTO."""
        if self.side is not None:
            return {(self.side, self.side)}
        return {size_of(file, self.megapixels) for file in self.files[:LOOKED_INTO]}

    def example(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """The image of this index, uint8 (3, height, width), and its class."""
        file = self.files[index]
        try:
            image = read_image(file, self.megapixels)
        except DataError as error:
            name = file.relative_to(file.parents[2])
            hint = (
                f"\n  to train without it, add {name} to the data's skip in the spec"
                if name.parts[0] == "train"
                else ""
            )
            raise DataError(f"imagenet: image {index}: {error}{hint}") from error
        label = None if self.labels is None else torch.tensor(self.labels[file.parent.name])
        return image if self.square is None else self.square(image), label


def imagenet(
    image_size: int,
    fraction: float,
    seed: int,
    root: Path,
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
    name is evaluated in their place, and not trained on.
    """
    require(
        (0 < fraction <= 1, "fraction", f"imagenet: must lie in (0, 1], is {fraction}"),
        (0 < crop_fraction <= 1, "crop_fraction", f"imagenet: must lie in (0, 1], is {crop_fraction}"),
        (tuning is None or tuning > 1, "tuning", f"imagenet: must be null or at least 2, is {tuning}"),
        (max_megapixels > 0, "max_megapixels", f"imagenet: must be at least 1, is {max_megapixels}"),
    )
    folder = root / "imagenet"
    train, val = (class_files(folder / split) for split in ("train", "val"))
    odd = list(odd_classes(root))
    if odd:
        raise DataError("\n  ".join(["imagenet: its class folders cannot be used", *odd[:SHOWN]]))
    train = _without(train, skip, folder)
    names, evaluated = ([files[0].parent.name for files in split] for split in (train, val))
    classes = names if set(evaluated) <= set(names) else None
    if tuning is not None:
        held = set([file for files in train for file in files][::tuning])
        train, val = [[f for f in files if f not in held] for files in train], [sorted(held)]
        classes = names
    rng = np.random.default_rng(seed)
    kept = [
        files[i] for files in train for i in sorted(rng.permutation(len(files))[: max(1, round(fraction * len(files)))])
    ]
    square = partial(center_square, size=image_size, crop_fraction=crop_fraction, interpolation=interpolation)
    validation = Folder([f for files in val for f in files], folder, square, image_size, classes, max_megapixels)
    return Folder(kept, folder, None, None, classes, max_megapixels), validation


def _without(files: list[list[Path]], skip: list[str], folder: Path) -> list[list[Path]]:
    """The training files less those to skip. Raises ConfigError for a name that is none of them."""
    found = {str(file.relative_to(folder)) for each in files for file in each} if skip else set()
    strange = sorted(set(skip) - found)
    hint = (
        f"imagenet: {', '.join(strange[:SHOWN])}: no such training image; "
        f"a name is like {min(found, default='train/CLASS/NAME.JPEG')}"
    )
    require((not strange, "skip", hint))
    kept = [[file for file in each if str(file.relative_to(folder)) not in skip] for each in files] if skip else files
    emptied = [each[0].parent.name for each, left in zip(files, kept, strict=True) if not left]
    require((not emptied, "skip", f"imagenet: leaves no training image of {', '.join(emptied[:SHOWN])}"))
    return kept


def class_files(folder: Path) -> list[list[Path]]:
    """The image files of each class folder, both sorted by name; raises DataError with the layout expected."""
    scanned = scan(folder)
    files = [found for found in scanned.values() if found]
    if not files:
        found = "no such folder" if not folder.is_dir() else f"{len(scanned)} class folders without images"
        raise DataError(
            f"imagenet: no images in {folder} ({found})\n  expected below the data root: {LAYOUT}\n  {SOURCE}; {PLACE}"
        )
    return files


def scan(folder: Path) -> dict[Path, list[Path]]:
    """The images of each class folder, none where it has none; what systems leave in folders is passed over."""
    try:
        return {path: sorted(_images(path)) for path in _class_folders(folder)}
    except OSError as error:
        raise DataError(f"imagenet: {folder} cannot be read ({error})") from error


def _class_folders(folder: Path) -> list[Path]:
    return (
        sorted(path for path in folder.iterdir() if path.is_dir() and not of_the_system(path.name))
        if folder.is_dir()
        else []
    )


def _images(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if path.suffix.lower() in SUFFIXES and not of_the_system(entry.name) and not entry.is_dir():
                if not entry.is_file():
                    raise DataError(f"imagenet: {path}: no file can be read there: a broken link, a pipe or a device")
                yield path


def odd_classes(root: Path) -> Iterator[str]:
    """Class folders that would shift or take away labels: empty ones, and names that differ by case alone."""
    train, val = (scan(root / "imagenet" / split) for split in ("train", "val"))
    for path, files in (train | val).items():
        if not files:
            yield f"{path}: a class without images ({', '.join(sorted(SUFFIXES))}): add some or remove the folder"
    names = {path.name for path in train}
    folded = {name.casefold(): name for name in names}
    for path in val:
        other = folded.get(path.name.casefold())
        if other is not None and path.name not in names:
            yield f"{path}: train/ calls this class {other}: names that differ by case are different classes"


def left_out(root: Path) -> Iterator[str]:
    """What lies among the images and is none: hidden files, those of systems, other endings, files beside classes."""
    for split in ("train", "val"):
        folder = root / "imagenet" / split
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if not path.is_dir() or of_the_system(path.name):
                yield str(path)
                continue
            used = set(_images(path))
            yield from (str(each) for each in sorted(path.iterdir()) if each not in used)


def problems(root: Path) -> Iterator[str]:
    """Every class that cannot be used and image that cannot be read: `path: what is wrong`; opens all files."""
    yield from odd_classes(root)
    with ThreadPoolExecutor() as pool:
        for split in ("train", "val"):
            for files in class_files(root / "imagenet" / split):
                for told in pool.map(lambda file: failures(read_image, [file]), files):
                    yield from told
