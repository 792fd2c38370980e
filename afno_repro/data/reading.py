"""What lies in a file of an image or of class ids; whatever is wrong with one is a DataError that names it."""

import io
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from afno_repro.errors import DataError
from afno_repro.files import check_regular, open_regular, read_regular

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
MEGAPIXELS = 100  # of an image or a mask where no spec allows more, looked at before anything is decoded
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which is another
MAX_BYTES = 2**30  # of an image's file
END_OF_JPEG = b"\xff\xd9"
DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # modes of more than 8 bits, which Pillow would clip
MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
ORIENTATION, UPRIGHT = 0x0112, (0, 1)  # EXIF's tag, and the values of it that turn nothing
SYSTEM = {
    *("@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information"),
    *("desktop.ini", "ehthumbs.db", "thumbs.db"),
}  # what systems leave in folders, besides hidden files
Array = np.ndarray[Any, np.dtype[Any]]
Counts = tuple[tuple[int, int], ...]  # raw ids of a mask, each with its number of pixels
Found = TypeVar("Found")
_listening = threading.Lock()


def of_the_system(name: str) -> bool:
    """Whether a file or folder is hidden, or is one that systems leave behind: never an image or a class."""
    return name.startswith(".") or name.lower() in SYSTEM


def read_image(path: Path, megapixels: int = MEGAPIXELS) -> Tensor:
    """A file as uint8 (3, height, width): grey and CMYK become RGB, alpha is dropped.

    Raises DataError for a broken file and for one of more than so many million pixels.
    """
    try:
        data = read_regular(path, MAX_BYTES)
    except BROKEN as error:
        raise DataError(f"{path}: not a readable image ({error})") from error
    return decode_image(data, str(path), megapixels)


def decode_image(data: bytes, name: str, megapixels: int) -> Tensor:
    """What `read_image` makes of a file that holds these bytes; `name` is for messages."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # reads the header alone
            _check_pixels(*image.size, megapixels)
            if image.mode in DEEP:
                raise DataError(
                    f"{name}: not a readable image (more than 8 bits a channel, mode {image.mode}: convert it to 8)"
                )
            if image.format == "JPEG" and image.mode in ("L", "RGB") and data.endswith(END_OF_JPEG):
                return _decoded(data)
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
            if image.format == "JPEG":
                _decoded(data, "UNCHANGED")  # Pillow says nothing of what libjpeg complains of
            return pixels
    except BROKEN as error:
        raise DataError(f"{name}: not a readable image ({error})") from error


def size_in(data: bytes, name: str, megapixels: int) -> tuple[int, int]:
    """Height and width in pixels, from the header of an encoded image. Raises DataError for a broken one."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(*image.size, megapixels)
            return image.height, image.width
    except BROKEN as error:
        raise DataError(f"{name}: not a readable image ({error})") from error


def _check_pixels(width: int, height: int, megapixels: int) -> None:
    if width * height > 1e6 * megapixels:
        raise ValueError(
            f"{width}x{height} pixels, at most {megapixels} million are read (max_megapixels of a spec's data)"
        )


