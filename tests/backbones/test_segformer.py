import pytest
import torch

from afno_repro.backbones.layers import Block
from afno_repro.backbones.trunks import MobileNetV2, ResNet, Swin
from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError
from afno_repro.models import build_model, check_model

ESA = Part("efficient_self_attention", {"num_heads": [1, 2, 5, 8], "reduction": [8, 4, 2, 1]})
HEAD = Part("segformer", {"embed_dim": 16, "dropout": 0.1, "num_classes": 19})
SIZES = {  # Xie et al. 2021: widths and depths of B0 to B3, and millions of parameters of their encoders
    "B0": ([32, 64, 160, 256], [2, 2, 2, 2], 3.319),
    "B1": ([64, 128, 320, 512], [2, 2, 2, 2], 13.151),
    "B2": ([64, 128, 320, 512], [3, 4, 6, 3], 24.196),
    "B3": ([64, 128, 320, 512], [3, 4, 18, 3], 44.072),
}


def config(mixer=ESA, head=HEAD, dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), learned_at=64, **changes):
    options = {"embed_dims": list(dims), "depths": list(depths), "mlp_ratio": 2, "learned_at": learned_at, **changes}
    return ModelConfig(Part("segformer", options), mixer, head)


@pytest.mark.parametrize("name", SIZES)
def test_encoders_have_their_published_number_of_parameters(name):
    dims, depths, millions = SIZES[name]
    with torch.device("meta"):
        encoder = build_model(config(dims=dims, depths=depths, mlp_ratio=4), 224).backbone
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 3) == millions


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (224, 160)])
def test_four_maps_on_ever_coarser_grids_and_scores_on_the_finest(size):
    model = build_model(config(), 64).eval()
    features = model.backbone(torch.randn(1, 3, *size))
    assert [f.shape[1:3] for f in features] == [(size[0] // s, size[1] // s) for s in (4, 8, 16, 32)]
    assert [f.shape[-1] for f in features] == model.backbone.dims
    assert model(torch.randn(1, 3, *size)).shape == (1, 19, size[0] // 4, size[1] // 4)


MIXERS = [
    Part("long_short", {"num_heads": [1, 2, 5, 8], "window": 4, "rank": 2}),
    Part("gfn", {"init_std": 0.02}),
    Part("fno", {"modes": [2, 2], "init_std": 0.02}),
    Part(
        "afno",
        {
            "num_blocks": 4,
            "sparsity_threshold": 0.01,
            "keep": [1.0, 0.5, 0.5, 1.0],
            "bias": "identity",
            "init_std": 0.02,
        },
    ),
]


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda m: m.name)
def test_any_mixer_fits_every_stage_and_another_resolution_than_it_was_made_for(mixer):
    model = build_model(config(mixer), 64).eval()
    for size in (64, 128):
        assert model(torch.randn(1, 3, size, size)).shape == (1, 19, size // 4, size // 4)


def test_an_option_may_have_a_value_for_each_stage():
    model = build_model(config(MIXERS[3]), 64)
    kept = [stage[1].mixer.keep for stage in model.backbone.stages]
    assert kept == [1.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"mixer": Part("efficient_self_attention", {"num_heads": [1, 2, 5], "reduction": 1})}, ("mixer", "num_heads")),
        (
            {"mixer": Part("efficient_self_attention", {"num_heads": [1, 2, 3, 8], "reduction": 1})},
            ("mixer", "num_heads"),
        ),
        ({"dims": (8, 16, 40)}, ("backbone", "embed_dims")),
        ({"depths": (1, 1, 0, 1)}, ("backbone", "depths")),
        ({"learned_at": 60}, ("backbone", "learned_at")),
        ({"head": Part("segformer", {"embed_dim": 16, "num_classes": 19})}, ("head",)),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_built_names_the_key(changes, key):
    with pytest.raises(ConfigError) as error:
        check_model(config(**changes), 64)
    assert key in {p.key for p in error.value.problems}


def test_an_image_size_that_the_strides_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="needs an image size that 32 divides, is 100"):
        check_model(config(), 100)


def test_a_trunk_takes_no_mixer_and_a_transformer_needs_one():
    with pytest.raises(ConfigError, match="resnet takes no token mixer"):
        check_model(ModelConfig(Part("resnet", {"depth": 50}), ESA, HEAD), 64)
    with pytest.raises(ConfigError, match="segformer needs a token mixer"):
        check_model(config(None), 64)


@pytest.mark.parametrize(
    ("trunk", "options"),
    [
        (
            Swin,
            {
                "embed_dim": 24,
                "depths": [1, 1, 1, 1],
                "num_heads": [1, 2, 4, 8],
                "window": 4,
                "drop_path": 0.0,
                "final_norm": True,
            },
        ),
        (ResNet, {"depth": 50}),
        (MobileNetV2, {}),
    ],
    ids=lambda x: str(x),
)
def test_trunks_give_four_maps_of_the_widths_they_announce(trunk, options):
    with torch.device("meta"):
        net = trunk(64, None, **options)
        features = net(torch.empty(1, 3, 64, 96))
    assert [f.shape[1:] for f in features] == [
        (64 // s, 96 // s, d) for s, d in zip(net.strides, net.dims, strict=True)
    ]


def test_a_trunk_computes_what_torchvision_computes():
    import torchvision

    whole = torchvision.models.resnet50(weights=None).eval()
    trunk = ResNet(64, None, 50).eval()
    trunk.load_state_dict(dict(zip(trunk.state_dict(), list(whole.state_dict().values())[:-2], strict=True)))
    x = torch.randn(1, 3, 64, 64)
    pooled = trunk(x)[-1].mean((1, 2))
    torch.testing.assert_close(whole.fc(pooled), whole(x))


def test_the_all_mlp_head_is_linear_maps_of_resized_features():
    from torch.nn.functional import interpolate, linear, relu

    head = build_model(config(), 64).head.eval()
    features = [torch.randn(1, 8 // 2**i, 8 // 2**i, d) for i, d in enumerate((8, 16, 40, 64))]
    maps = []
    for x, projection in zip(features, head.projections, strict=True):
        y = linear(x, projection.weight, projection.bias).permute(0, 3, 1, 2)
        maps.append(interpolate(y, size=(8, 8), mode="bilinear", align_corners=False))
    fused = linear(torch.cat(maps[::-1], 1).permute(0, 2, 3, 1), head.fuse[0].weight[:, :, 0, 0])
    fused = relu(fused / (1 + head.fuse[1].eps) ** 0.5)  # batch norm with its initial statistics
    expected = linear(fused, head.classify.weight[:, :, 0, 0], head.classify.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(head(features), expected, atol=1e-5, rtol=1e-5)


def blocks(model):
    return [module for module in model.modules() if isinstance(module, Block)]


def test_branches_are_dropped_linearly_more_often_by_depth_in_training_alone():
    depths, images = (1, 2, 4, 1), torch.randn(2, 3, 64, 64)
    plain, model = (build_model(config(depths=depths, drop_path=rate), 64) for rate in (0.0, 0.35))
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval()(images), plain.eval()(images))
        x = torch.rand(4000, 1, 1, 3) + 1
        for i, block in enumerate(blocks(model.train())):
            kept = block.drop(x) / x  # per sample: 0, or what makes up for those
            assert (kept - kept[:, :, :, :1]).abs().max() < 1e-6
            rate = 0.35 * i / 7
            assert abs((kept == 0).float().mean().item() - rate) < 4 * (rate * (1 - rate) / 4000) ** 0.5 + 1e-9
            assert kept[kept > 0].mean().item() == pytest.approx(1 / (1 - rate), rel=1e-5)


def test_a_dropped_branch_leaves_what_it_was_given():
    block = blocks(build_model(config(drop_path=0.5), 64))[-1].train()
    block.drop.keep.fill_(1e-12)
    x = torch.randn(2, 2, 2, 64)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_drop_path_that_is_no_probability_is_refused(rate):
    with pytest.raises(ConfigError, match="drop_path"):
        check_model(config(drop_path=rate), 64)
