"""Images with masks of class ids: which files belong together, what the ids mean, and what is wrong with them.

What would stop or spoil a training is looked for before it: pairs and sizes always, and the ids of all masks in sets
that hold no more of them than LOOKED_INTO. A class is a number below num_classes; IGNORED pixels belong to none.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from afno_repro.contents import Contents, names_and_contents
from afno_repro.data.classes import PLACE
from afno_repro.data.reading import (
    MEGAPIXELS,
    UPRIGHT,
    Array,
    failures,
    header,
    id_counts,
    read_image,
    read_mask,
    size_of,
)
from afno_repro.data.transforms import IGNORED, Example, resize_example
from afno_repro.errors import DataError, require

ILLEGAL = 254  # in a table of labels: no such raw id
LOOKED_INTO, SHOWN = 1000, 5  # masks opened before a training at most; offenders named in a message
Pair = tuple[Path, Path]  # image, mask


@dataclass(frozen=True)
class Labels:
    """What raw ids mean: `table` has 256 entries, each a class, IGNORED or ILLEGAL; `allowed` says it in words."""

    num_classes: int
    table: bytes
    allowed: str

    def classes(self, ids: Array, path: Path) -> Array:
        """Raw ids as uint8 classes; raises DataError for the first one out of range."""
        known = ids if ids.dtype == np.uint8 else np.where((ids >= 0) & (ids <= 255), ids, ILLEGAL).astype(np.uint8)
        classes = np.frombuffer(self.table, dtype=np.uint8)[known]
        if (classes == ILLEGAL).any():
            raise DataError(f"{path}: class id {ids[classes == ILLEGAL][0]} is out of range; allowed: {self.allowed}")
        return classes


def labels(num_classes: int, mapping: Mapping[int, int]) -> Labels:
    """Labels of a mapping from consecutive raw ids to classes; 255 is always ignored."""
    return Labels(
        num_classes,
        bytes([*(mapping.get(raw, ILLEGAL) for raw in range(255)), IGNORED]),
        f"{min(mapping)}..{max(mapping)} or {IGNORED} (ignored)",
    )


@dataclass(frozen=True)
class Split:
    """The pairs of one split, and what could not be paired.

    `same_size`: image and mask must be of one size. `min_pixels`: a mask's classes with fewer pixels are background.
    `megapixels`: no larger image or mask is read.
    """

    folder: Path
    pairs: tuple[Pair, ...]
    unmatched: tuple[str, ...]
    labels: Labels
    same_size: bool
    min_pixels: int
    megapixels: int = MEGAPIXELS

    def before_reading(self) -> Iterator[str]:
        """Problems that names and headers show: missing pairs, unreadable headers, sizes that differ."""
        yield from self.unmatched
        for pair in self.pairs:
            yield from failures(self.size_of, pair) or self._misfit(pair)

    def out_of_range(self) -> Iterator[str]:
        """Masks that cannot be read or hold ids out of range; opens them all."""
        return (told for _, mask in self.pairs for told in failures(self.classes_in, [mask]))

    def problems(self) -> Iterator[str]:
        """Everything that is wrong, as `path: what`; opens every file."""
        yield from self.unmatched
        with ThreadPoolExecutor() as pool:
            for told in pool.map(self._look_at, self.pairs):
                yield from told

    def _look_at(self, pair: Pair) -> list[str]:
        return failures(self.image, pair[:1]) + failures(self.classes_in, pair[1:]) or self._misfit(pair)

    def _misfit(self, pair: Pair) -> list[str]:
        (*image, turned), mask = header(pair[0], self.megapixels), self.size_of(pair[1])
        if turned not in UPRIGHT:
            return [
                f"{pair[0]}: its EXIF orientation is {turned}, which turns or mirrors its pixels, and its mask "
                f"{pair[1].name} has none: store the image upright, without that tag"
            ]
        if tuple(image) == mask or not self.same_size:
            return []
        return [f"{pair[1]}: {mask[1]}x{mask[0]} pixels, but its image {pair[0].name} has {image[1]}x{image[0]}"]

    def left_out(self) -> Iterator[str]:
        """Files of the folder that belong to no pair and are not told of as problems: hidden ones, other endings."""
        used = {str(path) for pair in self.pairs for path in pair} | {
            told.partition(": ")[0] for told in self.unmatched
        }
        yield from sorted(str(path) for path in self.folder.rglob("*") if not path.is_dir() and str(path) not in used)

    def classes_in(self, mask: Path) -> frozenset[int]:
        """The classes of a mask, less the ignored; raises DataError for an unreadable mask or an id out of range."""
        counts, pixels = id_counts(mask, self.megapixels), Counter[int]()
        for one, (_, count) in zip(
            self.labels.classes(np.array([raw for raw, _ in counts]), mask).tolist(), counts, strict=True
        ):
            pixels[one] += count
        return frozenset(0 if count < self.min_pixels else one for one, count in pixels.items() if one != IGNORED)

    def size_of(self, path: Path) -> tuple[int, int]:
        """Height and width of an image or a mask; raises DataError where it has too many pixels."""
        return size_of(path, self.megapixels)

    def image(self, path: Path) -> Tensor:
        """An image, uint8 (3, height, width); raises DataError where it is broken or has too many pixels."""
        return read_image(path, self.megapixels)

    def classes(self, path: Path) -> Array:
        """The classes of a mask, small ones made background; raises DataError as `classes_in` does."""
        classes = self.labels.classes(read_mask(path, self.megapixels), path)
        if not self.min_pixels:
            return classes
        pixels = np.bincount(classes.ravel(), minlength=256)
        small = (pixels < self.min_pixels) & (np.arange(256) != IGNORED)
        return np.where(small[classes], np.uint8(0), classes)


class Pairs:
    """Images and their masks, read when asked for; `image_size`: both are resized whole, to that many pixels a side.

    `unseen` are the classes that only the validation's masks hold; None where there are too many masks to look.
    """

    def __init__(
        self,
        name: str,
        split: Split,
        pairs: list[Pair],
        root: Path,
        image_size: int | None,
        unseen: tuple[int, ...] | None,
    ):
        self.name, self.split, self.pairs, self.image_size, self.unseen = name, split, pairs, image_size, unseen
        self.num_classes: int | None = split.labels.num_classes
        self.files, self.root = [path for pair in pairs for path in pair], root

    def fingerprint(self, contents: Contents) -> str:
        """SHA-256 of the names and bytes of images and masks."""
        return names_and_contents(self.files, self.root, contents)

    def __len__(self) -> int:
        return len(self.pairs)

    def sizes(self) -> set[tuple[int, int]]:
        """Heights and widths of the examples."""
        return (
            {self.split.size_of(image) for image, _ in self.pairs}
            if self.image_size is None
            else {(self.image_size, self.image_size)}
        )

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """The image of this index, uint8 (3, height, width), and its classes, uint8 (height, width)."""
        file, mask_file = self.pairs[index]
        try:
            image, mask = self.split.image(file), torch.from_numpy(self.split.classes(mask_file))
        except DataError as error:
            raise DataError(f"{self.name}: example {index}: {error}") from error
        if self.split.same_size and image.shape[1:] != mask.shape:
            raise DataError(f"{self.name}: example {index}: {mask_file}: not as large as its image {file.name}")
        return (
            (image, mask)
            if self.image_size is None
            else resize_example((image, mask), self.image_size, self.image_size)
        )


def load_pairs(
    name: str,
    train: Split,
    val: Split,
    hint: str,
    root: Path,
    image_size: int | None,
    fraction: float,
    seed: int,
    max_megapixels: int,
    strict: bool,
) -> tuple[Pairs, Pairs]:
    """Both splits, looked at before any training; `strict`: validation may hold no class that training lacks.

    `fraction` of the training pairs, chosen by `seed`, is trained on; the checks look at all of them.
    """
    allowed = f"{name}: must be at least 1, is {max_megapixels}"
    require((max_megapixels > 0, "max_megapixels", allowed))
    train, val = (replace(split, megapixels=max_megapixels) for split in (train, val))
    for split in (train, val):
        if not split.pairs and not split.unmatched:
            found = "nothing in it" if split.folder.is_dir() else "no such folder"
            raise DataError(f"{name}: no images in {split.folder} ({found})\n  {hint}; {PLACE}")
    refuse(f"{name}: its files cannot be used", [*train.before_reading(), *val.before_reading()], hint)
    unseen = None
    if len(train.pairs) + len(val.pairs) <= LOOKED_INTO:
        refuse(f"{name}: its masks cannot be used", [*train.out_of_range(), *val.out_of_range()], hint)
        unseen = compare_classes(name, train, val, hint, strict)
    for split in (train, val):
        masks = [mask for _, mask in split.pairs]
        if not any(map(split.classes_in, masks)):
            refuse(
                f"{name}: every pixel of these masks is ignored, so nothing can be scored", list(map(str, masks)), hint
            )
    chosen = sorted(
        np.random.default_rng(seed).permutation(len(train.pairs))[: max(1, round(fraction * len(train.pairs)))]
    )
    trained = Pairs(name, train, [train.pairs[i] for i in chosen], root, image_size, unseen)
    return trained, Pairs(name, val, list(val.pairs), root, image_size, unseen)


def compare_classes(name: str, train: Split, val: Split, hint: str, strict: bool) -> tuple[int, ...]:
    """The classes that only validation masks hold, refused where `strict`; training masks must hold at least two."""
    trained = frozenset[int]().union(*(train.classes_in(mask) for _, mask in train.pairs))
    if len(trained) < 2:
        refuse(
            f"{name}: the training masks hold fewer than two classes ({IGNORED} is ignored)",
            [f"{m}: classes {sorted(train.classes_in(m))}" for _, m in train.pairs],
            hint,
        )
    new = {mask: sorted(val.classes_in(mask) - trained) for _, mask in val.pairs}
    unseen = tuple(sorted({one for found in new.values() for one in found}))
    if strict:
        title = f"{name}: the validation masks hold classes that no training mask holds: {', '.join(map(str, unseen))}"
        refuse(title, [f"{mask}: classes {found}" for mask, found in new.items() if found], hint)
    return unseen


def refuse(title: str, offenders: list[str], hint: str) -> None:
    """Raise DataError with the first offenders and their number, if there are any."""
    rest = [f"... and {len(offenders) - SHOWN} more, {len(offenders)} in all"] if len(offenders) > SHOWN else []
    if offenders:
        raise DataError("\n  ".join([title, *offenders[:SHOWN], *rest, hint]))
