"""ImageNet: class folders in `imagenet/` below the data root, or what Kaggle gives out, unpacked there.

Kaggle's validation images lie flat; the class of each stands in LOC_val_solution.csv. Labels, order and fingerprint are
the same in both layouts.
"""

import csv
import io
from functools import partial
from pathlib import Path

from afno_repro.data.classes import PLACE, Folder, Splits, by_class, images_in, load_folders
from afno_repro.data.transforms import Interpolation
from afno_repro.errors import DataError
from afno_repro.files import read_regular

KAGGLE, SOLUTION = Path("ILSVRC/Data/CLS-LOC"), "LOC_val_solution.csv"
LAYOUT = (
    "imagenet/train/CLASS/*.JPEG and imagenet/val/CLASS/*.JPEG, or as Kaggle has it: "
    f"imagenet/{KAGGLE}/{{train/CLASS,val}}/*.JPEG and imagenet/{SOLUTION}"
)
SOURCE = (
    "ImageNet-1k comes from image-net.org, after registration, or from Kaggle's object localization challenge; "
    "one photograph of each class is in EliSchwartz/imagenet-sample-images on GitHub"
)
MAX_BYTES = 64 * 2**20  # of Kaggle's table


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
    """Training and validation images; what the options mean stands in `load_folders`."""
    return load_folders(
        splits(root), image_size, fraction, seed, crop_fraction, skip, interpolation, tuning, max_megapixels
    )


def splits(root: Path) -> Splits:
    """The images of either layout; by-class folders come first."""
    folder = root / "imagenet"
    hint = f"expected below the data root: {LAYOUT}\n  {SOURCE}; {PLACE}"
    if (folder / KAGGLE).is_dir() and not (folder / "train").is_dir():
        solved = partial(_solved, folder / SOLUTION)
        return Splits("imagenet", folder / KAGGLE, {"train": by_class, "val": solved}, hint)
    return Splits("imagenet", folder, {"train": by_class, "val": by_class}, hint)


def _solved(solution: Path, folder: Path) -> dict[str, list[Path]]:
    """The flat images of a folder by the classes of Kaggle's table. Raises DataError for an image that it lacks."""
    images = sorted(images_in(folder)) if folder.is_dir() else []
    try:
        text = read_regular(solution, MAX_BYTES).decode("utf-8-sig")
        classes = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(io.StringIO(text))}
    except FileNotFoundError:
        raise DataError(f"imagenet: {solution}: no such file: the classes of {folder} stand in it") from None
    except (ValueError, KeyError, IndexError, AttributeError, csv.Error) as error:
        told = "a table ImageId,PredictionString is expected, whose second column begins with the class"
        raise DataError(f"imagenet: {solution}: {told} ({error!r})") from error
    strange = next((image for image in images if image.stem not in classes), None)
    if strange is not None:
        raise DataError(f"imagenet: {strange}: not in {solution}, so its class is unknown")
    found: dict[str, list[Path]] = {of: [] for of in sorted({classes[image.stem] for image in images})}
    for image in images:
        found[classes[image.stem]].append(image)
    return found
