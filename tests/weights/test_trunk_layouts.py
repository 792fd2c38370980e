"""Swin and ResNet by everybody's names: a literal Swin, torchvision's ResNet renamed, the packages themselves."""

import re

import pytest
import torch
from torch.nn.functional import conv2d, gelu

from afno_repro.errors import ConfigError
from afno_repro.weights.convert import convert
from tests.weights.test_convert import CLASSES, affine, randomise, write
from tests.weights.test_layouts import Named, check, found, small

DIM, DEPTHS, HEADS, WINDOW = 8, [2, 1, 2, 1], [1, 2, 4, 4], 4


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def swin_shapes():
    """Microsoft's names."""
    shapes = affine("patch_embed.proj", DIM, 3, 4, 4) | affine("patch_embed.norm", DIM)
    for s, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        dim = DIM * 2**s
        for i in range(depth):
            b = f"layers.{s}.blocks.{i}"
            shapes |= affine(f"{b}.norm1", dim) | affine(f"{b}.norm2", dim) | affine(f"{b}.attn.qkv", 3 * dim, dim)
            shapes |= affine(f"{b}.attn.proj", dim, dim) | affine(f"{b}.mlp.fc1", 4 * dim, dim)
            shapes |= affine(f"{b}.mlp.fc2", dim, 4 * dim)
            shapes[f"{b}.attn.relative_position_bias_table"] = ((2 * WINDOW - 1) ** 2, heads)
        if s < 3:
            shapes |= affine(f"layers.{s}.downsample.norm", 4 * dim)
            shapes[f"layers.{s}.downsample.reduction.weight"] = (2 * dim, 4 * dim)
    return shapes | affine("norm", 8 * DIM) | affine("head", CLASSES, 8 * DIM)


def window_attention(a, x, heads, shift):
    """Attention of each token (B H W C) to those of its shifted window, not across the wrapped border."""
    height, width = x.shape[1:3]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()])  # 2 N
    moved = (places - shift) % torch.tensor([[height], [width]])
    groups = torch.cat([moved // WINDOW, places < shift])  # window and side of the border, alike for those who meet
    meet = (groups[:, :, None] == groups[:, None, :]).all(0)
    apart = (moved[:, :, None] - moved[:, None, :]).clamp(1 - WINDOW, WINDOW - 1) + WINDOW - 1
    bias = a["relative_position_bias_table"][apart[0] * (2 * WINDOW - 1) + apart[1]].permute(2, 0, 1)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in a("qkv").linear(x.flatten(1, 2)).chunk(3, -1))
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias).masked_fill(~meet, -torch.inf)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
    return a("proj").linear(mixed).view_as(x)


def swin(state, images):
    w = Named(state)
    x = conv2d(images.double(), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=4)
    x = w("patch_embed.norm").norm(x.permute(0, 2, 3, 1), 1e-5)
    for s, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        for i in range(depth):
            b = w(f"layers.{s}.blocks.{i}")
            shift = WINDOW // 2 if i % 2 and x.shape[1] > WINDOW else 0
            x = x + window_attention(b("attn"), b("norm1").norm(x, 1e-5), heads, shift)
            x = x + b("mlp.fc2").linear(gelu(b("mlp.fc1").linear(b("norm2").norm(x, 1e-5))))
        if s < 3:
            d = w(f"layers.{s}.downsample")
            x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
            x = d("norm").norm(x, 1e-5) @ d["reduction.weight"].T
    return w("head").linear(w("norm").norm(x, 1e-5).mean((1, 2)))


def microsoft(state):
    """The buffers that its files hold beside what is learned."""
    places = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")).flatten(1)
    apart = places[:, :, None] - places[:, None, :] + WINDOW - 1
    blocks = {name.split(".attn.")[0] for name in state if ".attn." in name}
    index = {f"{b}.attn.relative_position_index": apart[0] * (2 * WINDOW - 1) + apart[1] for b in blocks}
    return state | index | {"layers.0.blocks.1.attn_mask": torch.zeros(64, 16, 16)}


def timm(state, moved=1):
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) + moved}.downsample", name)
        renamed[name.replace("head.", "head.fc.")] = value
    return renamed


