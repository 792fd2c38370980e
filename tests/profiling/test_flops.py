import math

import pytest
import torch

from afno_repro.config import ModelConfig, Part
from afno_repro.models import build_model
from afno_repro.profiling.flops import CountingRule, count

ONE_PRODUCT = CountingRule(attention_products=1, conv_bias=False, inner_norm=0, upsampling=0, mixer_fft=0.0)
BOTH_PRODUCTS = CountingRule(attention_products=2, conv_bias=True, inner_norm=5, upsampling=4, mixer_fft=0.5)


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

    assert macs(Part("gfn", {"init_std": 0.02})) == pytest.approx(rest)
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
    got = counted(
        dim, depth, Part("long_short", {"num_heads": heads, "window": window, "rank": rank}), image_size, patch
    )
    assert got.gflops * 1e9 == pytest.approx(rest + depth * layer)
    assert got.mixer_gflops * 1e9 == pytest.approx(depth * layer)


@pytest.mark.parametrize("rule", [ONE_PRODUCT, BOTH_PRODUCTS])
@pytest.mark.parametrize(
    "mixer",
    [Part("gfn", {"init_std": 0.02}), afno(3, "conv"), Part("self_attention", {"num_heads": 6})],
    ids=lambda m: m.name,
)
@pytest.mark.parametrize(("dim", "depth", "image_size", "patch"), CASES)
def test_the_mlps_are_counted_apart(dim, depth, image_size, patch, mixer, rule):
    n, _ = sizes(image_size, patch)
    got = counted(dim, depth, mixer, image_size, patch, rule)
    assert got.mlp_gflops * 1e9 == pytest.approx(8 * n * dim**2 * depth)
    assert got.mlp_share == pytest.approx(8 * n * dim**2 * depth / (got.gflops * 1e9))


@pytest.mark.parametrize(("dim", "depth", "image_size", "patch"), CASES)
def test_full_operations_add_transforms_and_elementwise_work(dim, depth, image_size, patch):
    n, m = sizes(image_size, patch)
    h = image_size // patch
    transforms = depth * dim * (2.5 * n * math.log2(n) + 2.5 * n * math.log2(h) + 5 * m * math.log2(h))
    gfn, spectral = (
        counted(dim, depth, Part("gfn", {"init_std": 0.02}), image_size, patch),
        counted(dim, depth, afno(3), image_size, patch),
    )
    assert gfn.gflops_full * 1e9 == pytest.approx(2e9 * gfn.gflops + transforms + 6 * m * dim * depth)
    assert spectral.gflops_full * 1e9 == pytest.approx(2e9 * spectral.gflops + transforms + 16 * m * dim * depth)
    assert spectral.mixer_gflops_full * 1e9 == pytest.approx(
        2e9 * spectral.mixer_gflops + transforms + 16 * m * dim * depth
    )


@pytest.mark.fast
def test_the_norms_of_a_mixer_and_half_its_transforms_count_where_the_rule_says_so():
    dim, depth, n, m, h, rank = 96, 3, 64, 8 * 5, 8, 4
    mixer = Part("long_short", {"num_heads": 6, "window": 1, "rank": rank})
    without, with_norms = (
        counted(dim, depth, mixer, 32, 4, rule).gflops * 1e9 for rule in (ONE_PRODUCT, BOTH_PRODUCTS)
    )
    assert with_norms - without == pytest.approx(5 * depth * 2 * (n + rank) * dim)
    gfn = counted(dim, depth, Part("gfn", {"init_std": 0.02}), 32, 4, BOTH_PRODUCTS)
    transforms = depth * dim * (2.5 * n * math.log2(n) + 2.5 * n * math.log2(h) + 5 * m * math.log2(h))
    assert gfn.mixer_gflops * 1e9 == pytest.approx(transforms / 2)
    assert gfn.gflops == pytest.approx(counted(dim, depth, Part("gfn", {"init_std": 0.02}), 32, 4, ONE_PRODUCT).gflops)


