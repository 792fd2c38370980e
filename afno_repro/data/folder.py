"""Images of one's own in a plain folder below the data root, by class or flat; flat ones have no labels."""

from pathlib import Path

from afno_repro.data.classes import FLAT, PLACE, Folder, Splits, by_class, images_in, load_folders
from afno_repro.data.fewshot import inside
from afno_repro.data.transforms import Interpolation
from afno_repro.errors import DataError, require

LAYOUT = "FOLDER/{train,val}/NAME.jpg, or FOLDER/{train,val}/CLASS/NAME.jpg for labels; .png, .webp and others too"
SOURCE = "Any images will do"


def folder(
    image_size: int,
    fraction: float,
    seed: int,
    root: Path,
    folder: str,
    crop_fraction: float,
    skip: list[str],
    interpolation: Interpolation,
    tuning: int | None,
    max_megapixels: int,
) -> tuple[Folder, Folder]:
    """Training and validation images of a folder below the data root; `load_folders` says what the others mean."""
    require(inside("folder", folder))
    return load_folders(
        splits(root, folder), image_size, fraction, seed, crop_fraction, skip, interpolation, tuning, max_megapixels
    )


def splits(root: Path, folder: str) -> Splits:
    """The images of a folder below the data root."""
    hint = f"expected below the data root: {LAYOUT.replace('FOLDER', folder)}\n  {SOURCE}; {PLACE}"
    return Splits("folder", root / folder, {"train": _plain, "val": _plain}, hint)


def _plain(folder: Path) -> dict[str, list[Path]]:
    """The images of a split, by class or flat. Raises DataError where some lie in folders and some beside them."""
    classes, loose = by_class(folder), sorted(images_in(folder)) if folder.is_dir() else []
    of = next((name for name, files in classes.items() if files), None)
    if loose and of is not None:
        told = f"images lie in it ({loose[0].name}) and in folders of it ({of}/)"
        raise DataError(f"folder: {folder}: {told}: put all of them in class folders, or none")
    return {FLAT: loose} if loose else classes
