"""Memory of training steps, estimated and as a GPU took it: `python -m benchmarks.estimates [--of NVIDIA-H200]`.

The measurements are those that `benchmarks.steps` left of a device; the estimates are those of `--dry-run`, made on any
machine, with a GPU or without.
"""

import argparse
import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import torch

from afno_repro.profiling.kept import network
from benchmarks.side_by_side import RESULTS, write
from benchmarks.steps import configs

HEADER = ["table", "row", "precision", "images", "GPU, estimated MiB", "GPU, measured MiB", "measured / estimated"]


@contextmanager
def autocast_anywhere() -> Iterator[None]:
    """Inside, mixed precision of a GPU is no question of whether there is one, nor which."""
    absent = mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", return_value=False)
    with absent, mock.patch.object(torch.cuda, "is_bf16_supported", return_value=True):
        yield


def estimated_mib(table: str, row: str, precision: str, images: int) -> float:
    """Of a step at paper scale on a GPU."""
    config = configs(table, "paper")[row]
    assert config.train is not None
    net = network(replace(config, train=replace(config.train, precision=precision)))
    with autocast_anywhere():
        return net.training_bytes(images, "cuda") / 2**20


def beside(step: dict[str, str]) -> list[str]:
    """A measured step's line."""
    table, row, precision, images = (step[key] for key in HEADER[:4])
    estimated, measured = estimated_mib(table, row, precision, int(images)), float(step["GPU, measured MiB"])
    return [table, row, precision, images, f"{estimated:.0f}", f"{measured:.0f}", f"{measured / estimated:.2f}"]


def main() -> None:
    """Estimate every step that was measured as it trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", default="NVIDIA-H200", help="a folder of benchmarks/results/")
    of = parser.parse_args().of
    with (RESULTS / of / "steps.csv").open(newline="") as file:
        steps = [step for step in csv.DictReader(file) if step["form"] == "as trained" and step["GPU, measured MiB"]]
    title = "Memory of a training step at paper scale, as in steps.md and as estimated without a GPU, by this torch"
    print(write("estimates", of, title, HEADER, [beside(step) for step in steps]).read_text())


if __name__ == "__main__":
    main()
