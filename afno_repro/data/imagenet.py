"""An ImageNet-like folder: `imagenet/train/CLASS/*.JPEG` and `imagenet/val/CLASS/*.JPEG` below the data root."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from afno_repro.data.transforms import center_square
from afno_repro.errors import DataError, require

LAYOUT = "imagenet/train/CLASS/*.JPEG and imagenet/val/CLASS/*.JPEG"
SUFFIXES = {".jpeg", ".jpg", ".png"}


class Folder:
    """Images of a folder of class folders; the label is the index in the sorted class names.

    Training images come whole, for an augmentation to crop; validation images as their central square.
    """

    def __init__(self, files: list[Path], root: Path, image_size: int, crop_fraction: float | None):
        self.files, self.image_size, self.crop_fraction = files, image_size, crop_fraction
        names = "\n".join(f"{file.relative_to(root)} {file.stat().st_size}" for file in files)
        self.fingerprint = hashlib.sha256(names.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int, rng: np.random.Generator) -> Tensor:
        """The image of this index: uint8 (3, height, width)."""
        image = read_image(self.files[index])
        return image if self.crop_fraction is None else center_square(image, self.image_size, self.crop_fraction)


def imagenet(image_size: int, fraction: float, seed: int, root: Path, crop_fraction: float) -> tuple[Folder, Folder]:
    """Training and validation images; `fraction` of each class (chosen by `seed`) is trained on.

    `crop_fraction` is the share of the short side that the validation's central square takes.
    """
    require(
        (0 < fraction <= 1, "fraction", f"imagenet: must lie in (0, 1], is {fraction}"),
        (0 < crop_fraction <= 1, "crop_fraction", f"imagenet: must lie in (0, 1], is {crop_fraction}"),
    )
    folder = root / "imagenet"
    train, val = (class_files(folder / split) for split in ("train", "val"))
    rng = np.random.default_rng(seed)
    kept = [files[i] for files in train for i in sorted(rng.permutation(len(files))[: max(1, round(fraction * len(files)))])]
    return Folder(kept, folder, image_size, None), Folder([f for files in val for f in files], folder, image_size, crop_fraction)


def class_files(folder: Path) -> list[list[Path]]:
    """The image files of each class folder, both sorted by name; raises DataError with the layout expected."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    files = [sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES) for path in classes]
    files = [found for found in files if found]
    if not files:
        found = "no such folder" if not folder.is_dir() else f"{len(classes)} class folders without images"
        raise DataError(
            f"imagenet: no images in {folder} ({found})\n  expected below the data root: {LAYOUT}\n"
            "  ImageNet-1k comes from image-net.org; name its parent folder with --data or AFNO_DATA"
        )
    return files


def read_image(path: Path) -> Tensor:
    """A file as uint8 (3, height, width); grey and CMYK images become RGB. Raises DataError for a broken one."""
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error})") from error
