"""Few-shot segmentation (Section 5.2, A.4): a folder of plain pairs, or the annotations that DatasetGAN published.

DatasetGAN (Zhang et al., CVPR 2021) annotated a few dozen faces, cars and cats; Table 3 trains on them. Images and
masks are resized whole. In training masks, a class with fewer pixels than `min_pixels` is an annotation's slip and
becomes background.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from afno_repro.data.pairs import ILLEGAL, Labels, Pair, Pairs, Split, labels, load_pairs
from afno_repro.data.reading import of_the_system
from afno_repro.errors import DataError, require

LAYOUT = "FOLDER/{train,test}/NAME.jpg with NAME.png or NAME.npy beside it: one class id a pixel, 255 ignored"
SOURCE = "Any images with masks will do, for example the frontal faces of massimomauro/FASSEG-repository"
GAN_LAYOUT = (
    "datasetgan/annotation/training_data/{face,car,cat}_processed/image_N.jpg with image_maskN.npy\n"
    "  and datasetgan/annotation/testing_data/{face_34_class,car_20_class,cat_16_class}/"
    " with images and .npy masks of the same numbers, or in one order where names have none"
)
GAN_SOURCE = "The annotations come with nv-tlabs/datasetGAN_release on GitHub, for research"
Part = Literal["face", "car", "cat"]
TESTED = {"face": "face_34_class", "car": "car_20_class", "cat": "cat_16_class"}
PARTS: tuple[Part, ...] = ("face", "car", "cat")


def fewshot(
    image_size: int,
    fraction: float,
    seed: int,
    root: Path,
    folder: str,
    num_classes: int,
    min_pixels: int,
    max_megapixels: int,
) -> tuple[Pairs, Pairs]:
    """Training and test pairs of `train/` and `test/` in a folder below the data root."""
    require(inside("fewshot", folder), *_checks("fewshot", fraction, num_classes, min_pixels))
    splits = plain_splits(root / folder, num_classes, min_pixels)
    hint = f"expected below the data root: {LAYOUT.replace('FOLDER', folder)}\n  {SOURCE}"
    return load_pairs(
        "fewshot", splits["train"], splits["test"], hint, root, image_size, fraction, seed, max_megapixels, strict=True
    )


def datasetgan(
    image_size: int,
    fraction: float,
    seed: int,
    root: Path,
    part: Part,
    num_classes: int,
    min_pixels: int,
    max_megapixels: int,
) -> tuple[Pairs, Pairs]:
    """Training and test pairs of DatasetGAN's annotations; images and masks may differ in size, as in its own code."""
    require(
        (part in PARTS, "part", f"datasetgan: must be one of {', '.join(PARTS)}, is {part!r}"),
        *_checks("datasetgan", fraction, num_classes, min_pixels),
    )
    splits = gan_splits(root, part, num_classes, min_pixels)
    hint = f"expected below the data root: {GAN_LAYOUT}\n  {GAN_SOURCE}"
    return load_pairs(
        "datasetgan",
        splits["train"],
        splits["test"],
        hint,
        root,
        image_size,
        fraction,
        seed,
        max_megapixels,
        strict=False,
    )


def inside(name: str, folder: str) -> tuple[bool, str, str]:
    """What `require` holds a data set's folder to: to lie below the data root."""
    parts = Path(folder).parts
    below = bool(parts) and not Path(folder).is_absolute() and ".." not in parts
    return below, "folder", f"{name}: must be a folder below the data root, without '..', is {folder!r}"


def _checks(name: str, fraction: float, num_classes: int, min_pixels: int) -> list[tuple[bool, str, str]]:
    return [
        (0 < fraction <= 1, "fraction", f"{name}: must lie in (0, 1], is {fraction}"),
        (2 <= num_classes <= ILLEGAL, "num_classes", f"{name}: must lie in [2, {ILLEGAL}], is {num_classes}"),
        (min_pixels >= 0, "min_pixels", f"{name}: must be at least 0, is {min_pixels}"),
    ]


def plain_splits(folder: Path, num_classes: int, min_pixels: int) -> dict[str, Split]:
    """The pairs in `train/` and `test/`: files of one stem. A .png beside a .npy, and no .jpg, is the image."""
    meaning = labels(num_classes, {one: one for one in range(num_classes)})
    return {"train": _plain(folder / "train", meaning, min_pixels), "test": _plain(folder / "test", meaning, 0)}


def _plain(folder: Path, meaning: Labels, min_pixels: int) -> Split:
    images, masks, pngs = (files_in(folder, suffixes) for suffixes in ((".jpg", ".jpeg"), (".npy",), (".png",)))
    photographed, masked = ({path.stem for path in paths} for paths in (images, masks))
    for png in pngs:
        (images if png.stem in masked - photographed else masks).append(png)
    pairs, unmatched = match(images, masks, key=lambda path: path.stem, where=folder)
    return Split(folder, pairs, unmatched, meaning, True, min_pixels)


def gan_splits(root: Path, part: Part, num_classes: int, min_pixels: int) -> dict[str, Split]:
    """The pairs of one part, by their numbers; test ones by their order where some name has no number."""
    folder = root / "datasetgan" / "annotation"
    train, test = folder / "training_data" / f"{part}_processed", folder / "testing_data" / TESTED[part]
    meaning = labels(num_classes, {one: one for one in range(num_classes)})
    pairs, unmatched = match(*_gan_files(train), key=numbers, where=train)
    images, masks = _gan_files(test)
    order = {path: place for paths in (images, masks) for place, path in enumerate(paths)}
    numbered = all(map(numbers, order))
    tested, untested = match(images, masks, key=numbers if numbered else lambda path: order[path], where=test)
    return {
        "train": Split(train, pairs, unmatched, meaning, False, min_pixels),
        "test": Split(test, tested, untested, meaning, False, 0),
    }


def _gan_files(folder: Path) -> tuple[list[Path], list[Path]]:
    return files_in(folder, (".jpg", ".jpeg", ".png")), files_in(folder, (".npy",))


def numbers(path: Path) -> tuple[int, ...]:
    """The numbers in a file's name: image_12.jpg and image_mask12.npy belong together."""
    return tuple(int(found) for found in re.findall(r"[0-9]+", path.stem))


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """A folder's files with one of some suffixes, sorted by name, less hidden ones; none where there is no folder."""
    try:
        found = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error})") from error
    return [path for path in found if path.suffix.lower() in suffixes and not of_the_system(path.name)]


def match(
    images: Iterable[Path], masks: Iterable[Path], key: Callable[[Path], Any], where: Path
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Images and masks with equal keys, in the keys' order, and what has no partner; `where` the masks should be."""
    groups: dict[Any, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for kind, paths in enumerate((images, masks)):
        for path in paths:
            groups[key(path)][kind].append(path)
    pairs, unmatched = [], []
    for _, (found, labelled) in sorted(groups.items()):
        if len(found) == len(labelled) == 1:
            pairs.append((found[0], labelled[0]))
        elif found and labelled:
            several = found if len(found) > 1 else labelled
            unmatched.append(
                f"{several[1]}: {several[0].name} has the same name, so it is unclear which of them is meant"
            )
        else:
            unmatched += [f"{path}: has no mask in {where}" for path in found] + [
                f"{path}: has no image" for path in labelled
            ]
    return tuple(pairs), tuple(unmatched)
