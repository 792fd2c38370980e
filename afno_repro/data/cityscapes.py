"""Cityscapes (Cordts et al., CVPR 2016): street scenes of 2048x1024 pixels in 19 classes; the data of Table 4."""

from pathlib import Path

from afno_repro.data.fewshot import files_in, match
from afno_repro.data.pairs import Pairs, Split, labels, load_pairs
from afno_repro.data.transforms import IGNORED
from afno_repro.errors import DataError, require

LAYOUT = (
    "cityscapes/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png\n"
    "  and cityscapes/gtFine/{train,val}/CITY/*_gtFine_labelIds.png (or *_gtFine_labelTrainIds.png)"
)
SOURCE = "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip come from cityscapes-dataset.com, after registration"
CLASS_NAMES = (
    *(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
    ),
    *("sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
EVALUATED = (
    7,
    8,
    11,
    12,
    13,
    17,
    19,
    20,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    31,
    32,
    33,
)  # of the 34 label ids; their order is the train id
LABEL_IDS = labels(len(CLASS_NAMES), {raw: EVALUATED.index(raw) if raw in EVALUATED else IGNORED for raw in range(34)})
TRAIN_IDS = labels(len(CLASS_NAMES), {one: one for one in range(len(CLASS_NAMES))})
FRAME, LABEL_IDS_END, TRAIN_IDS_END = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


def cityscapes(image_size: int, fraction: float, seed: int, root: Path, max_megapixels: int) -> tuple[Pairs, Pairs]:
    """Whole training and validation frames: an augmentation crops those for training, the task windows the others."""
    require((0 < fraction <= 1, "fraction", f"cityscapes: must lie in (0, 1], is {fraction}"))
    found = splits(root)
    hint = f"expected below the data root: {LAYOUT}\n  {SOURCE}"
    return load_pairs(
        "cityscapes", found["train"], found["val"], hint, root, None, fraction, seed, max_megapixels, strict=False
    )


def splits(root: Path) -> dict[str, Split]:
    """The frames of both splits. Masks of train ids are taken where every frame has one, else masks of label ids."""
    return {split: _split(root / "cityscapes", split) for split in ("train", "val")}


def _split(folder: Path, split: str) -> Split:
    frames, annotations = folder / "leftImg8bit" / split, folder / "gtFine" / split
    images = _ending(frames, FRAME)
    ready = _ending(annotations, TRAIN_IDS_END)
    trained = bool(ready) and {_frame(path) for path in images} <= {_frame(path) for path in ready}
    masks = ready if trained else _ending(annotations, LABEL_IDS_END)
    pairs, unmatched = match(images, masks, key=_frame, where=annotations)
    return Split(frames, pairs, unmatched, TRAIN_IDS if trained else LABEL_IDS, True, 0)


def _ending(folder: Path, end: str) -> list[Path]:
    try:
        cities = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error})") from error
    return [path for city in cities for path in files_in(city, (".png",)) if path.name.endswith(end)]


def _frame(path: Path) -> tuple[str, str]:
    """City and number of a frame: what its image and its masks have in common."""
    return path.parent.name, "_".join(path.name.split("_")[:-1]).removesuffix("_gtFine")
