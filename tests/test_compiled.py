"""Whole backbones under torch.compile: one graph, and steps that equal eager ones."""

import copy
from itertools import product

import pytest
import torch
from torch import nn

from afno_repro.backbones import SegFormer, ViT
from afno_repro.mixers import MIXERS
from tests.mixers.test_contract import OPTIONS

TRUNKS = {
    "vit": (ViT, {"patch_size": 4, "embed_dim": 8, "depth": 2, "mlp_ratio": 2, "skips": 2, "linear_std": None}),
    "segformer": (
        SegFormer,
        {
            "embed_dims": [8] * 4,
            "depths": [1] * 4,
            "mlp_ratio": 2,
            "learned_at": 64,
            "drop_path": 0.0,
            "linear_std": None,
        },
    ),
}
SIZE = 64


def trunk(name: str, mixer: str) -> nn.Module:
    torch.manual_seed(0)
    make, options = TRUNKS[name]
    return make(SIZE, lambda dim, grid, stage: MIXERS[mixer](dim, grid, **OPTIONS[mixer]), **options)


def step(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The maps and all gradients of one step."""
    maps = network(images)
    torch.stack([each.square().mean() for each in maps]).sum().backward()
    return [*maps, *(weight.grad for weight in network.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("mixer", sorted(MIXERS))
@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("eager", "vit"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [("eager", "segformer"), *product(["inductor"], TRUNKS)]
        ),
    ],
)
def test_a_step_is_one_graph_and_equals_an_eager_one_within_1e4(backend, name, mixer):
    eager = trunk(name, mixer)
    compiled = copy.deepcopy(eager)
    compiled.compile(dynamic=False, fullgraph=True, backend=backend)
    images = torch.rand(2, 3, SIZE, SIZE)
    for ours, theirs in zip(step(compiled, images), step(eager, images), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
