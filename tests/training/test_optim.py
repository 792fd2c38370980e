import math
from dataclasses import replace

import pytest
import torch

from afno_repro.config import TrainConfig
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