def _decoded(data: bytes, mode: str = "RGB") -> Tensor:
    """A JPEG as uint8 (channels, height, width), with Pillow's pixels in half its time. Raises OSError if broken."""
    from torchvision.io import ImageReadMode, decode_jpeg  # not above: most data do without

    source = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        with _complaints() as said:
            image: Tensor = decode_jpeg(source, mode=ImageReadMode[mode])
    except RuntimeError as error:
        raise OSError(str(error).partition("\n")[0]) from error
    if said:
        raise OSError(said[0])
    return image


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What libjpeg says of a file that it decodes all the same: it fills what is missing and writes a line to stderr.

    What others write there meanwhile is passed on.
    """
    said: list[str] = []
    with _listening:
        heard, mouth = os.pipe()
        stderr = os.dup(2)
        os.set_blocking(mouth, False)
        os.dup2(mouth, 2)
        os.close(mouth)
        try:
            yield said
        finally:
            os.dup2(stderr, 2)  # closes the pipe's last writer
            with os.fdopen(heard, "rb") as lines, os.fdopen(stderr, "wb") as others:
                for line in lines:
                    text = line.decode(errors="replace").strip()
                    if "JPEG" in text:
                        said.append(text)
                    else:
                        others.write(line)


def failures(check: Callable[[Path], object], paths: Iterable[Path]) -> list[str]:
    """What a check that raises DataError says of each path."""
    told = []
    for path in paths:
        try:
            check(path)
        except DataError as error:
            told.append(str(error))
    return told


def read_mask(path: Path, megapixels: int = MEGAPIXELS) -> Array:
    """The raw ids of a mask file, (height, width); raises DataError for a broken one, or one of too many pixels."""
    try:
        ids = np.array(plane(path, megapixels)) if path.suffix.lower() == ".npy" else _png_ids(path, megapixels)
    except BROKEN as error:
        raise DataError(f"{path}: not a readable mask ({error})") from error
    whole = ids.dtype.kind in "biu" or (
        ids.dtype.kind == "f" and bool((np.isfinite(ids) & (ids == np.trunc(ids))).all())
    )
    if ids.ndim != 2 or not ids.size or not whole:
        raise DataError(
            f"{path}: not a mask: whole numbers in two dimensions are needed, this is {ids.dtype} of shape {ids.shape}"
        )
    return ids if ids.dtype == np.uint8 else ids.astype(np.int64)


def _png_ids(path: Path, megapixels: int) -> Array:
    """The numbers that a PNG stores. Pillow scales grey ones of 2 and 4 bits to 0..255, which is undone."""
    with open_regular(path) as file, Image.open(file, formats=("PNG",)) as image:
        _check_pixels(*image.size, megapixels)
        if image.mode not in MASK_MODES:
            raise ValueError(f"mode {image.mode}, but a mask holds one class id a pixel")
        bits = {"L;2": 2, "L;4": 4}.get(str(image.tile[0][3]) if image.tile else "", 8)
        ids: Array = np.array(image)
        return ids if bits == 8 else ids // np.uint8(255 // (2**bits - 1))


def plane(path: Path, megapixels: int) -> Array:
    """The array of a .npy file; of a three-dimensional one the first channel, if the others hold nothing."""
    check_regular(path)
    array: Array = np.lib.format.open_memmap(path, mode="r")  # not np.load, which takes an archive of arrays too
    _check_pixels(array.size // max(1, len(array)), len(array), megapixels) if array.ndim else None
    if array.ndim == 3 and array.size:
        channels = np.moveaxis(array, 0, -1) if array.shape[0] == 1 else array
        if channels[..., 1:].any():
            raise ValueError(
                f"shape {array.shape}: one class id a pixel is needed, not a channel for each class; "
                "np.argmax(mask, axis=-1) makes ids of one-hot channels"
            )
        array = channels[..., 0]
    return array


def size_of(path: Path, megapixels: int = MEGAPIXELS) -> tuple[int, int]:
    """Height and width in pixels, from the file's header; raises DataError for a broken file."""
    return header(path, megapixels)[:2]


def header(path: Path, megapixels: int = MEGAPIXELS) -> tuple[int, int, int]:
    """Height and width in pixels as stored, and the EXIF orientation; raises DataError for a broken file."""
    return once(_header, path, megapixels)


def id_counts(path: Path, megapixels: int = MEGAPIXELS) -> Counts:
    """The raw ids in a mask file, each with its number of pixels; raises DataError for a broken one."""
    return once(_id_counts, path, megapixels)


def once(read: Callable[[Path, int], Found], path: Path, megapixels: int) -> Found:
    """What `read` makes of a file, read again only after the file's time or size has changed."""
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    found: Found = _kept(read, str(path), megapixels, state.st_mtime_ns, state.st_size)
    return found


@lru_cache(maxsize=20_000)
def _kept(read: Callable[[Path, int], Any], name: str, megapixels: int, mtime_ns: int, size: int) -> Any:
    return read(Path(name), megapixels)


def _header(path: Path, megapixels: int) -> tuple[int, int, int]:
    try:
        if path.suffix.lower() == ".npy":
            height, width = plane(path, megapixels).shape
            return height, width, 1
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
            _check_pixels(*image.size, megapixels)
            return image.height, image.width, _orientation(image)
    except BROKEN as error:
        raise DataError(f"{path}: not a readable file ({error})") from error


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except BROKEN:  # broken EXIF turns nothing
        return 1
    return found if isinstance(found, int) else 1


def _id_counts(path: Path, megapixels: int) -> Counts:
    ids = read_mask(path, megapixels)
    if ids.dtype == np.uint8:  # many times faster than sorting
        counts = np.bincount(ids.ravel(), minlength=256)
        return tuple((raw, int(counts[raw])) for raw in counts.nonzero()[0].tolist())
    return tuple(zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True))
