import math

import pytest
import torch
from torch import nn

from afno_repro.backbones.layers import MLP, Block
from afno_repro.errors import ConfigError
from afno_repro.mixers import AFNO, FNO, SelfAttention
from afno_repro.models import build_model
from afno_repro.spec.plan import plan_runs
from afno_repro.visualize.resolution import Resolution, change, resampled
from tests.specs import all_specs

pytestmark = pytest.mark.fast
SPECS = {spec.name: spec for spec in all_specs()}
(BOUND,) = {claim.below for claim in SPECS["table6"].structure.claims if "change" in claim.column}
WAVES = ((0, 0, 0.3), (1, 0, 0.5), (2, 3, -1.0), (-3, 1, 0.7), (0, 2, 0.2))  # cycles a side, and how high


def sampled(height, width):
    """A sum of waves at the tokens of a grid, in two channels: 1 H W 2."""
    y, x = torch.arange(height).double()[:, None] / height, torch.arange(width).double() / width
    value = sum(a * torch.cos(2 * math.pi * (u * y + v * x) + a) for u, v, a in WAVES)
    return torch.stack([value, value.flip(0)], dim=-1)[None]


@pytest.mark.parametrize("grid", [(7, 7), (8, 8), (9, 12)])
@pytest.mark.parametrize("finer", [(16, 16), (18, 24), (21, 36)])
def test_tokens_go_on_as_the_waves_they_are_made_of(grid, finer):
    torch.testing.assert_close(resampled(sampled(*grid), finer)[..., 0], sampled(*finer)[..., 0])


def test_a_mode_at_the_grid_s_limit_is_left_out():
    stripes = torch.tensor([1.0, -1.0]).repeat(4)[None, :, None, None].expand(1, 8, 8, 1)
    assert resampled(stripes.double(), (16, 16)).abs().max() < 1e-12


@pytest.mark.parametrize("grid", [(8, 8), (9, 12)])
@pytest.mark.parametrize("factor", [2, 3])
def test_fno_gives_the_same_on_a_finer_grid(grid, factor):
    torch.manual_seed(0)
    tokens = torch.randn(1, *grid, 6)
    assert change(FNO(6, grid, modes=[3, 3], init_std=0.3), tokens, factor) < 1e-5


def afno(threshold, biases):
    torch.manual_seed(0)
    mixer = AFNO(6, (8, 8), num_blocks=2, sparsity_threshold=threshold, keep=1.0, bias="none", init_std=0.3)
    for bias in (mixer.b1, mixer.b2):
        nn.init.constant_(bias, biases)
    return mixer


def test_afno_does_where_nothing_in_it_has_a_size_of_its_own():
    tokens = torch.randn(1, 8, 8, 6)
    assert change(afno(0.0, 0.0), tokens, 2) < 1e-5
    assert change(afno(0.1, 0.0), tokens, 2) > 0.01  # the spectrum is twice as large there, the threshold is not
    assert change(afno(0.0, 0.1), tokens, 2) > 0.01


def test_of_table_6_s_afno_it_is_the_biases_that_move():
    """A new mode is zero before the block, and not after a bias; that moves more than the threshold does."""
    config = plan_runs(SPECS["table6"], "tiny").needs["afno", "pretrain", 0].config
    torch.manual_seed(0)
    model = build_model(config.model, config.data.image_size)
    images = [torch.randint(256, (3, 32, 32), dtype=torch.uint8) for _ in range(2)]
    moved = Resolution(32, factor=2).compute(model, images, []).metrics["change"]
    for mixer in [module for module in model.modules() if isinstance(module, AFNO)]:
        nn.init.zeros_(mixer.b1)
        nn.init.zeros_(mixer.b2)
    without = Resolution(32, factor=2).compute(model, images, []).metrics["change"]
    assert without < BOUND < moved / 10


def network(mixers):
    """Patches of 4 pixels in 6 channels, and a block for each mixer."""
    blocks = [Block(6, mixer, MLP(6, 2), skips=2, eps=1e-6, drop_path=0.0) for mixer in mixers]
    patches = nn.Conv2d(3, 6, 4, stride=4)
    return nn.Sequential(patches, ChannelsLast(), *blocks)


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def test_a_network_s_change_is_the_mean_of_its_layers_and_images():
    torch.manual_seed(0)
    images = [torch.randint(256, (3, 32, 32), dtype=torch.uint8) for _ in range(3)]
    fno = FNO(6, (8, 8), modes=[3, 3], init_std=0.3)
    alone = Resolution(32, factor=2).compute(network([afno(0.1, 0.1)]), images, [])
    assert len(alone.repeats["change"]) == len(images)
    assert alone.metrics["change"] == pytest.approx(sum(alone.repeats["change"]) / 3)
    torch.manual_seed(0)
    seen = Resolution(32, factor=2).compute(network([fno, fno]), images, [])
    assert seen.metrics["change"] < 1e-5
    torch.manual_seed(1)
    attention = network([SelfAttention(6, (8, 8), num_heads=2)])
    of_two = network([SelfAttention(6, (8, 8), num_heads=2), fno])
    for mine, theirs in ((0, 0), (2, 2)):  # the same patches and first block
        of_two[mine].load_state_dict(attention[theirs].state_dict())
    both, first = (Resolution(32, factor=2).compute(each, images, []).metrics["change"] for each in (of_two, attention))
    assert both == pytest.approx(first / 2, rel=1e-3)


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ConfigError, match="must be at least 2, is 1"):
        Resolution(32, factor=1)
    with pytest.raises(ConfigError, match="no token mixers"):
        Resolution(32, factor=2).check(nn.Conv2d(3, 6, 4))
