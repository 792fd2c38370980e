"""Each layout of published weights computes what its network computes, written here from the papers' equations.

The literal passes read tensors by the layout's own names and share no code with the package.
"""

import math

import pytest
import torch
from torch.nn.functional import conv2d, gelu, interpolate, layer_norm, linear, relu, softshrink

from afno_repro.models import build_model
from afno_repro.weights.convert import convert
from afno_repro.weights.formats import Told
from afno_repro.weights.load import load_weights
from tests.weights.test_convert import AFNO, CLASSES, GFN, segformer_shapes, tensors, vit_shapes, write

HEADS = (1, 2, 5, 8)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small(shapes):
    """Random tensors of moderate size: norms around one, everything else small."""
    return {
        name: 1 + 0.2 * value if value.ndim == 1 and not name.endswith("bias") else 0.2 * value
        for name, value in tensors(shapes).items()
    }


def found(folder, state, format_name, images, **told):
    """What the converted network makes of images."""
    conversion = convert(write(folder, state), format_name, Told(**told))
    model = build_model(conversion.model, images.shape[-1])
    load_weights(model, conversion.weights)
    with torch.no_grad():
        return model.double().eval()(images.double()), conversion


class Named:
    """Tensors of a state dict below a prefix, in float64."""

    def __init__(self, state, prefix=""):
        self.state, self.prefix = state, prefix

    def __call__(self, name):
        return Named(self.state, f"{self.prefix}{name}.")

    def __getitem__(self, name):
        return self.state[self.prefix + name].double()

    def __contains__(self, name):
        return self.prefix + name in self.state

    def linear(self, x):
        return linear(x, self["weight"].flatten(1), self["bias"])

    def norm(self, x, eps):
        return layer_norm(x, x.shape[-1:], self["weight"], self["bias"], eps)


# --- ViT with AFNO or GFN, as the authors name it


def spectral_vit(state, images, mix, residuals, patch=4):
    w = Named(state)
    x = conv2d(images.double(), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch)
    grid = x.shape[2:]
    x = x.flatten(2).transpose(1, 2) + w["pos_embed"]  # B N C
    for i in range(1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))):
        b = w(f"blocks.{i}")
        mixed = mix(b("filter"), b("norm1").norm(x, 1e-6).unflatten(1, grid)).flatten(1, 2)
        if residuals == 2:
            x = x + mixed
            mixed = x
        mlp = b("mlp.fc2").linear(gelu(b("mlp.fc1").linear(b("norm2").norm(mixed, 1e-6))))
        x = x + mlp
    return w("head").linear(w("norm").norm(x, 1e-6).mean(1))


def afno_mix(threshold):
    """Equations 6-8 with real and imaginary weights apart, and either the tokens or a 1x1 convolution of them."""

    def mix(f, x):
        k = f["w1"].shape[1]
        z = torch.fft.rfft2(x, dim=(1, 2), norm="ortho")
        z = z.unflatten(-1, (k, -1))
        w1, b1, w2, b2 = (torch.complex(*f[name]) for name in ("w1", "b1", "w2", "b2"))
        z = torch.einsum("bhwki,kio->bhwko", z, w1) + b1
        z = torch.complex(relu(z.real), relu(z.imag))
        z = torch.einsum("bhwki,kio->bhwko", z, w2) + b2
        z = torch.complex(softshrink(z.real, threshold), softshrink(z.imag, threshold)).flatten(-2)
        y = torch.fft.irfft2(z, s=x.shape[1:3], dim=(1, 2), norm="ortho")
        return y + (linear(x, f["bias.weight"][..., 0], f["bias.bias"]) if "bias.weight" in f else x)

    return mix


def gfn_mix(f, x):
    z = torch.fft.rfft2(x, dim=(1, 2), norm="ortho") * torch.view_as_complex(f["complex_weight"])
    return torch.fft.irfft2(z, s=x.shape[1:3], dim=(1, 2), norm="ortho")


def check(ours, theirs):
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)  # weights go through float32 alike


@pytest.mark.parametrize("residuals", [1, 2])
@pytest.mark.parametrize("convolution", [False, True])
def test_afno_with_one_residual_or_two_and_either_bias(residuals, convolution, tmp_path):
    mixer = AFNO | ({"bias.weight": (8, 8, 1), "bias.bias": (8,)} if convolution else {})
    state, images = small(vit_shapes(mixer)), torch.randn(2, 3, 16, 16)
    ours, conversion = found(tmp_path, state, "afno", images, residuals=residuals)
    check(ours, spectral_vit(state, images, afno_mix(0.01), residuals))
    assert conversion.unexpected == []


