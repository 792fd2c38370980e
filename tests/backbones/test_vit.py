import pytest
import torch

from afno_repro.backbones.layers import MLP, Block, Positions, sines
from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError
from afno_repro.models import build_model, check_model

pytestmark = pytest.mark.fast

GFN = Part("gfn", {"init_std": 0.02})
BACKBONE = {"patch_size": 4, "embed_dim": 16, "depth": 2, "mlp_ratio": 2, "skips": 2}


def config(mixer=GFN, head=None, **changes):
    return ModelConfig(Part("vit", {**BACKBONE, **changes}), mixer, head or Part("inpainting", {}))


def test_an_inpainting_network_predicts_an_image_of_any_size_that_the_patches_divide():
    model = build_model(config(), 32)
    for height, width in ((32, 32), (16, 40)):
        assert model(torch.randn(2, 3, height, width)).shape == (2, 3, height, width)


def test_an_untrained_inpainting_network_predicts_zero():
    assert build_model(config(), 16)(torch.randn(1, 3, 16, 16)).abs().max() == 0


def test_each_token_is_mapped_to_its_own_patch():
    model = build_model(config(), 16)
    torch.nn.init.normal_(model.head.project.weight)
    features = torch.zeros(1, 4, 4, 16)
    features[0, 1, 2] = 1.0
    changed = model.head([features]) != model.head([torch.zeros_like(features)])
    assert changed[0, :, 4:8, 8:12].all()
    assert changed.sum() == 3 * 4 * 4


def test_a_classifier_pools_the_mean_over_tokens():
    model = build_model(config(head=Part("classification", {"num_classes": 5})), 16)
    features = torch.randn(2, 4, 4, 16)
    torch.testing.assert_close(model.head([features]), model.head.project(features.flatten(1, 2).mean(1)))
    shuffled = features.flatten(1, 2)[:, torch.randperm(16)].unflatten(1, (4, 4))
    torch.testing.assert_close(model.head([features]), model.head([shuffled]))


def test_a_block_has_one_skip_or_two():
    x, mixer, mlp = torch.randn(1, 3, 3, 4), torch.nn.Linear(4, 4), MLP(4, 2)
    one, two = (Block(4, mixer, mlp, skips, eps=1e-6, drop_path=0.0) for skips in (1, 2))
    torch.testing.assert_close(one(x), x + mlp(one.norm2(mixer(one.norm1(x)))))
    mixed = x + mixer(two.norm1(x))
    torch.testing.assert_close(two(x), mixed + mlp(two.norm2(mixed)))


def test_positions_start_as_sines_of_row_and_column():
    table = sines(8, (5, 6))
    assert table.shape == (8, 5, 6)
    rows, columns = torch.arange(5.0), torch.arange(6.0)
    torch.testing.assert_close(table[0], rows.sin()[:, None].expand(5, 6))
    torch.testing.assert_close(table[3], (rows * 0.01).cos()[:, None].expand(5, 6))
    torch.testing.assert_close(table[4], columns.sin().expand(5, 6))
    assert sines(750, (3, 3)).shape == (750, 3, 3)


def test_positions_are_resized_to_another_grid():
    positions = Positions(4, (4, 4))
    positions.table.data = torch.arange(4.0)[:, None, None].expand(4, 4, 4).clone()  # the same at every token
    torch.testing.assert_close(positions(torch.zeros(1, 7, 9, 4))[0, 3, 3], torch.arange(4.0))
    plain = Positions(4, (4, 4))
    torch.testing.assert_close(plain(torch.zeros(1, 4, 4, 4))[0].permute(2, 0, 1), plain.table)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"patch_size": 5}, ("backbone", "patch_size")),
        ({"depth": 0}, ("backbone", "depth")),
        ({"skips": 3}, ("backbone", "skips")),
        ({"embed_dim": "wide"}, ("backbone", "embed_dim")),
        ({"depht": 2}, ("backbone", "depht")),
        ({"mixer": Part("fft", {})}, ("mixer", "name")),
        ({"mixer": None}, ("mixer",)),
        ({"head": Part("classification", {})}, ("head",)),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_built_names_the_key(change, key):
    with pytest.raises(ConfigError) as error:
        check_model(config(**change), 16)
    assert key in {p.key for p in error.value.problems}


def test_checking_takes_no_memory_for_the_papers_own_models():
    check_model(config(mixer=Part("self_attention", {"num_heads": 16}), embed_dim=768, depth=12, mlp_ratio=4), 224)


ATTENTION = [Part("self_attention", {"num_heads": 4}), Part("long_short", {"num_heads": 4, "window": 4, "rank": 2})]
SEGFORMER = {"embed_dims": [64, 64, 64, 64], "depths": [1, 1, 1, 1], "mlp_ratio": 4, "learned_at": 64}


@pytest.mark.parametrize("trunk", [Part("vit", {**BACKBONE, "embed_dim": 64}), Part("segformer", SEGFORMER)])
@pytest.mark.parametrize("mixer", ATTENTION, ids=lambda mixer: mixer.name)
def test_linear_layers_start_from_the_normal_asked_for_or_as_pytorch_s(trunk, mixer):
    def linear(std):
        backbone = Part(trunk.name, {**trunk.options, "linear_std": std})
        head = Part("classification", {"num_classes": 100, "linear_std": std})
        found = build_model(ModelConfig(backbone, mixer, head), 64)
        return [module for module in found.modules() if isinstance(module, torch.nn.Linear)], found

    torch.manual_seed(0)
    layers, model = linear(0.05)
    for layer in layers:
        spread = 4 * 0.05 / (2 * layer.weight.numel()) ** 0.5
        assert abs(layer.weight.std().item() - 0.05) < spread
        assert layer.bias is None or not layer.bias.any()
    torch.manual_seed(0)
    layers, other = linear(None)
    for layer in layers:
        bound = layer.in_features**-0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound
    others = dict(other.named_parameters())
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert torch.equal(module.weight, others[f"{name}.weight"])


@pytest.mark.parametrize("kind", ["backbone", "head"])
def test_a_deviation_that_is_none_is_refused(kind):
    trunk = Part("vit", {**BACKBONE, "linear_std": 0.0 if kind == "backbone" else None})
    head = Part("classification", {"num_classes": 4, "linear_std": 0.0 if kind == "head" else None})
    with pytest.raises(ConfigError) as error:
        check_model(ModelConfig(trunk, Part("gfn", {"init_std": 0.02}), head), 64)
    assert [problem.key for problem in error.value.problems] == [(kind, "linear_std")]
