import math

import pytest
import torch

from afno_repro.config import ModelConfig, Part
from afno_repro.models import build_model
from afno_repro.profiling.flops import CountingRule, count

ONE_PRODUCT = CountingRule(attention_products=1, conv_bias=False)
BOTH_PRODUCTS = CountingRule(attention_products=2, conv_bias=True)


def counted(dim, depth, mixer, image_size=224, patch=4, rule=ONE_PRODUCT, ratio=4, head=None):
    backbone = Part("vit", {"patch_size": patch, "embed_dim": dim, "depth": depth, "mlp_ratio": ratio, "skips": 2})
    with torch.device("meta"):
        model = build_model(ModelConfig(backbone, mixer, head or Part("inpainting", {})), image_size)
    return count(model, image_size, rule)


def afno(blocks, bias="identity"):
    return Part("afno", {"num_blocks": blocks, "sparsity_threshold": 0.01, "keep": 1.0, "bias": bias, "init_std": 0.02})


def sizes(image_size, patch):
    h = image_size // patch
    return h * h, h * (h // 2 + 1)


CASES = [(96, 3, 32, 4), (60, 2, 40, 8), (768, 12, 224, 4), (750, 12, 224, 4)]


@pytest.mark.parametrize(("dim", "depth", "image_size", "patch"), CASES)
def test_multiply_accumulates_equal_the_closed_forms(dim, depth, image_size, patch):
    n, m = sizes(image_size, patch)
    rest = 8 * n * dim**2 * depth + 2 * n * 3 * patch**2 * dim

    def macs(mixer, rule=ONE_PRODUCT):
        return counted(dim, depth, mixer, image_size, patch, rule).gflops * 1e9

    assert macs(Part("gfn", {})) == pytest.approx(rest)
    heads = Part("self_attention", {"num_heads": 6})
    assert macs(heads) == pytest.approx(rest + depth * (4 * n * dim**2 + n**2 * dim))
    assert macs(heads, BOTH_PRODUCTS) == pytest.approx(rest + depth * (4 * n * dim**2 + 2 * n**2 * dim))
    assert macs(afno(3)) == pytest.approx(rest + depth * 8 * m * dim**2 / 3)
    assert macs(afno(3, "conv")) == pytest.approx(rest + depth * 8 * m * dim**2 / 3)
    assert macs(afno(3, "conv"), BOTH_PRODUCTS) == pytest.approx(rest + depth * (8 * m * dim**2 / 3 + n * dim**2))


@pytest.mark.parametrize(("dim", "depth", "image_size", "patch"), CASES)
def test_long_short_equals_its_closed_form(dim, depth, image_size, patch):
    n, _ = sizes(image_size, patch)
    heads, rank, window = 6, 4, 1
    keys = (window + 2) ** 2
    layer = 4 * n * dim**2 + n * dim * rank * heads + 4 * n * rank * dim + 2 * n * keys * dim
    rest = 8 * n * dim**2 * depth + 2 * n * 3 * patch**2 * dim
    got = counted(dim, depth, Part("long_short", {"num_heads": heads, "window": window, "rank": rank}), image_size, patch)
    assert got.gflops * 1e9 == pytest.approx(rest + depth * layer)
    assert got.mixer_gflops * 1e9 == pytest.approx(depth * layer)


@pytest.mark.parametrize(("dim", "depth", "image_size", "patch"), CASES)
def test_full_operations_add_transforms_and_elementwise_work(dim, depth, image_size, patch):
    n, m = sizes(image_size, patch)
    h = image_size // patch
    transforms = depth * dim * (2.5 * n * math.log2(n) + 2.5 * n * math.log2(h) + 5 * m * math.log2(h))
    gfn, spectral = counted(dim, depth, Part("gfn", {}), image_size, patch), counted(dim, depth, afno(3), image_size, patch)
    assert gfn.gflops_full * 1e9 == pytest.approx(2e9 * gfn.gflops + transforms + 6 * m * dim * depth)
    assert spectral.gflops_full * 1e9 == pytest.approx(2e9 * spectral.gflops + transforms + 16 * m * dim * depth)
    assert spectral.mixer_gflops_full * 1e9 == pytest.approx(2e9 * spectral.mixer_gflops + transforms + 16 * m * dim * depth)


def test_parameters_of_a_mixer_and_of_the_model():
    dim, depth, blocks = 96, 3, 3
    got = counted(dim, depth, afno(blocks), 32)
    assert got.mixer_params == depth * (4 * dim**2 // blocks + 4 * dim)
    rest = depth * (8 * dim**2 + 9 * dim) + (48 * dim + dim) + 64 * dim + 2 * dim + 48 * dim + 48
    assert got.params == got.mixer_params + rest


def test_the_reference_classifier_has_its_published_number_of_parameters():
    assert counted(256, 12, afno(4), 32, head=Part("classification", {"num_classes": 10})).params == 7_149_834
