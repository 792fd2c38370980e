"""Every data set this project knows: its use, its layout on the disk, its licence, its source, and what is there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from afno_repro.data.camvid import CLASS_NAMES as CAMVID_CLASSES
from afno_repro.data.camvid import LAYOUT as CAMVID_LAYOUT
from afno_repro.data.camvid import SOURCE as CAMVID_SOURCE
from afno_repro.data.camvid import splits as camvid_splits
from afno_repro.data.cityscapes import CLASS_NAMES as CITYSCAPES_CLASSES
from afno_repro.data.cityscapes import LAYOUT as CITYSCAPES_LAYOUT
from afno_repro.data.cityscapes import SOURCE as CITYSCAPES_SOURCE
from afno_repro.data.cityscapes import splits as cityscapes_splits
from afno_repro.data.classes import FLAT, SPLITS, Splits
from afno_repro.data.digits import COUNT as DIGITS_COUNT
from afno_repro.data.fewshot import GAN_LAYOUT, GAN_SOURCE, PARTS, gan_splits, plain_splits
from afno_repro.data.fewshot import LAYOUT as FEWSHOT_LAYOUT
from afno_repro.data.fewshot import SOURCE as FEWSHOT_SOURCE
from afno_repro.data.folder import LAYOUT as FOLDER_LAYOUT
from afno_repro.data.folder import SOURCE as FOLDER_SOURCE
from afno_repro.data.folder import splits as folder_splits
from afno_repro.data.imagenet import LAYOUT as IMAGENET_LAYOUT
from afno_repro.data.imagenet import SOURCE as IMAGENET_SOURCE
from afno_repro.data.imagenet import splits as imagenet_splits
from afno_repro.data.pairs import ILLEGAL, LOOKED_INTO, Split
from afno_repro.data.photos import PHOTOS, photograph
from afno_repro.data.reading import BROKEN, facts, of_the_system
from afno_repro.data.textures import TEXTURES as TEXTURE_NAMES
from afno_repro.data.transforms import IGNORED
from afno_repro.errors import DataError


@dataclass(frozen=True)
class Entry:
    """A data set, in words."""

    name: str
    purpose: str
    layout: str  # below the data root
    licence: str
    source: str


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


INSIDE = "nothing to do: comes with the installed packages"
PHOTOS_ENTRY = Entry(
    "photos",
    "Tables 2 and 6 at smoke and tiny scale",
    INSIDE,
    "free: public domain, Creative Commons",
    "scikit-image, scikit-learn, matplotlib",
)
DIGITS = Entry("digits", "Table 5 at smoke and tiny scale", INSIDE, "Creative Commons BY 4.0", "scikit-learn")
TEXTURES = Entry(
    "textures",
    "Tables 3, 4 and 6 at smoke and tiny scale",
    INSIDE,
    "as photos",
    f"mosaics made from {len(TEXTURE_NAMES)} photographs of scikit-image",
)
IMAGENET = Entry(
    "imagenet",
    "Tables 2, 5 and 6, and pretraining for 3 and 4",
    IMAGENET_LAYOUT,
    "research only, by image-net.org's terms of access",
    IMAGENET_SOURCE,
)
FOLDER = Entry("folder", "Tables 2, 5 and 6 on images of your own", FOLDER_LAYOUT, "that of the images", FOLDER_SOURCE)
DATASETGAN = Entry(
    "datasetgan",
    "Tables 3 and 6: faces, cars, cats",
    GAN_LAYOUT,
    "research only, by its repository's licence",
    GAN_SOURCE,
)
FEWSHOT = Entry("fewshot", "Tables 3 and 6 on images of your own", FEWSHOT_LAYOUT, "that of the images", FEWSHOT_SOURCE)
CITYSCAPES = Entry(
    "cityscapes",
    "Table 4 and Figure 1",
    CITYSCAPES_LAYOUT,
    "research only, by cityscapes-dataset.com's terms of use",
    CITYSCAPES_SOURCE,
)
CAMVID = Entry("camvid", "street scenes at small scale", CAMVID_LAYOUT, "Creative Commons BY-NC", CAMVID_SOURCE)
ENTRIES = (PHOTOS_ENTRY, DIGITS, TEXTURES, IMAGENET, FOLDER, DATASETGAN, FEWSHOT, CITYSCAPES, CAMVID)
OWN = {"imagenet", "datasetgan", "cityscapes", "camvid"}  # folders that are sets by name
MOST = ILLEGAL  # classes that plain pairs may have


def survey(root: Path) -> list[Survey]:
    """What is there of every data set, counted by file names; few-shot masks alone are opened, to count classes."""
    return [
        *_inside(PHOTOS_ENTRY, {"all": len(PHOTOS)}, None, {package for package, _ in PHOTOS.values()}),
        *_inside(DIGITS, {"all": DIGITS_COUNT}, 10, {"sklearn"}),
        *_inside(TEXTURES, {"photographs": len(TEXTURE_NAMES)}, len(TEXTURE_NAMES), {"skimage"}),
        _images(IMAGENET, "imagenet", imagenet_splits(root)),
        *_own(FOLDER, root, "val", lambda name: _images(FOLDER, f"folder/{name}", folder_splits(root, name))),
        *(_pairs(DATASETGAN, f"datasetgan/{part}", gan_splits(root, part, MOST, 0), None) for part in PARTS),
        *_own(FEWSHOT, root, "test", lambda name: _fewshot(name, root)),
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
    else:
        for split in _splits(kind, part, root).values():
            yield from split.problems()


def left_out(name: str, root: Path) -> Iterator[str]:
    """Files of a data set of a survey's name that are not used: hidden ones, those of systems, other endings."""
    kind, _, part = name.partition("/")
    if (classes := _classes(kind, part, root)) is not None:
        yield from classes.left_out()
    else:
        for split in _splits(kind, part, root).values():
            yield from split.left_out()


def _classes(kind: str, part: str, root: Path) -> Splits | None:
    """The images of a set that lies in class folders."""
    return imagenet_splits(root) if kind == "imagenet" else folder_splits(root, part) if kind == "folder" else None


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
        return 1 + max((raw for mask in masks for raw, _ in facts(mask)[0] if raw != IGNORED), default=0)
    except DataError:
        return None


def _fewshot(name: str, root: Path) -> Survey:
    return _pairs(FEWSHOT, f"fewshot/{name}", plain_splits(root / name, MOST, 0), None)


def _own(entry: Entry, root: Path, second: str, look: Callable[[str], Survey]) -> list[Survey]:
    """What `look` says of each folder below the root that holds train/ and a `second` folder and is no set by name."""
    try:
        folders = [path for path in root.iterdir() if path.name not in OWN and not of_the_system(path.name)]
        names = sorted(path.name for path in folders if (path / "train").is_dir() and (path / second).is_dir())
    except OSError:
        names = []
    reason = f"no folder in {root} holds train/ and {second}/"
    return [look(name) for name in names] or [Survey(entry, entry.name, False, str(root), {}, None, reason)]


def _photographs() -> Iterator[str]:
    for name in PHOTOS:
        try:
            photograph(name)
        except (DataError, *BROKEN) as error:
            yield f"{name}: {error}"
