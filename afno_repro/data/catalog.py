"""What is there of every data set that this project knows, and what is wrong with it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any

from afno_repro.config import DataConfig
from afno_repro.data.camvid import CLASS_NAMES as CAMVID_CLASSES
from afno_repro.data.camvid import splits as camvid_splits
from afno_repro.data.cityscapes import CLASS_NAMES as CITYSCAPES_CLASSES
from afno_repro.data.cityscapes import splits as cityscapes_splits
from afno_repro.data.classes import FLAT, SPLITS, Splits
from afno_repro.data.digits import COUNT as DIGITS_COUNT
from afno_repro.data.entries import (
    CAMVID,
    CITYSCAPES,
    DATASETGAN,
    DIGITS,
    FEWSHOT,
    FOLDER,
    IMAGENET,
    PARQUET,
    TEXTURES,
    Entry,
)
from afno_repro.data.entries import PHOTOS as PHOTOS_ENTRY
from afno_repro.data.fewshot import PARTS, gan_splits, plain_splits
from afno_repro.data.folder import splits as folder_splits
from afno_repro.data.imagenet import splits as imagenet_splits
from afno_repro.data.pairs import ILLEGAL, LOOKED_INTO, SHOWN, Split
from afno_repro.data.parquet import Table, split_files
from afno_repro.data.parquet import left_out as parquet_left_out
from afno_repro.data.parquet import problems as parquet_problems
from afno_repro.data.photos import PHOTOS, photograph
from afno_repro.data.reading import BROKEN, id_counts, of_the_system
from afno_repro.data.textures import TEXTURES as TEXTURE_NAMES
from afno_repro.data.transforms import IGNORED
from afno_repro.errors import DataError


@dataclass(frozen=True)
class Survey:
    """What is on this disk of one data set; `reason` says why it is not found, or what it lacks."""

    entry: Entry
    name: str  # the entry's, or entry/part
    found: bool
    where: str
    images: dict[str, int]  # per split
    classes: int | None
    reason: str


OWN = {"imagenet", "datasetgan", "cityscapes", "camvid"}  # folders that are sets by name
MOST = ILLEGAL  # classes that plain pairs may have


def survey(root: Path) -> list[Survey]:
    """What is there of every data set, counted by file names; few-shot masks alone are opened, to count classes."""
    return [
        *_inside(PHOTOS_ENTRY, {"all": len(PHOTOS)}, None, {package for package, _ in PHOTOS.values()}),
        *_inside(DIGITS, {"all": DIGITS_COUNT}, 10, {"sklearn"}),
        *_inside(TEXTURES, {"photographs": len(TEXTURE_NAMES)}, len(TEXTURE_NAMES), {"skimage"}),
        _images(IMAGENET, "imagenet", imagenet_splits(root)),
        *_own(FOLDER, root, _holds("val"), lambda path: _images(FOLDER, f"folder/{path.name}", _folder(path))),
        *_own(PARQUET, root, split_files, _parquet),
        *(_pairs(DATASETGAN, f"datasetgan/{part}", gan_splits(root, part, MOST, 0), None) for part in PARTS),
        *_own(FEWSHOT, root, _holds("test"), _fewshot),
        _pairs(CITYSCAPES, "cityscapes", cityscapes_splits(root), len(CITYSCAPES_CLASSES)),
        _pairs(CAMVID, "camvid", camvid_splits(root), len(CAMVID_CLASSES)),
    ]


def offenders(name: str, root: Path) -> Iterator[str]:
    """What is wrong with a data set of a survey's name, as `path: what`; opens every file. Nothing if it is absent."""
    kind, _, part = name.partition("/")
    if kind == "photos":
        yield from _photographs()
    elif (classes := _classes(kind, part, root)) is not None:
        yield from classes.problems() if _images(IMAGENET, name, classes).found else ()
    elif kind == "parquet":
        yield from parquet_problems(root / part)
    else:
        for split in _splits(kind, part, root).values():
            yield from split.problems()


def left_out(name: str, root: Path) -> Iterator[str]:
    """Files of a data set of a survey's name that are not used: hidden ones, those of systems, other endings."""
    kind, _, part = name.partition("/")
    if (classes := _classes(kind, part, root)) is not None:
        yield from classes.left_out()
    elif kind == "parquet":
        yield from parquet_left_out(root / part)
    else:
        for split in _splits(kind, part, root).values():
            yield from split.left_out()


def _classes(kind: str, part: str, root: Path) -> Splits | None:
    """The images of a set that lies in class folders."""
    return imagenet_splits(root) if kind == "imagenet" else folder_splits(root, part) if kind == "folder" else None