def test_gfnet(tmp_path):
    state, images = small(vit_shapes(GFN)), torch.randn(2, 3, 16, 16)
    check(found(tmp_path, state, "gfnet", images)[0], spectral_vit(state, images, gfn_mix, 1))


def test_gfnet_on_a_grid_that_is_not_square(tmp_path):
    state = small(vit_shapes({"complex_weight": (4, 9, 8, 2)}, grid=8))
    conversion = convert(write(tmp_path, state), "gfnet")
    assert conversion.weights["backbone.positions.table"].shape == (8, 4, 16)
    assert conversion.resized == []
    model = build_model(conversion.model, conversion.learned_at)
    model.backbone.positions.table = torch.nn.Parameter(torch.empty(8, 4, 16))
    for block in model.backbone.blocks:
        block.mixer.filter = torch.nn.Parameter(torch.empty(4, 9, 8, 2))
    model.load_state_dict(conversion.weights)
    images = torch.randn(2, 3, 16, 64)
    with torch.no_grad():
        check(model.double()(images.double()), spectral_vit(state, images, gfn_mix, 1))


# --- SegFormer


def attention(q, k, v, heads):
    """Softmax of scaled products, head by head (B N C)."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(-2)


def mix_transformer(images, embed, norm_of, block, depth=2):
    """Four maps (B, H, W, C): strided convolutions with norm, blocks with two residuals, a norm."""
    maps, x = [], images.double()
    for s in range(4):
        e, n = embed(s)
        kernel, stride = (7, 4) if s == 0 else (3, 2)
        x = conv2d(x, e["weight"], e["bias"], stride=stride, padding=kernel // 2)
        grid = x.shape[2:]
        x = n.norm(x.flatten(2).transpose(1, 2), 1e-5)
        for i in range(depth):
            b = block(s, i)
            x = x + b.attend(b.norm1.norm(x, 1e-6), grid, HEADS[s])
            x = x + b.feed(b.norm2.norm(x, 1e-6), grid)
        x = norm_of(s).norm(x, 1e-6).transpose(1, 2).unflatten(2, grid)
        maps.append(x)
    return maps


class MiTBlock:
    """A block by the names of the parts that layouts call otherwise; `qkv` maps tokens and their reduction to three."""

    def __init__(self, b, norm1, norm2, qkv, reduce, reduced_norm, project, expand, depthwise, contract):
        self.norm1, self.norm2, self.qkv = b(norm1), b(norm2), qkv
        self.reduce, self.reduced_norm, self.project = b(reduce), b(reduced_norm), b(project)
        self.expand, self.depthwise, self.contract = b(expand), b(depthwise), b(contract)
        self.b = b

    def attend(self, x, grid, heads):
        few = x
        if "weight" in self.reduce:
            size = self.reduce["weight"].shape[-1]
            few = x.transpose(1, 2).unflatten(2, grid)
            few = conv2d(few, self.reduce["weight"], self.reduce["bias"], stride=size).flatten(2).transpose(1, 2)
            few = self.reduced_norm.norm(few, 1e-5)
        return self.project.linear(attention(*self.qkv(self.b, x, few), heads))

    def feed(self, x, grid):
        x = self.expand.linear(x).transpose(1, 2).unflatten(2, grid)
        x = conv2d(x, self.depthwise["weight"], self.depthwise["bias"], padding=1, groups=x.shape[1])
        return self.contract.linear(gelu(x).flatten(2).transpose(1, 2))


def authors_qkv(b, x, few):
    return b("attn.q").linear(x), *b("attn.kv").linear(few).chunk(2, dim=-1)


def mm_qkv(b, x, few):
    weights, biases = b["attn.attn.in_proj_weight"].chunk(3), b["attn.attn.in_proj_bias"].chunk(3)
    return tuple(linear(t, w, c) for t, w, c in zip((x, few, few), weights, biases, strict=True))


AUTHORS_BLOCK = ("norm1", "norm2", authors_qkv, "attn.sr", "attn.norm", "attn.proj")
AUTHORS_BLOCK = (*AUTHORS_BLOCK, "mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2")
MM_BLOCK = ("norm1", "norm2", mm_qkv, "attn.sr", "attn.norm", "attn.attn.out_proj")
MM_BLOCK = (*MM_BLOCK, "ffn.layers.0", "ffn.layers.1", "ffn.layers.4")


def authors_maps(state, images, prefix="", depth=2):
    w = Named(state, prefix)
    return mix_transformer(
        images,
        lambda s: (w(f"patch_embed{s + 1}.proj"), w(f"patch_embed{s + 1}.norm")),
        lambda s: w(f"norm{s + 1}"),
        lambda s, i: MiTBlock(w(f"block{s + 1}.{i}"), *AUTHORS_BLOCK),
        depth,
    )


def test_segformer_by_its_authors_names(tmp_path):
    state, images = small(segformer_shapes()), torch.randn(2, 3, 64, 64)
    state["decode_head.linear_fuse.bn.num_batches_tracked"] = torch.tensor(3)
    state["decode_head.linear_fuse.bn.running_var"] = torch.rand(12) + 0.5
    ours, _ = found(tmp_path, state, "segformer", images, num_heads=HEADS)
    maps, h = authors_maps(state, images, "backbone."), Named(state, "decode_head.")
    parts = []
    for i, x in enumerate(maps, start=1):
        x = h(f"linear_c{i}.proj").linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
        parts.append(interpolate(x, size=maps[0].shape[2:], mode="bilinear", align_corners=False))
    x = conv2d(torch.cat(parts[::-1], dim=1), h["linear_fuse.conv.weight"])
    bn = h("linear_fuse.bn")
    scale = bn["weight"] / (bn["running_var"] + 1e-5).sqrt()
    x = relu((x - bn["running_mean"][:, None, None]) * scale[:, None, None] + bn["bias"][:, None, None])
    check(ours, conv2d(x, h["linear_pred.weight"], h["linear_pred.bias"]))


def test_mit_by_its_authors_names(tmp_path):
    state, images = small(segformer_shapes(depth=1, full=False)), torch.randn(2, 3, 64, 64)
    last = authors_maps(state, images, depth=1)[-1].mean((2, 3))
    check(found(tmp_path, state, "segformer", images, num_heads=HEADS)[0], Named(state)("head").linear(last))


def mm_shapes():
    """The same network's trunk by mmsegmentation's names: one map for queries, keys and values, 1x1 convolutions."""
    shapes = {}
    for name, shape in segformer_shapes(full=False).items():
        part, *rest = name.split(".")
        stage = int(part[-1]) - 1 if part[-1].isdigit() else None
        if part.startswith("patch_embed"):
            shapes[".".join([f"layers.{stage}.0", rest[0].replace("proj", "projection"), *rest[1:]])] = shape
        elif part.startswith("norm"):
            shapes[".".join([f"layers.{stage}.2", *rest])] = shape
        elif part.startswith("block"):
            end = ".".join(rest[1:])
            for old, new in (("mlp.fc1", "ffn.layers.0"), ("mlp.dwconv.dwconv", "ffn.layers.1")):
                end = end.replace(old, new)
            end = end.replace("mlp.fc2", "ffn.layers.4").replace("attn.proj", "attn.attn.out_proj")
            end = end.replace("attn.q.weight", "attn.attn.in_proj_weight").replace(
                "attn.q.bias", "attn.attn.in_proj_bias"
            )
            if ".kv." in end:
                continue
            shape = (3 * shape[0], *shape[1:]) if "in_proj" in end else shape
            shape = (*shape, 1, 1) if end in ("ffn.layers.0.weight", "ffn.layers.4.weight") else shape
            shapes[f"layers.{stage}.1.{rest[0]}.{end}"] = shape
    return {f"backbone.{name}": shape for name, shape in shapes.items()}


def test_mit_by_mmsegmentations_names(tmp_path):
    decoder = {"decode_head.convs.0.conv.weight": (12, 8, 1, 1), "decode_head.conv_seg.bias": (CLASSES,)}
    state, images = small(mm_shapes() | decoder), torch.randn(1, 3, 64, 64)
    conversion = convert(write(tmp_path, state), "segformer", Told(num_heads=HEADS))
    assert set(conversion.unexpected) == set(decoder)  # another decoder than SegFormer's authors'
    assert {name.partition(".")[0] for name in conversion.missing} == {"head"}
    trunk = build_model(conversion.model, 64).double().eval()
    load_weights(trunk, conversion.weights)
    w = Named(state, "backbone.")
    expected = mix_transformer(
        images,
        lambda s: (w(f"layers.{s}.0.projection"), w(f"layers.{s}.0.norm")),
        lambda s: w(f"layers.{s}.2"),
        lambda s, i: MiTBlock(w(f"layers.{s}.1.{i}"), *MM_BLOCK),
    )
    with torch.no_grad():
        for ours, theirs in zip(trunk.backbone(images.double()), expected, strict=True):
            check(ours.permute(0, 3, 1, 2), theirs)
