"""Swin from its own options: torchvision's networks at their published sizes, tiny ones at ours."""

from pathlib import Path

import pytest
import torch
import torchvision.models as tv

from afno_repro.backbones import Swin
from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError
from afno_repro.models import build_model, check_model
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.weights.convert import convert

FIG1 = Path(__file__).parents[2] / "experiments" / "fig1.yaml"
SMALL = {
    "embed_dim": 8,
    "depths": [1, 2, 1, 1],
    "num_heads": [1, 2, 2, 4],
    "window": 4,
    "drop_path": 0.1,
    "final_norm": False,
}
PUBLISHED = {"swin_tiny": tv.swin_t, "swin_small": tv.swin_s, "swin_base": tv.swin_b}


def no_mixer(*_):
    raise AssertionError("Swin has no token mixer of ours")


def swin_options(row: str) -> dict:
    """The options that Figure 1 states for a row."""
    return next(
        run.config.model.backbone.options
        for (key, _, _), run in plan_runs(load_spec(FIG1), "paper").needs.items()
        if key == row
    )


@pytest.mark.parametrize("row", PUBLISHED)
def test_figure_1_states_the_networks_of_torchvision(row):
    with torch.device("meta"):
        theirs, ours = PUBLISHED[row](weights=None), Swin(224, no_mixer, **swin_options(row))
    expected = {
        name.removeprefix("features."): value.shape
        for name, value in theirs.state_dict().items()
        if not name.startswith("head.")
    }
    found = {name if name.startswith("norm.") else name.split(".", 2)[2] for name in ours.state_dict()}
    assert found == set(expected)
    assert sum(p.numel() for p in ours.parameters()) + theirs.head.weight.numel() + len(theirs.head.bias) == sum(
        p.numel() for p in theirs.parameters()
    )
    drops = [[m.p for m in net.modules() if type(m).__name__ == "StochasticDepth"] for net in (ours, theirs)]
    assert drops[0] == drops[1]


@pytest.mark.parametrize("row", PUBLISHED)
def test_weights_show_the_same_networks_as_figure_1(row, tmp_path):
    torch.save(PUBLISHED[row](weights=None).state_dict(), tmp_path / "theirs.pth")
    assert convert(tmp_path / "theirs.pth", "swin").model.backbone.options == swin_options(row)


def test_the_last_map_is_normed_and_the_others_are_not():
    torch.manual_seed(0)
    normed = Swin(64, no_mixer, **{**SMALL, "final_norm": True}).eval()
    plain = Swin(64, no_mixer, **SMALL).eval()
    plain.load_state_dict(normed.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64)
    *rest, last = plain(images)
    expected = [*rest, (last - last.mean(-1, keepdim=True)) / (last.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()]
    for found, features in zip(normed(images), expected, strict=True):
        torch.testing.assert_close(found, features)


@pytest.mark.parametrize("window", [4, 7])
def test_a_tiny_swin_maps_64_pixels_to_four_grids(window):
    swin = Swin(64, no_mixer, **{**SMALL, "window": window})
    features = swin(torch.randn(2, 3, 64, 64))
    assert [tuple(f.shape) for f in features] == [(2, 16, 16, 8), (2, 8, 8, 16), (2, 4, 4, 32), (2, 2, 2, 64)]
    sum(f.square().mean() for f in features).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in swin.parameters())


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("embed_dim", 0, "must be above 0"),
        ("depths", [2, 2, 6], "must be four depths"),
        ("depths", [2, 2, 0, 2], "must be four depths"),
        ("num_heads", [1, 2, 4], "must be four numbers"),
        ("num_heads", [1, 2, 0, 4], "must be four numbers"),
        ("num_heads", [3, 2, 2, 4], r"must divide the stages' widths \[8, 16, 32, 64\]"),
        ("window", 0, "must be at least 1"),
        ("drop_path", 1.0, r"must lie in \[0, 1\)"),
        ("drop_path", -0.1, r"must lie in \[0, 1\)"),
        ("depths", 2, "must be a list of whole numbers"),
    ],
)
def test_a_bad_option_of_swin_is_named(option, value, says):
    config = ModelConfig(Part("swin", {**SMALL, option: value}), None, Part("classification", {"num_classes": 4}))
    with pytest.raises(ConfigError, match=says) as told:
        check_model(config, 64)
    assert [p.key for p in told.value.problems] == [("backbone", option)]


def test_a_swin_is_built_from_a_spec():
    config = ModelConfig(
        Part("swin", SMALL), None, Part("segformer", {"embed_dim": 8, "dropout": 0.1, "num_classes": 3})
    )
    assert build_model(config, 64)(torch.randn(2, 3, 64, 64)).shape == (2, 3, 16, 16)


def test_convolutions_lie_channels_last_and_compute_the_same():
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(Part("mobilenet_v2", {}), None, Part("linear_segmentation", {"num_classes": 3})), 64
    ).eval()
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(each.weight.is_contiguous(memory_format=torch.channels_last) for each in convolutions)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = model(images)
        for each in convolutions:
            each.to(memory_format=torch.contiguous_format)
        torch.testing.assert_close(model(images), found, rtol=1e-4, atol=1e-4)
