"""Batches from files to the device: `python -m benchmarks.loading [--device auto] [--workers 0 4 8 16]`.

JPEG files of the installed photographs, cropped as Table 2's training crops them. Pixels travel as bytes and are
normalised on the device; `float32` is what they would be if loading processes did it. `images/s` counts from the
second batch on, without the processes' start.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice, product
from math import inf
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2.functional import to_pil_image

from afno_repro.data.folder import folder
from afno_repro.data.loader import loader
from afno_repro.data.photos import photograph
from afno_repro.data.samples import TRAIN, Samples, TrainingBatches
from afno_repro.runs.devices import find_device
from afno_repro.runs.provenance import device_name
from afno_repro.tasks import TASKS
from afno_repro.training.augment import augmented
from benchmarks.side_by_side import NO_TIME, paced, write
from benchmarks.steps import configs

NAMES = ("astronaut", "chelsea", "china", "coffee", "flower", "grace_hopper", "motorcycle", "rocket")
HEADER = ["processes", "pixels travel as", "images/s"]
SIDE, FOLDER = 160, "photographs"  # pixels of a file's side, and where files lie below the data root


def photographs(root: Path, count: int) -> None:
    """Files for training and one for validation: squares of photographs, cut at random."""
    generator = torch.Generator().manual_seed(0)
    for split, size in (("train", count), ("val", 1)):
        place = root / FOLDER / split
        place.mkdir(parents=True)
        for i, name in islice(enumerate(cycle(NAMES)), size):
            pixels = photograph(name)
            y, x = (int(torch.randint(side - SIDE + 1, (), generator=generator)) for side in pixels.shape[1:])
            to_pil_image(pixels[:, y : y + SIDE, x : x + SIDE]).save(place / f"{i}.jpg", quality=90)


def rate(samples: Samples, batch: int, workers: int, enter: Callable[[Any], Any], device: torch.device) -> float:
    """Images a second that arrive on the device, two passes over all of them."""
    batches, started, images = TrainingBatches(len(samples.images), batch, 2, 0, 0), 0.0, 0
    for parts in loader(samples, batches, workers, pin_memory=device.type == "cuda"):
        enter(tuple(part.to(device, non_blocking=True) for part in parts))
        images += batch if started else 0
        started = started or time.perf_counter()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return images / (time.perf_counter() - started)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", default="paper", help="whose crops are taken")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 4, 8, 16])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=inf, help="within which lines are begun that can end")
    asked = parser.parse_args()
    device, config = torch.device(find_device(asked.device)), configs("table2", asked.scale)["afno"]
    assert config.train is not None
    torch.set_num_threads(1)
    side = config.data.image_size
    task, lines = TASKS[config.task.name](side, **config.task.options), list[list[str]]()
    prepare = augmented(config.train, side, task)
    with tempfile.TemporaryDirectory() as root:
        photographs(Path(root), asked.images)
        images, _ = folder(side, 1.0, 0, Path(root), FOLDER, 0.875, [], "bilinear", None, 100)
        ways: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
            "bytes": (prepare, task.enter),
            "float32": (lambda example, rng: task.enter(prepare(example, rng)), lambda batch: batch),
        }
        for (workers, way), begins in paced(product(asked.workers, ways), asked.seconds):
            made, enter = ways[way]
            found = rate(Samples(images, made, 0, TRAIN), asked.batch, workers, enter, device) if begins else None
            lines.append([str(workers), way, NO_TIME if found is None else f"{found:.0f}"])
            path = write("loading", device_name(device.type), "Batches from files to the device", HEADER, lines)
    print(path.read_text())


if __name__ == "__main__":
    main()
