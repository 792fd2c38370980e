"""Published weights: each tensor finds its place or is reported, outputs are the originals', nothing is executed."""

import argparse
import hashlib
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError, DataError
from afno_repro.models import build_model
from afno_repro.weights import convert as converting
from afno_repro.weights.checkpoint import read_state_dict
from afno_repro.weights.convert import write_weights
from afno_repro.weights.formats import FORMATS, Told
from afno_repro.weights.load import load_weights

DIMS, CLASSES = [8, 16, 40, 64], 5


def tensors(shapes):
    """Random tensors that all differ from one another."""
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def affine(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def batch_norm(name, dim):
    return affine(name, dim) | {
        f"{name}.running_mean": (dim,),
        f"{name}.running_var": (dim,),
        f"{name}.num_batches_tracked": (),
    }


def segformer_shapes(depth=2, full=True):
    """The original's names: a whole model, or an encoder with a classifier."""
    shapes = {}
    for i, (dim, reduction) in enumerate(zip(DIMS, [8, 4, 2, 1], strict=True), start=1):
        kernel = 7 if i == 1 else 3
        shapes |= affine(f"patch_embed{i}.proj", dim, DIMS[i - 2] if i > 1 else 3, kernel, kernel)
        shapes |= affine(f"patch_embed{i}.norm", dim) | affine(f"norm{i}", dim)
        for j in range(depth):
            block = f"block{i}.{j}"
            shapes |= (
                affine(f"{block}.norm1", dim) | affine(f"{block}.norm2", dim) | affine(f"{block}.attn.q", dim, dim)
            )
            shapes |= affine(f"{block}.attn.kv", 2 * dim, dim) | affine(f"{block}.attn.proj", dim, dim)
            if reduction > 1:
                shapes |= affine(f"{block}.attn.sr", dim, dim, reduction, reduction) | affine(f"{block}.attn.norm", dim)
            shapes |= affine(f"{block}.mlp.fc1", 4 * dim, dim) | affine(f"{block}.mlp.fc2", dim, 4 * dim)
            shapes |= affine(f"{block}.mlp.dwconv.dwconv", 4 * dim, 1, 3, 3)
    if not full:
        return shapes | affine("head", CLASSES, DIMS[-1])
    shapes = {f"backbone.{name}": shape for name, shape in shapes.items()}
    for i, dim in enumerate(DIMS, start=1):
        shapes |= affine(f"decode_head.linear_c{i}.proj", 12, dim)
    shapes |= {"decode_head.linear_fuse.conv.weight": (12, 48, 1, 1)} | batch_norm("decode_head.linear_fuse.bn", 12)
    return (
        shapes
        | affine("decode_head.linear_pred", CLASSES, 12, 1, 1)
        | affine("decode_head.conv_seg", CLASSES, 12, 1, 1)
    )


def vit_shapes(mixer, dim=8, depth=2, grid=4):
    shapes = (
        affine("patch_embed.proj", dim, 3, 4, 4)
        | {"pos_embed": (1, grid**2, dim)}
        | affine("norm", dim)
        | affine("head", CLASSES, dim)
    )
    for i in range(depth):
        shapes |= affine(f"blocks.{i}.norm1", dim) | affine(f"blocks.{i}.norm2", dim)
        shapes |= affine(f"blocks.{i}.mlp.fc1", 3 * dim, dim) | affine(f"blocks.{i}.mlp.fc2", dim, 3 * dim)
        shapes |= {f"blocks.{i}.filter.{name}": shape for name, shape in mixer.items()}
    return shapes


GFN = {"complex_weight": (4, 3, 8, 2)}
AFNO = {"w1": (2, 2, 4, 4), "b1": (2, 2, 4), "w2": (2, 2, 4, 4), "b2": (2, 2, 4)}
CHECKPOINTS = {
    "whole segformer": ("segformer", segformer_shapes()),
    "mit": ("segformer", segformer_shapes(depth=1, full=False)),
    "gfnet": ("gfnet", vit_shapes(GFN)),
    "afno": ("afno", vit_shapes(AFNO)),
}


TOLD = {"segformer": Told(num_heads=(1, 2, 5, 8)), "afno": Told(residuals=2)}  # what none of these tensors tells


def convert(path, format_name, told=None, **choice):
    return converting.convert(path, format_name, told or TOLD.get(format_name), **choice)


def write(folder, state, name="theirs.pth"):
    torch.save(state, folder / name)
    return folder / name


def randomise(model):
    """Norms and running statistics too: at their start they would hide a swapped name."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = (
                torch.rand(tensor.shape) + 0.5
                if tensor.ndim == 1 and not name.endswith("bias")
                else torch.randn(tensor.shape) * 0.1
            )
            tensor.copy_(noise)
    return model.eval()


def converted_model(conversion):
    model = build_model(conversion.model, conversion.learned_at).eval()
    load_weights(model, conversion.weights)
    return model


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_foreign_number_lands_in_one_place_or_is_reported(name, tmp_path):
    format_name, shapes = CHECKPOINTS[name]
    state = tensors(shapes)
    conversion = convert(
        write(tmp_path, {"model": {f"module.{key}": value for key, value in state.items()}}), format_name
    )
    assert conversion.missing == []
    unused = {key for key in state if "conv_seg" in key}
    assert set(conversion.unexpected) == {f"module.{key}" for key in unused}
    assert (
        set(conversion.matched)
        == set(conversion.weights)
        == set(build_model(conversion.model, conversion.learned_at).state_dict())
    )
    used = torch.cat([value.flatten() for key, value in state.items() if key not in unused]).sort().values
    assert torch.equal(torch.cat([value.flatten() for value in conversion.weights.values()]).sort().values, used)


def test_a_segformer_keeps_its_tensors_under_the_names_of_their_roles(tmp_path):
    state = tensors(segformer_shapes())
    ours = convert(write(tmp_path, {"state_dict": state, "meta": {"epoch": 3}}), "segformer").weights
    roles = {
        "backbone.stages.1.0.norm.bias": "backbone.patch_embed2.norm.bias",
        "backbone.stages.0.2.mixer.norm.weight": "backbone.block1.1.attn.norm.weight",
        "backbone.stages.2.1.mixer.kv.weight": "backbone.block3.0.attn.kv.weight",
        "backbone.stages.3.3.bias": "backbone.norm4.bias",
        "backbone.stages.3.2.norm2.bias": "backbone.block4.1.norm2.bias",
        "head.fuse.1.running_mean": "decode_head.linear_fuse.bn.running_mean",
        "head.projections.2.weight": "decode_head.linear_c3.proj.weight",
    }
    assert all(torch.equal(ours[name], state[origin]) for name, origin in roles.items())


def test_positions_are_read_row_by_row(tmp_path):
    state = tensors(vit_shapes(GFN))
    table = convert(write(tmp_path, state), "gfnet").weights["backbone.positions.table"]
    assert all(
        torch.equal(table[:, row, column], state["pos_embed"][0, 4 * row + column])
        for row in range(4)
        for column in range(4)
    )


def test_an_afno_block_mlp_computes_what_the_authors_equation_says(tmp_path):
    state = tensors(vit_shapes(AFNO))
    mixer = converted_model(convert(write(tmp_path, state), "afno")).backbone.blocks[1].mixer
    w1, b1, w2, b2 = (torch.complex(*state[f"blocks.1.filter.{name}"]) for name in ("w1", "b1", "w2", "b2"))
    x, shrunk = torch.randn(1, 3, 4, 8), []
    mixer.shrink.register_forward_hook(lambda module, inputs, output: shrunk.append(output))
    mixer(x)
    z = torch.fft.rfft2(x.permute(0, 3, 1, 2), norm="ortho").flatten(2)  # B C N
    hidden = torch.einsum("bkin,kio->bkon", z.unflatten(1, (2, 4)), w1) + b1[..., None]
    hidden = torch.complex(hidden.real.relu(), hidden.imag.relu())
    out = torch.einsum("bkin,kio->bkon", hidden, w2) + b2[..., None]
    expected = torch.complex(*(part.sign() * (part.abs() - 0.01).relu() for part in (out.real, out.imag)))
    torch.testing.assert_close(torch.view_as_complex(shrunk[0].contiguous()), expected)


@pytest.mark.parametrize("source", ["state_dict", "save_pretrained"])
def test_a_hugging_face_segformer_gives_the_same_logits(source, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = randomise(
        transformers.SegformerForSemanticSegmentation(
            transformers.SegformerConfig(num_labels=19, decoder_hidden_size=256)
        )
    )
    if source == "save_pretrained":
        theirs.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        path = write(tmp_path, theirs.state_dict())
    conversion = convert(path, "hf_segformer")
    assert (conversion.missing, conversion.unexpected, conversion.resized) == ([], [], [])
    ours = converted_model(conversion)
    for module in ours.modules():
        if isinstance(module, torch.nn.LayerNorm):
            # Hugging Face's in every layer norm; the original, which ours follows, has 1e-6 in blocks and stage ends.
            module.eps = 1e-5
    images = torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        expected, found = theirs(images).logits, ours(images)
    print(
        f"{source}: largest logit {expected.abs().max():.3f}, largest difference {(expected - found).abs().max():.1e}"
    )
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("format_name", "build"), [("swin", "swin_t"), ("resnet", "resnet50")])
def test_torchvision_networks_compute_what_the_original_computes(format_name, build, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    whole = randomise(getattr(torchvision.models, build)(weights=None))
    conversion = convert(write(tmp_path, whole.state_dict()), format_name)
    assert (conversion.unexpected, conversion.missing) == ([], [])
    ours = build_model(conversion.model, 64).eval()
    load_weights(ours, conversion.weights)
    images = torch.randn(
        1, 3, 64, 96, dtype=torch.float64
    )  # in float32 the same operations in another order differ by more than rounding
    with torch.no_grad():
        torch.testing.assert_close(ours.double()(images), whole.double()(images))


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "save", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))], ids=["torch", "pickle"]
)
def test_pickled_objects_are_refused_and_not_executed(save, tmp_path):
    save({"model": {"w": torch.zeros(1)}, "extra": Touch(tmp_path / "executed")}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match="refused: holds pickled objects"):
        convert(tmp_path / "evil.pth", "gfnet")
    assert not (tmp_path / "executed").exists()


def test_the_arguments_of_a_training_script_are_accepted_and_dropped(tmp_path):
    state = {"norm.weight": torch.randn(3)}
    path = write(tmp_path, {"model": state, "args": argparse.Namespace(lr=0.1, model="gfnet"), "epoch": 299})
    assert torch.equal(read_state_dict(path)["norm.weight"], state["norm.weight"])
    assert list(read_state_dict(path)) == ["norm.weight"]
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    "name", ["absent.pth", "absent.safetensors", "cut.pth", "cut.safetensors", "empty.pth", "folder.pth"]
)
def test_a_missing_or_damaged_file_is_named(name, tmp_path):
    state = {"norm.weight": torch.randn(300)}
    if name.startswith("cut"):
        (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-400])
    elif name.startswith("empty"):
        (tmp_path / name).touch()
    elif name.startswith("folder"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=name):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("shape", [(), (0, 3, 4, 4), (8,)], ids=str)
def test_a_tensor_of_a_shape_that_no_model_has_is_refused(shape, tmp_path):
    state = tensors(vit_shapes(GFN) | {"patch_embed.proj.weight": shape, "blocks.0.{x}.bias": ()})
    with pytest.raises(ConfigError, match="format gfnet"):
        convert(write(tmp_path, state), "gfnet")


def test_a_damaged_file_never_ends_in_a_traceback(tmp_path):
    whole = write(tmp_path, {"norm.weight": torch.randn(30), "head.bias": torch.zeros(3)}).read_bytes()
    for place in range(0, len(whole), 7):
        (tmp_path / "damaged.pth").write_bytes(whole[:place] + bytes([whole[place] ^ 0x95]) + whole[place + 1 :])
        with suppress(ConfigError, DataError):
            read_state_dict(tmp_path / "damaged.pth")


@pytest.mark.parametrize(
    ("name", "format_name"),
    [(name, other) for name, (own, _) in CHECKPOINTS.items() for other in FORMATS if other != own],
)
def test_a_file_of_another_format_is_refused(name, format_name, tmp_path):
    with pytest.raises(ConfigError, match=rf"theirs\.pth.* format {format_name}"):
        convert(write(tmp_path, tensors(CHECKPOINTS[name][1])), format_name)


def test_files_without_a_state_dict_and_unknown_formats_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no state dict"):
        read_state_dict(write(tmp_path, [torch.zeros(2)]))
    with pytest.raises(ConfigError, match="Did you mean 'gfnet'"):
        convert(tmp_path / "theirs.pth", "gfnett")


def vit(image_size, mixer, dim=8, num_classes=CLASSES):
    options = {"patch_size": 4, "embed_dim": dim, "depth": 2, "mlp_ratio": 3, "skips": 1}
    return build_model(
        ModelConfig(Part("vit", options), mixer, Part("classification", {"num_classes": num_classes})), image_size
    ).eval()


def test_weights_of_another_model_are_refused_with_five_mismatches_and_nothing_loaded(tmp_path):
    weights = convert(write(tmp_path, tensors(vit_shapes(GFN))), "gfnet").weights
    model = vit(16, Part("gfn", {}), num_classes=7)  # all but the head would fit
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"head\.project\.weight: expected \(7, 8\), found \(5, 8\)"):
        load_weights(model, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ConfigError) as error:
        load_weights(vit(16, Part("gfn", {}), dim=12), weights)
    assert len([p for p in error.value.problems if p.key]) == 5
    missing = dict(list(weights.items())[1:])
    with pytest.raises(ConfigError, match="found None"):
        load_weights(vit(16, Part("gfn", {})), missing)


def test_a_backbone_alone_leaves_the_head_as_it_is(tmp_path):
    weights = convert(write(tmp_path, tensors(vit_shapes(GFN))), "gfnet").weights
    model = vit(16, Part("gfn", {}), num_classes=7)
    before = model.head.project.weight.clone()
    loaded = load_weights(model, {name: tensor for name, tensor in weights.items() if name.startswith("backbone.")})
    assert loaded.missing == ["head.project.weight", "head.project.bias"]
    assert torch.equal(model.head.project.weight, before)
    assert torch.equal(model.backbone.norm.weight, weights["backbone.norm.weight"])


def test_positions_and_filters_of_another_grid_are_resized_as_the_forward_pass_does(tmp_path):
    small = converted_model(convert(write(tmp_path, tensors(vit_shapes(GFN))), "gfnet"))
    large = vit(24, Part("gfn", {}))
    loaded = load_weights(large, small.state_dict())
    grids = {"backbone.positions.table": "(8, 4, 4) -> (8, 6, 6)"} | {
        f"backbone.blocks.{i}.mixer.filter": "(4, 3, 8, 2) -> (6, 4, 8, 2)" for i in (0, 1)
    }
    assert set(loaded.resized) == {f"{name}: {change}" for name, change in grids.items()}
    images = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(large(images), small(images))


@pytest.mark.fast
def test_written_weights_are_read_back_and_name_their_origin(tmp_path):
    path = write(tmp_path, tensors(vit_shapes(AFNO)))
    conversion = convert(path, "afno")
    write_weights(conversion, tmp_path / "new" / "weights.safetensors")
    back = read_state_dict(tmp_path / "new" / "weights.safetensors")
    assert back.keys() == conversion.weights.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in conversion.weights.items())
    with safe_open(tmp_path / "new" / "weights.safetensors", "pt") as file:
        assert (
            file.metadata()
            == {"source_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            == {"source_sha256": conversion.sha256}
        )


def test_a_file_that_would_grow_beyond_its_size_is_refused_before_it_is_unpacked(tmp_path):
    whole, packed = tmp_path / "whole.pt", tmp_path / "packed.pt"
    torch.save({"weight": torch.zeros(1_000_000)}, whole)
    with zipfile.ZipFile(whole) as one, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for name in one.namelist():
            other.writestr(name, one.read(name))
    assert packed.stat().st_size < whole.stat().st_size // 8
    assert read_state_dict(whole)["weight"].numel() == 1_000_000
    with pytest.raises(DataError, match=rf"{packed}: refused: would take 4\d+ bytes in memory"):
        read_state_dict(packed)


def test_a_tensor_that_repeats_one_number_without_end_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1).expand(2**40)}, tmp_path / "wide.pt")
    with pytest.raises(DataError, match=r"wide\.pt: refused: would take 4398046511104 bytes"):
        read_state_dict(tmp_path / "wide.pt")


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_pipe_is_no_weights_file_and_is_not_waited_for(ending, tmp_path):
    os.mkfifo(tmp_path / f"pipe.{ending}")
    with pytest.raises(DataError, match="not a regular file"):
        read_state_dict(tmp_path / f"pipe.{ending}")


def test_a_block_number_of_5000_digits_is_a_name_that_no_format_has(tmp_path):
    torch.save({f"block{'9' * 5000}.1.norm1.weight": torch.zeros(3)}, tmp_path / "strange.pt")
    with pytest.raises(ConfigError, match="format segformer"):
        convert(tmp_path / "strange.pt", "segformer")