def left_out_of(config: DataConfig, root: Path) -> dict[str, Any]:
    """The files that a run's data leave out, those among them that its spec skips: how many, and the first names."""
    part = config.options.get("part") or config.options.get("folder") or ""
    found = (os.path.relpath(path, root) for path in left_out(f"{config.name}/{part}", root))
    skipped = (f"{part or config.name}/{name}" for name in config.options.get("skip", ()))
    return counted(name.encode(errors="replace").decode() for name in chain(skipped, found))  # no half surrogate pairs


def counted(told: Iterator[str]) -> dict[str, Any]:
    """How many there are, and the first of them."""
    first = list(islice(told, SHOWN))
    return {"count": len(first) + sum(1 for _ in told), "first": first}


def _splits(kind: str, part: str, root: Path) -> dict[str, Split]:
    makers: dict[str, Callable[[], dict[str, Split]]] = {
        "datasetgan": lambda: gan_splits(root, next(p for p in PARTS if p == part), MOST, 0),
        "fewshot": lambda: plain_splits(root / part, MOST, 0),
        "cityscapes": lambda: cityscapes_splits(root),
        "camvid": lambda: camvid_splits(root),
    }
    return makers[kind]() if kind in makers else {}


def _inside(entry: Entry, images: dict[str, int], classes: int | None, packages: set[str]) -> list[Survey]:
    missing = [package for package in sorted(packages) if find_spec(package) is None]
    reason = f"not installed: {', '.join(missing)}" if missing else ""
    return [Survey(entry, entry.name, not missing, "inside the packages", {} if missing else images, classes, reason)]


def _images(entry: Entry, name: str, splits: Splits) -> Survey:
    """Images by class or flat."""
    counts: dict[str, int] = {}
    found: dict[str, set[str]] = {}
    where = str(splits.folder)
    for split in SPLITS:
        try:
            classes = splits.classes(split)
        except DataError as error:
            return Survey(entry, name, False, where, counts, None, str(error).splitlines()[0])
        counts[split], found[split] = sum(map(len, classes.values())), set(classes)
    train, val = (found[split] for split in SPLITS)
    labelled = FLAT not in train and val <= train
    reason = (
        "" if labelled or FLAT in train & val else "val/ has class folders that train/ lacks: images without labels"
    )
    return Survey(entry, name, True, where, counts, len(train) if labelled else None, reason)


def _pairs(entry: Entry, name: str, splits: dict[str, Split], classes: int | None) -> Survey:
    empty = [split.folder for split in splits.values() if not split.pairs]
    reason = f"no images with masks in {empty[0]}" if empty else ""
    if classes is None and not empty:
        classes = _highest(splits)
    where = empty[0] if empty else splits["train"].folder.parent
    return Survey(
        entry,
        name,
        not empty,
        str(where),
        {key: len(split.pairs) for key, split in splits.items() if split.pairs},
        classes,
        reason,
    )


def _highest(splits: dict[str, Split]) -> int | None:
    """How many classes the masks need: their highest id plus one; None if there are too many masks or a broken one."""
    masks = [mask for split in splits.values() for _, mask in split.pairs]
    if len(masks) > LOOKED_INTO:
        return None
    try:
        return 1 + max((raw for mask in masks for raw, _ in id_counts(mask) if raw != IGNORED), default=0)
    except DataError:
        return None


def _fewshot(folder: Path) -> Survey:
    return _pairs(FEWSHOT, f"fewshot/{folder.name}", plain_splits(folder, MOST, 0), None)


def _parquet(folder: Path) -> Survey:
    name, where = f"parquet/{folder.name}", str(folder)
    if find_spec("pyarrow") is None:
        return Survey(PARQUET, name, False, where, {}, None, "not installed: pyarrow, see 'afno_repro[parquet]'")
    try:
        tables = {split: Table(folder, split) for split in split_files(folder)}
    except DataError as error:
        return Survey(PARQUET, name, False, where, {}, None, str(error).splitlines()[0])
    classes = next((count for table in tables.values() for count in table.class_counts().values()), None)
    return Survey(PARQUET, name, True, where, {split: len(table) for split, table in tables.items()}, classes, "")


def _folder(path: Path) -> Splits:
    return folder_splits(path.parent, path.name)


def _holds(second: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / "train").is_dir() and (folder / second).is_dir()


def _own(entry: Entry, root: Path, fits: Callable[[Path], object], look: Callable[[Path], Survey]) -> list[Survey]:
    """What `look` says of each folder below the root that may be such a set and is none by name."""
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name not in OWN)
    except OSError:
        folders = []
    found = [look(folder) for folder in folders if not of_the_system(folder.name) and fits(folder)]
    return found or [Survey(entry, entry.name, False, str(root), {}, None, f"no folder in {root} is one")]


def _photographs() -> Iterator[str]:
    for name in PHOTOS:
        try:
            photograph(name)
        except (DataError, *BROKEN) as error:
            yield f"{name}: {error}"
