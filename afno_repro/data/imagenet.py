"""An ImageNet-like folder: `imagenet/train/CLASS/*.JPEG` and `imagenet/val/CLASS/*.JPEG` below the data root."""

import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from afno_repro.data.transforms import Interpolation, center_square
from afno_repro.errors import DataError, require

LAYOUT = "imagenet/train/CLASS/*.JPEG and imagenet/val/CLASS/*.JPEG"
SOURCE = "ImageNet-1k comes from image-net.org, after registration"
PLACE = "name its parent folder with --data or AFNO_DATA"
SHOWN = 5  # names in a message
SUFFIXES = {".jpeg", ".jpg", ".png"}
FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "GIF",
    "TIFF",
    "WEBP",
    "PPM",
)  # whatever the name ends in; Pillow's other readers run programs or fail in other ways
BROKEN = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    TokenError,
    OverflowError,
    MemoryError,
    Image.DecompressionBombError,
)
END_OF_JPEG = b"\xff\xd9"
DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # modes of more than 8 bits, which Pillow would clip


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
        classes: list[str] | None,
    ):
        self.files, self.square = files, square
        self.labels = None if classes is None else {name: label for label, name in enumerate(classes)}
        self.num_classes = None if classes is None else len(classes)
        names = "\n".join(f"{file.relative_to(root)} {file.stat().st_size}" for file in files)
        self.fingerprint = hashlib.sha256(names.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def example(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """The image of this index, uint8 (3, height, width), and its class."""
        file = self.files[index]
        try:
            image = read_image(file)
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
) -> tuple[Folder, Folder]:
    """Training and validation images; `fraction` of each class (chosen by `seed`) is trained on.

    `crop_fraction` is the share of the short side that the validation's central square takes, `interpolation` how it is
    resized. `skip` names broken
    training images, like train/CLASS/NAME.JPEG, to train without; what is evaluated is never left out.
    """
    require(
        (0 < fraction <= 1, "fraction", f"imagenet: must lie in (0, 1], is {fraction}"),
        (0 < crop_fraction <= 1, "crop_fraction", f"imagenet: must lie in (0, 1], is {crop_fraction}"),
    )
    folder = root / "imagenet"
    train, val = (class_files(folder / split) for split in ("train", "val"))
    train = _without(train, skip, folder)
    names, evaluated = ([files[0].parent.name for files in split] for split in (train, val))
    classes = names if set(evaluated) <= set(names) else None
    rng = np.random.default_rng(seed)
    kept = [
        files[i] for files in train for i in sorted(rng.permutation(len(files))[: max(1, round(fraction * len(files)))])
    ]
    square = partial(center_square, size=image_size, crop_fraction=crop_fraction, interpolation=interpolation)
    validation = Folder([f for files in val for f in files], folder, square, classes)
    return Folder(kept, folder, None, classes), validation


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
    return [each for each in kept if each]


def class_files(folder: Path) -> list[list[Path]]:
    """The image files of each class folder, both sorted by name; raises DataError with the layout expected."""
    try:
        classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        files = [sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES) for path in classes]
    except OSError as error:
        raise DataError(f"imagenet: {folder} cannot be read ({error})") from error
    files = [found for found in files if found]
    if not files:
        found = "no such folder" if not folder.is_dir() else f"{len(classes)} class folders without images"
        raise DataError(
            f"imagenet: no images in {folder} ({found})\n  expected below the data root: {LAYOUT}\n  {SOURCE}; {PLACE}"
        )
    return files


def read_image(path: Path) -> Tensor:
    """A file as uint8 (3, height, width): grey and CMYK become RGB, alpha is dropped. Raises DataError if broken."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # reads the header alone
            if image.mode in DEEP:
                raise DataError(
                    f"{path}: not a readable image (more than 8 bits a channel, mode {image.mode}: convert it to 8)"
                )
            if image.format == "JPEG" and image.mode in ("L", "RGB") and data.endswith(END_OF_JPEG):
                return _decoded(data)
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    except BROKEN as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def _decoded(data: bytes) -> Tensor:
    """A JPEG as uint8 (3, height, width), with Pillow's pixels in half its time. Raises OSError for a broken one."""
    from torchvision.io import ImageReadMode, decode_jpeg  # not above: most data do without

    try:
        image: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise OSError(str(error).partition("\n")[0]) from error
    return image


def failures(check: Callable[[Path], object], paths: Iterable[Path]) -> list[str]:
    """What a check that raises DataError says of each path."""
    told = []
    for path in paths:
        try:
            check(path)
        except DataError as error:
            told.append(str(error))
    return told


def problems(root: Path) -> Iterator[str]:
    """Every image that cannot be read: `path: what is wrong`; opens all files."""
    with ThreadPoolExecutor() as pool:
        for split in ("train", "val"):
            for files in class_files(root / "imagenet" / split):
                for told in pool.map(lambda file: failures(read_image, [file]), files):
                    yield from told
