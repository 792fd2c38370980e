"""What feeds and scores a training, beside its usual forms: `python -m benchmarks.pipeline [--rounds 61]`.

Masks against a Python loop, SSIM and the confusion matrix against torchmetrics (extra `bench`) and scikit-image,
reading and cropping photographs against Pillow, one thread. Each pair computes the same first: the same mask, the same
map to TOLERANCE, the same counts, the same photograph to a grey level on average; a difference ends the benchmark
with 1.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torch import Tensor
from torchvision.transforms.v2.functional import normalize, pil_to_tensor, resized_crop, to_dtype, to_pil_image

from afno_repro.data.masks import MOVES, visited
from afno_repro.data.photos import photograph
from afno_repro.data.reading import read_image
from afno_repro.data.transforms import cut, resize_example
from afno_repro.metrics import SSIM, MeanIoU
from afno_repro.runs.provenance import device_name
from afno_repro.tasks.inputs import IMAGENET_MEAN, IMAGENET_STD, centred
from benchmarks.side_by_side import timed, write

TOLERANCE = 1e-6
SIDE, STEPS, CLASSES = 224, 3136, 21
Variants = dict[str, Callable[[], Any]]


def looped(start: "np.ndarray[Any, Any]", moves: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The walk step by step; one that would leave the grid stays put."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    row, column = start
    mask[row, column] = True
    for move in moves:
        down, right = MOVES[move]
        if 0 <= row + down < SIDE and 0 <= column + right < SIDE:
            row, column = row + down, column + right
        mask[row, column] = True
    return mask


def masks(rng: np.random.Generator) -> Variants:
    """One mask of A.2's walk on pixels, where no border is met: folding gives the walk's law, not its every path."""
    inside = rng.permutation(np.repeat(np.arange(4, dtype=np.uint8), 12))
    start, moves = np.array([SIDE // 2, SIDE // 2]), rng.integers(4, size=STEPS, dtype=np.uint8)
    if not np.array_equal(looped(start, inside), visited(start, inside, SIDE, SIDE)):
        sys.exit("the masks differ")
    return {"Python loop": partial(looped, start, moves), "folded walk": partial(visited, start, moves, SIDE, SIDE)}


def similarity(rng: np.random.Generator) -> Variants:
    """SSIM of one 224 x 224 colour image, with the metric over hidden pixels in ours alone."""
    x = torch.from_numpy(rng.random((1, 3, SIDE, SIDE)))
    y = (x + 0.1 * torch.from_numpy(rng.standard_normal(x.shape))).clamp(0, 1)
    hidden = torch.ones(1, SIDE, SIDE, dtype=torch.bool)

    def ours() -> float:
        metric = SSIM()
        metric.update(x, y, hidden)
        return metric.values["ssim"][0]

    def scikit() -> float:
        return float(
            structural_similarity(
                x[0].numpy(),
                y[0].numpy(),
                channel_axis=0,
                data_range=1,
                gaussian_weights=True,
                use_sample_covariance=False,
            )
        )

    variants: Variants = {"scikit-image": scikit, "shifted sums": ours}
    if abs(ours() - scikit()) > TOLERANCE:
        sys.exit(f"SSIM differs: {ours()} and {scikit()}")
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        return variants
    theirs = partial(structural_similarity_index_measure, x.float(), y.float(), data_range=1.0)
    return {"torchmetrics": theirs, **variants}


def confusion(rng: np.random.Generator) -> Variants:
    """The confusion matrix of four 512 x 512 maps of 21 classes, a tenth of their pixels ignored."""
    shape = (4, 512, 512)
    prediction, label = (torch.from_numpy(rng.integers(CLASSES, size=shape)) for _ in range(2))
    label[torch.from_numpy(rng.random(shape) < 0.1)] = 255

    def ours() -> Tensor:
        metric = MeanIoU(CLASSES, "skip")
        metric.update(prediction, label)
        return metric.confusion

    def masked() -> Tensor:
        kept = label < CLASSES
        return torch.bincount(label[kept] * CLASSES + prediction[kept], minlength=CLASSES**2).view(CLASSES, CLASSES)

    if not torch.equal(ours(), masked()):
        sys.exit("the confusion matrices differ")
    variants: Variants = {"masked bincount": masked, "a class for the ignored": ours}
    try:
        from torchmetrics.functional.classification import multiclass_confusion_matrix
    except ImportError:
        return variants
    theirs = partial(multiclass_confusion_matrix, prediction, label, num_classes=CLASSES, ignore_index=255)
    if not torch.equal(ours(), theirs()):
        sys.exit("the confusion matrix differs from torchmetrics")
    return {"torchmetrics": theirs, **variants}


def photographs(folder: Path) -> list[Path]:
    """Photographs of the installed packages as JPEG files of ImageNet's usual size, a short side of 256 pixels."""
    files = []
    for name in ("astronaut", "chelsea", "china", "coffee", "flower", "grace_hopper", "motorcycle", "rocket"):
        image = to_pil_image(photograph(name))
        image = image.resize([round(256 * side / min(image.size)) for side in image.size])
        files.append(folder / f"{name}.jpg")
        image.save(files[-1], quality=90)
    return files