def hugging_face(state, parts, names):
    renamed = {}
    for name, value in state.items():
        name = name.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        name = name.replace("patch_embed.norm", "embeddings.norm").replace("layers.", "encoder.layers.")
        name = re.sub("^norm", "layernorm", name)
        for old, new in names.items():
            name = name.replace(old, new)
        name = f"classifier.{name[5:]}" if name.startswith("head.") else f"swin.{name}"
        if ".attn.qkv." in name:
            renamed |= {name.replace("attn.qkv", p): v for p, v in zip(parts, value.chunk(3), strict=True)}
        else:
            renamed[name] = value
    return dict(sorted(renamed.items()))  # as files have them: keys before queries


def hugging_face_files(state):
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense"}
    names |= {"mlp.fc2": "output.dense", "attn.proj": "attention.output.dense"}
    names |= {"attn.relative": "attention.self.relative"}
    return hugging_face(state, [f"attention.self.{part}" for part in ("query", "key", "value")], names)


def hugging_face_memory(state):
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
    names |= {"attn.relative": "attention.relative_position_bias.relative"}
    return hugging_face(state, [f"attention.{part}_proj" for part in "qkv"], names)


SPELLINGS = {
    "microsoft": microsoft,
    "timm": timm,
    "timm before 0.9": lambda state: timm(microsoft(state), moved=0),
    "hugging face, files": hugging_face_files,
    "hugging face, memory": hugging_face_memory,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_swin_computes_what_its_paper_says_by_any_names(spelling, tmp_path):
    state, images = small(swin_shapes()), torch.randn(1, 3, 128, 128)
    ours, conversion = found(tmp_path, SPELLINGS[spelling](state), "swin", images)
    check(ours, swin(state, images))
    options = conversion.model.backbone.options
    assert (options["num_heads"], options["window"], options["final_norm"]) == (HEADS, WINDOW, True)
    assert all("attn_mask" in name for name in conversion.unexpected)


def by_hugging_face(state):
    """torchvision's ResNet in Hugging Face's names."""
    renamed = {}
    for name, value in state.items():
        name = name.replace("bn", "norm")
        name = re.sub(r"^conv1", "resnet.embedder.embedder.convolution", name)
        name = re.sub(r"^norm1", "resnet.embedder.embedder.normalization", name)
        name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
        name = name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
        name = re.sub(r"\.conv(\d)", lambda m: f".layer.{int(m[1]) - 1}.convolution", name)
        name = re.sub(r"\.norm(\d)", lambda m: f".layer.{int(m[1]) - 1}.normalization", name)
        renamed[name.replace("fc.", "classifier.1.")] = value
    return renamed


def test_resnet_computes_the_same_by_hugging_faces_names(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    whole, images = randomise(torchvision.models.resnet50(weights=None)), torch.randn(1, 3, 64, 64)
    ours, conversion = found(tmp_path, by_hugging_face(whole.state_dict()), "resnet", images)
    with torch.no_grad():
        torch.testing.assert_close(ours, whole.double()(images.double()))
    assert (conversion.missing, conversion.unexpected) == ([], [])


@pytest.mark.parametrize(("format_name", "name"), [("swin", "swin_tiny_patch4_window7_224"), ("resnet", "resnet50")])
def test_timms_own_networks(format_name, name, tmp_path):
    whole, images = randomise(pytest.importorskip("timm").create_model(name)), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        ours, _ = found(tmp_path, whole.state_dict(), format_name, images)
        torch.testing.assert_close(ours, whole.double()(images.double()))


@pytest.mark.parametrize("format_name", ["swin", "resnet"])
def test_hugging_faces_own_networks(format_name, tmp_path):
    transformers = pytest.importorskip("transformers")
    if format_name == "swin":
        config = transformers.SwinConfig(embed_dim=DIM, depths=[1, 2, 1, 1], num_heads=HEADS)
        whole = transformers.SwinForImageClassification(config)
    else:
        whole = transformers.ResNetForImageClassification(transformers.ResNetConfig())
    whole, images = randomise(whole), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        ours, _ = found(tmp_path, whole.state_dict(), format_name, images)
        torch.testing.assert_close(ours, whole.double()(images.double()).logits)


@pytest.mark.parametrize("name", ["resnet34", "resnet152", "resnext50_32x4d", "swin_v2_t"])
def test_relatives_that_compute_something_else_are_refused(name, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    path = write(tmp_path, getattr(torchvision.models, name)(weights=None).state_dict())
    with pytest.raises(ConfigError, match=r"theirs\.pth"):
        convert(path, "swin" if name.startswith("swin") else "resnet")
