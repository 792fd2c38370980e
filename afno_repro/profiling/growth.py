"""How the cost of token mixers grows with the number of tokens N: the power of N that fits it best.

1 is linear, 2 is quadratic; N log N fits as 1.13 from 14 x 14 tokens to 224 x 224.
"""

import math
import statistics
from dataclasses import dataclass

import torch

from afno_repro.backbones.layers import blocks_in
from afno_repro.config import ModelConfig
from afno_repro.errors import require
from afno_repro.models import build_model
from afno_repro.profiling.flops import count
from afno_repro.profiling.kept import FULL, Step

GROWTHS = ("flops_growth", "memory_growth", "params_growth")


@dataclass(frozen=True)
class Growth:
    """Over which images: those of the data's size, and `doublings` times twice as high and wide."""

    doublings: int

    def __post_init__(self) -> None:
        require((self.doublings > 0, "doublings", f"growth: must be at least 1, is {self.doublings}"))


def growth(model: ModelConfig, image_size: int, over: Growth) -> dict[str, float]:
    """The powers of N of the mixers' floating-point operations, of the bytes that a training step keeps inside of them
    beside their input, and of their parameters, by least squares on logarithms."""
    sizes = [image_size * 2**k for k in range(over.doublings + 1)]
    tokens = [2 * math.log(size) for size in sizes]  # as many times more as there are pixels
    costs = zip(*(_costs(model, size) for size in sizes), strict=True)
    return {
        name: statistics.linear_regression(tokens, [math.log(cost) for cost in each]).slope
        for name, each in zip(GROWTHS, costs, strict=True)
    }


def _costs(config: ModelConfig, image_size: int) -> tuple[float, int, int]:
    """Of one image: the mixers' operations, what they keep, and their parameters. Fused attention keeps no scores."""
    with torch.device("meta"):
        model = build_model(config, image_size)
    counted = count(model, image_size, FULL)
    step = Step([block.mixer for block in blocks_in(model)], [*model.parameters()])
    with torch.autograd.graph.saved_tensors_hooks(step.keep, lambda tensor: tensor), step:
        model(torch.empty(1, 3, image_size, image_size, device="meta"))
    return counted.mixer_gflops_full, sum(step.inside), counted.mixer_params
