"""Whole backbones under torch.compile: one graph, and steps that equal eager ones."""

import copy
import shutil
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from afno_repro.backbones import SegFormer, ViT
from afno_repro.config import ModelConfig, Part
from afno_repro.mixers import MIXERS
from afno_repro.models import build_model
from afno_repro.runs.machine import COMPILERS
from afno_repro.tasks import TASKS
from afno_repro.training import blocks, loop
from tests.mixers.test_contract import OPTIONS
from tests.training.test_optim import RECIPE

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


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch.compiler.reset()


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


@pytest.mark.parametrize("mixer", sorted(MIXERS))
def test_a_compiler_meets_no_complex_number(mixer):
    """It has no code of its own for them, and before PyTorch 2.14 misjudged how spectra lie in memory."""
    met = list[torch.dtype]()

    def look(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> torch.fx.GraphModule:
        values = [node.meta.get("example_value") for node in graph.graph.nodes]
        met.extend(value.dtype for value in values if isinstance(value, torch.Tensor))
        return graph

    network = trunk("segformer", mixer)  # at another grid than the mixers were made for
    network.compile(dynamic=False, fullgraph=True, backend=look)
    network(torch.rand(2, 3, 2 * SIZE, SIZE))
    assert met
    assert not any(dtype.is_complex for dtype in met)


def test_every_network_of_a_command_is_compiled(monkeypatch):
    """Graphs of other networks do not count: PyTorch makes so many of a function, and then goes on without a word."""
    monkeypatch.setattr(blocks, "GRAPHS", 2)
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        for mixer in ("gfn", "afno", "fno", "afno_static"):
            network = nn.ModuleDict({"backbone": trunk("vit", mixer)})
            blocks.compile_backbone(network, "eager")
            network["backbone"](torch.rand(1, 3, SIZE, SIZE))


def test_blocks_of_a_shape_share_a_graph_whatever_their_depth_and_rate_of_dropping():
    torch.manual_seed(0)
    make, options = TRUNKS["segformer"]
    deep = options | {"embed_dims": [8, 16, 8, 8], "depths": [2, 3, 2, 2], "drop_path": 0.5}
    mixer = partial(MIXERS["gfn"], **OPTIONS["gfn"])
    network = nn.ModuleDict({"backbone": make(SIZE, lambda dim, grid, stage: mixer(dim, grid), **deep)})
    blocks.compile_backbone(network, "eager")
    counters.clear()
    for _ in range(2):
        network["backbone"](torch.rand(2, 3, SIZE, SIZE))
    assert counters["stats"]["unique_graphs"] == 4 + 1  # the first block drops nothing
    assert not counters["graph_break"]


def test_blocks_that_are_computed_again_are_compiled_all_the_same():
    plain, again = trunk("vit", "afno"), trunk("vit", "afno")
    blocks.recompute_blocks(again)
    blocks.compile_backbone(nn.ModuleDict({"backbone": again}), "eager")
    images = torch.rand(2, 3, SIZE, SIZE)
    counters.clear()
    for ours, theirs in zip(step(again, images), step(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


TASK = {  # a backbone's task, its options, its head, its batch
    "vit": (
        ("inpainting", {"walk": {"grid": "pixels", "steps": 64}}),
        Part("inpainting", {}),
        (torch.rand(4, 3, SIZE, SIZE), torch.rand(4, SIZE, SIZE) < 0.5),
    ),
    "segformer": (
        ("segmentation", {"num_classes": 4, "input": "image_mean", "stride": SIZE, "absent": "skip"}),
        Part("segformer", {"embed_dim": 8, "dropout": 0.0, "num_classes": 4}),
        (torch.rand(4, 3, SIZE, SIZE), torch.randint(4, (4, SIZE, SIZE))),
    ),
}


@pytest.mark.slow  # the compiler's minute each; a training that is compiled has a test in training/test_loop.py
@pytest.mark.parametrize(("name", "mixer"), product(TRUNKS, sorted(MIXERS)))
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler")
def test_a_training_step_by_inductor_equals_an_eager_one_within_1e4(name, mixer):
    """The command's own: its loss, its clipping, micro-batches; gradients and weights of plain gradient descent.

    Adam's first step has the length of its rate whatever the gradient is, and would show the sign of rounding errors.
    """
    (kind, options), head, batch = TASK[name]
    torch.manual_seed(0)
    eager = build_model(ModelConfig(Part(name, TRUNKS[name][1]), Part(mixer, OPTIONS[mixer]), head), SIZE)
    nn.init.normal_(next(eager.head.parameters()), std=0.1)  # which zeros would hide the backbone's gradients behind
    compiled, task = copy.deepcopy(eager), TASKS[kind](SIZE, **options)
    blocks.compile_backbone(compiled)
    parts = [tuple(part[:2] for part in batch), tuple(part[2:] for part in batch)]
    losses = [
        loop.optimise(
            each, torch.optim.SGD(each.parameters(), lr=0.5, fused=True), task, parts, replace(RECIPE, clip_norm=1.0)
        )
        for each in (eager, compiled)
    ]
    torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)
    for theirs, ours in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