@pytest.mark.parametrize(("dims", "size"), [((8, 16, 40, 64), 64), ((16, 24, 48, 64), 128)])
def test_segformer_equals_its_closed_form(dims, size):
    depths, ratio, out, classes, reductions = [1, 2, 1, 1], 2, 16, 19, [8, 4, 2, 1]
    options = {"embed_dims": list(dims), "depths": depths, "mlp_ratio": ratio, "learned_at": 64}
    mixer = Part("efficient_self_attention", {"num_heads": [1, 2, 4, 8], "reduction": reductions})
    head = Part("segformer", {"embed_dim": out, "dropout": 0.1, "num_classes": classes})
    with torch.device("meta"):
        model = build_model(ModelConfig(Part("segformer", options), mixer, head), size)
    macs, mixers, mlps = 0, 0, 0
    for i, (dim, depth, reduction) in enumerate(zip(dims, depths, reductions, strict=True)):
        n = (size // 2 ** (i + 2)) ** 2
        keys = n // reduction**2
        layer = (
            2 * n * dim**2
            + 2 * keys * dim**2
            + 2 * n * keys * dim
            + (keys * reduction**2 * dim**2 if reduction > 1 else 0)
        )
        mixers += depth * layer
        macs += n * dim * ((3 * 49) if i == 0 else dims[i - 1] * 9)  # the patch embedding
        mlps += depth * (2 * n * ratio * dim**2 + 9 * n * ratio * dim)
        macs += n * dim * out
    fine = (size // 4) ** 2
    macs += mixers + mlps + fine * (4 * out * out + out * classes)
    norms = 5 * sum(
        d * (size // 2 ** (i + 2)) ** 2 // r**2 * w
        for i, (d, r, w) in enumerate(zip(depths, reductions, dims, strict=True))
        if r > 1
    )
    got, ruled = count(model, size, ONE_PRODUCT), count(model, size, BOTH_PRODUCTS)
    products = sum(
        d * (size // 2 ** (i + 2)) ** 4 // r**2 * w
        for i, (d, r, w) in enumerate(zip(depths, reductions, dims, strict=True))
    )
    assert got.gflops * 1e9 == pytest.approx(macs - products)
    assert ruled.gflops * 1e9 == pytest.approx(macs + 4 * 3 * fine * out + norms)
    assert ruled.mixer_gflops * 1e9 == pytest.approx(mixers + norms)
    assert got.mlp_gflops * 1e9 == ruled.mlp_gflops * 1e9 == pytest.approx(mlps)


def test_fno_and_static_afno_cost_what_their_kept_modes_cost():
    dim, depth, n = 24, 2, 64
    rest = 8 * n * dim**2 * depth + 2 * n * 48 * dim
    fno = counted(dim, depth, Part("fno", {"modes": [3, 2], "init_std": 0.02}), 32)
    assert fno.gflops * 1e9 == pytest.approx(rest + depth * 4 * 12 * dim**2)
    assert fno.mixer_params == depth * 2 * 12 * dim**2
    options = {"num_blocks": 4, "sparsity_threshold": 0.1, "modes": [3, 2], "bias": "identity", "init_std": 0.02}
    static = counted(dim, depth, Part("afno_static", options), 32)
    assert static.gflops * 1e9 == pytest.approx(rest + depth * 4 * 12 * dim**2 / 4)
    kept = counted(dim, depth, Part("afno", {**afno(4).options, "keep": 0.5}), 32)
    assert kept.gflops * 1e9 == pytest.approx(rest + depth * 8 * (4 * 3) * dim**2 / 4)


def test_public_counters_agree_where_they_are_right():
    from fvcore.nn import FlopCountAnalysis
    from torch.utils.flop_counter import FlopCounterMode

    backbone = Part("resnet", {"depth": 50})
    config = ModelConfig(backbone, None, Part("segformer", {"embed_dim": 32, "dropout": 0.1, "num_classes": 19}))
    model = build_model(config, 64).eval()
    with torch.device("meta"):
        ours = count(build_model(config, 64), 64, ONE_PRODUCT).gflops * 1e9
    images = torch.zeros(1, 3, 64, 64)
    theirs = FlopCountAnalysis(model, images).unsupported_ops_warnings(False)
    by_operator = theirs.by_operator()
    assert by_operator["conv"] + by_operator["linear"] == pytest.approx(ours, rel=1e-4)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    assert counter.get_total_flops() == pytest.approx(2 * ours)


@pytest.mark.fast
def test_parameters_of_a_mixer_and_of_the_model():
    dim, depth, blocks = 96, 3, 3
    got = counted(dim, depth, afno(blocks), 32)
    assert got.mixer_params == depth * (4 * dim**2 // blocks + 4 * dim)
    rest = depth * (8 * dim**2 + 9 * dim) + (48 * dim + dim) + 64 * dim + 2 * dim + 48 * dim + 48
    assert got.params == got.mixer_params + rest


def test_the_reference_classifier_has_its_published_number_of_parameters():
    assert counted(256, 12, afno(4), 32, head=Part("classification", {"num_classes": 10})).params == 7_149_834
