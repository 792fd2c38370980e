import math
from dataclasses import replace

import pytest
import torch

from afno_repro.config import ModelConfig, Part, TrainConfig
from afno_repro.mixers.afno import AFNO
from afno_repro.models import build_model
from afno_repro.training.optim import learning_rate, make_optimizer, set_learning_rate, warmup_steps

pytestmark = pytest.mark.fast

RECIPE = TrainConfig(
    epochs=10,
    batch_size=4,
    optimizer="adamw",
    schedule="cosine",
    lr=0.1,
    min_lr=0.01,
    warmup={"steps": 5},
    head_lr_factor=10.0,
    weight_decay=0.5,
    decay="all",
    clip_norm=None,
    precision="float32",
    augment={"name": "flip"},
    eval_every=1,
)


def test_the_rate_rises_linearly_then_falls_as_a_cosine():
    rates = [learning_rate(RECIPE, step, 105, 5) for step in range(105)]
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[5] == pytest.approx(0.1)
    for step in range(5, 105):
        assert rates[step] == pytest.approx(0.01 + 0.045 * (1 + math.cos(math.pi * (step - 5) / 100)))
    assert rates[-1] < 0.0101


def test_a_constant_schedule_stays():
    constant = replace(RECIPE, schedule="constant")
    assert {learning_rate(constant, step, 100, 5) for step in range(5, 100)} == {0.1}


def test_a_warmup_is_given_in_steps_or_epochs():
    assert warmup_steps(RECIPE, 7) == 5
    assert warmup_steps(replace(RECIPE, warmup={"epochs": 3}), 7) == 21


def model():
    net = torch.nn.ModuleDict({"trunk": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    for p in net.parameters():
        torch.nn.init.ones_(p)
        p.grad = torch.zeros_like(p)
    return net


def test_decay_is_decoupled_in_adamw_and_part_of_the_gradient_in_adam():
    for kind, expected in (("adamw", 1 - 0.1 * 0.5), ("adam", 1 - 0.1)):  # without a gradient Adam's step has length lr
        net = model()
        optimizer = make_optimizer(net, replace(RECIPE, optimizer=kind))
        set_learning_rate(optimizer, 0.1)
        optimizer.step()
        assert net["trunk"].weight[0, 0].item() == pytest.approx(expected, abs=1e-6)


def test_the_head_has_its_own_rate():
    optimizer = make_optimizer(model(), RECIPE)
    set_learning_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 1.0])


MIXERS = {
    "afno": {"num_blocks": 2, "sparsity_threshold": 0.01, "keep": 1.0, "bias": "conv", "init_std": 0.02},
    "gfn": {"init_std": 0.02},
    "fno": {"modes": [2, 2], "init_std": 0.02},
    "self_attention": {"num_heads": 2},
    "long_short": {"num_heads": 2, "window": 4, "rank": 2},
}
VIT = Part("vit", {"patch_size": 4, "embed_dim": 8, "depth": 2, "mlp_ratio": 2, "skips": 2})
SEGFORMER = Part("segformer", {"embed_dims": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "mlp_ratio": 2, "learned_at": 32})
SWIN = Part("swin", {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window": 4, "drop_path": 0.0})
STREETS = Part("segformer", {"embed_dim": 8, "dropout": 0.1, "num_classes": 3})
NETWORKS = [
    *(ModelConfig(trunk, Part(*mixer), STREETS) for trunk in (VIT, SEGFORMER) for mixer in MIXERS.items()),
    ModelConfig(SWIN, None, STREETS),
]


def spared(net, decay):
    """The parameters that the optimiser does not decay."""
    groups = make_optimizer(net, replace(RECIPE, decay=decay)).param_groups
    assert {group["weight_decay"] for group in groups} <= {0.0, RECIPE.weight_decay}
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, net.parameters()))
    ids = {id(p) for group in groups if group["weight_decay"] == 0.0 for p in group["params"]}
    return {name for name, p in net.named_parameters() if id(p) in ids}


def parameters_of(net, *kinds):
    return {
        f"{name}.{own}" for name, module in net.named_modules() if isinstance(module, kinds)
        for own, _ in module.named_parameters(recurse=False)
    }  # fmt: skip


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: f"{config.backbone.name}-{config.mixer}"[:22])
def test_weight_decay_spares_what_the_named_recipe_exempts(config):
    net = build_model(config, 32)
    layers = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)
    biases = {name for name in parameters_of(net, *layers) if name.endswith(".bias")}
    norms = parameters_of(net, torch.nn.LayerNorm, torch.nn.BatchNorm2d)
    tables = {name for name, _ in net.named_parameters() if name.endswith("table")}  # learned positions
    assert bool(tables) == (config.backbone.name != "segformer")
    assert spared(net, "all") == set()
    assert spared(net, "all_but_vectors_and_positions") == norms | biases | tables
    spectral = {name for name in parameters_of(net, AFNO) if name[-2:] in ("b1", "b2")}
    assert spared(net, "all_but_norms_biases_and_positions") == norms | biases | tables | spectral


def test_groups_that_are_not_decayed_keep_the_head_s_rate():
    net = build_model(NETWORKS[0], 32)
    optimizer = make_optimizer(net, replace(RECIPE, decay="all_but_vectors_and_positions"))
    set_learning_rate(optimizer, 0.1)
    heads = {id(p) for name, p in net.named_parameters() if name.startswith("head.")}
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(1.0 if id(group["params"][0]) in heads else 0.1)
        assert len({id(p) in heads for p in group["params"]}) == 1