def reading(files: list[Path], side: int = 200) -> Variants:
    """Reading eight photographs and resizing a square of each to 224 pixels: uint8 tensors."""

    def pillow() -> list[Tensor]:
        images = []
        for file in files:
            with Image.open(file) as image:
                images.append(pil_to_tensor(resized_crop(image.convert("RGB"), 0, 0, side, side, [SIDE, SIDE])))
        return images

    def ours() -> list[Tensor]:
        return [resize_example(cut((read_image(file), None), 0, 0, side), SIDE, SIDE)[0] for file in files]

    differences = [
        float((one.float() - other.float()).abs().mean()) for one, other in zip(pillow(), ours(), strict=True)
    ]
    if max(differences) > 1:
        sys.exit(f"the photographs differ by {differences} grey levels on average")
    return {"Pillow": pillow, "decode_jpeg": ours}


def entering(files: list[Path]) -> Variants:
    """The same photographs from their files to what a network takes: float32, by ImageNet's mean and deviation."""
    pixels = reading(files)

    def usual() -> list[Tensor]:
        return [
            normalize(to_dtype(image, torch.float32, scale=True), list(IMAGENET_MEAN), list(IMAGENET_STD))
            for image in pixels["Pillow"]()
        ]

    def ours() -> list[Tensor]:
        return [centred(image, "imagenet") for image in pixels["decode_jpeg"]()]

    differences = [
        float((one - other).abs().mean()) * 255 * max(IMAGENET_STD) for one, other in zip(usual(), ours(), strict=True)
    ]
    if max(differences) > 1:
        sys.exit(f"what enters a network differs by {differences} grey levels on average")
    return {"Pillow, v2 transforms": usual, "decode_jpeg, in place": ours}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=61)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rng, lines = np.random.default_rng(0), list[list[str]]()
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(Path(folder))
        paths = {"mask": masks(rng), "SSIM": similarity(rng), "confusion matrix": confusion(rng)}
        paths |= {"8 photographs": reading(files), "8 photographs for a network": entering(files)}
        for path, variants in paths.items():
            for name, found in timed(variants, rounds, torch.device("cpu")).items():
                lines.append(
                    [
                        path,
                        name,
                        f"{1000 * found.median_s:.2f}",
                        f"{found.ratio:.1f}",
                        f"{found.low:.1f}-{found.high:.1f}",
                    ]
                )
    print(
        write(
            "pipeline", device_name("cpu"), "Input and scores", ["path", "variant", "ms", "ratio", "10-90%"], lines
        ).read_text()
    )


if __name__ == "__main__":
    main()
