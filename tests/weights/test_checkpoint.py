"""What a file is and which of its weights are meant; what no tensor tells is asked for, never guessed."""

import argparse
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save

from afno_repro.errors import AfnoError, ConfigError, DataError
from afno_repro.weights.checkpoint import read_checkpoint, read_state_dict
from afno_repro.weights.convert import convert
from afno_repro.weights.formats import Told
from tests.command import afno, answer
from tests.weights.test_convert import AFNO, GFN, segformer_shapes, tensors, vit_shapes, write

RAW, MEAN = {"norm.weight": torch.zeros(2)}, {"norm.weight": torch.ones(2)}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a Git LFS pointer.*git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"just some text", "neither safetensors nor what torch.save writes"),
    ],
    ids=["html", "lfs", "hdf5", "text"],
)
@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model.safetensors"])
def test_a_file_that_holds_no_weights_is_called_what_it_is(data, says, name, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: .*({says}|is no whole weights file)") as told:
        read_state_dict(tmp_path / name)
    assert "pickle" not in str(told.value)


def test_safetensors_are_read_by_any_name(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(save(MEAN))
    assert torch.equal(read_state_dict(tmp_path / "pytorch_model.bin")["norm.weight"], torch.ones(2))


def test_a_pickled_network_is_refused_by_the_name_of_its_class(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(ConfigError, match=r"whole\.pth: refused: .*Linear.*\n.*model\.state_dict\(\)"):
        read_state_dict(tmp_path / "whole.pth")


def test_numbers_of_numpys_beside_the_weights_are_passed_over(tmp_path):
    best = {"model": MEAN, "best": np.float64(81.2), "epoch": np.int64(3), "args": argparse.Namespace(lr=0.1)}
    found = read_checkpoint(write(tmp_path, best))
    assert torch.equal(found.tensors["norm.weight"], torch.ones(2))
    assert found.args == {"lr": 0.1}


@pytest.mark.parametrize("pair", [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("model", "ema")], ids=str)
def test_averaged_weights_beside_raw_ones_must_be_chosen(pair, tmp_path):
    path = write(tmp_path, {pair[0]: RAW, pair[1]: {"module": MEAN}})
    with pytest.raises(ConfigError, match=rf"EMA weights \({pair[1]}\) beside raw ones \({pair[0]}\)\n.*--no-ema"):
        read_checkpoint(path)
    assert read_checkpoint(path, ema=True).tensors["norm.weight"].tolist() == [1, 1]
    assert read_checkpoint(path, ema=False).tensors["norm.weight"].tolist() == [0, 0]


def test_averaged_weights_alone_are_taken_and_absent_ones_are_named(tmp_path):
    alone = write(tmp_path, {"model_ema": MEAN, "epoch": 3})
    assert [read_checkpoint(alone, ema).tensors["norm.weight"].tolist() for ema in (None, True)] == [[1, 1], [1, 1]]
    with pytest.raises(ConfigError, match=r"holds EMA weights .* alone"):
        read_checkpoint(alone, ema=False)
    raw = write(tmp_path, {"model": RAW})
    with pytest.raises(ConfigError, match="holds no EMA weights"):
        read_checkpoint(raw, ema=True)
    assert read_checkpoint(raw, ema=False).tensors["norm.weight"].tolist() == [0, 0]


@pytest.mark.parametrize("said", [False, True])
def test_the_files_own_arguments_tell_afnos_residuals(said, tmp_path):
    args = argparse.Namespace(double_skip=said)
    path = write(tmp_path, {"model": tensors(vit_shapes(AFNO)), "args": args})
    assert convert(path, "afno").model.backbone.options["skips"] == 1 + said
    with pytest.raises(ConfigError, match=rf"own arguments say --residuals {1 + said}"):
        convert(path, "afno", Told(residuals=2 - said))


def test_afnos_residuals_are_asked_for_where_the_file_does_not_tell(tmp_path):
    write(tmp_path, tensors(vit_shapes(AFNO)))
    command = ("convert", "theirs.pth", "--format", "afno", "--out", "out.safetensors")
    assert "--residuals 1" in afno(*command, root=tmp_path, expect=2).stderr
    assert not (tmp_path / "out.safetensors").exists()
    for residuals in (1, 2):
        found = answer(*command, "--residuals", str(residuals), root=tmp_path)
        assert found["model"]["backbone"]["options"]["skips"] == residuals


def test_segformers_heads_are_asked_for_unless_its_sizes_are_published(tmp_path):
    write(tmp_path, tensors(segformer_shapes()))
    command = ("convert", "theirs.pth", "--format", "segformer", "--out", "out.safetensors")
    assert "--num-heads 1,2,5,8" in afno(*command, root=tmp_path, expect=2).stderr
    for wrong in ("1,2,5", "1,2,x,8", "0,2,5,8", "3,2,5,8"):  # the last: 3 heads do not divide 8 channels
        afno(*command, "--num-heads", wrong, root=tmp_path, expect=2)
    found = answer(*command, "--num-heads", "2,2,5,8", root=tmp_path)
    assert found["model"]["mixer"]["options"]["num_heads"] == [2, 2, 5, 8]


def test_an_option_that_a_format_does_not_take_is_refused(tmp_path):
    path = write(tmp_path, tensors(vit_shapes(GFN)))
    for told in (Told(residuals=2), Told(num_heads=(1, 2, 5, 8))):
        with pytest.raises(ConfigError, match="gfnet takes no --"):
            convert(path, "gfnet", told)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(value, tmp_path):
    state = tensors(vit_shapes(GFN))
    state["blocks.1.mlp.fc1.weight"][3, 2] = value
    with pytest.raises(ConfigError, match=r"blocks\.1\.mlp\.fc1\.weight: .*not finite"):
        convert(write(tmp_path, state), "gfnet")


@pytest.mark.parametrize(
    ("mixer", "format_name", "grid"),
    [(AFNO, "afno", (1, 8, 8)), (GFN, "gfnet", (1, 12, 8))],
    ids=["no square", "not the filters'"],
)
def test_positions_whose_grid_cannot_be_told_are_refused(mixer, format_name, grid, tmp_path):
    state = tensors(vit_shapes(mixer)) | {"pos_embed": torch.randn(grid)}
    told = Told(residuals=1) if format_name == "afno" else None
    with pytest.raises(ConfigError, match=rf"{grid[1]} positions are no"):
        convert(write(tmp_path, state), format_name, told)


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "_orig_mod.", "module._orig_mod.model.backbone."])
def test_what_wrappers_put_before_names_is_passed_over(prefix, tmp_path):
    state = tensors(vit_shapes(GFN))
    plain = convert(write(tmp_path, state), "gfnet")
    wrapped = convert(write(tmp_path, {f"{prefix}{name}": value for name, value in state.items()}), "gfnet")
    assert wrapped.weights.keys() == plain.weights.keys()
    assert all(torch.equal(wrapped.weights[name], value) for name, value in plain.weights.items())


def test_two_names_that_prefixes_alone_tell_apart_are_refused(tmp_path):
    state = tensors(vit_shapes(GFN))
    doubled = state | {f"module.{name}": value + 1 for name, value in state.items()}
    with pytest.raises(AfnoError, match=r"theirs\.pth"):
        convert(write(tmp_path, doubled), "gfnet")


def test_a_tensor_without_a_place_is_refused_and_the_formats_that_know_the_names_are_told(tmp_path):
    state = tensors(vit_shapes(GFN))
    count = len(state)
    with pytest.raises(ConfigError, match=rf"1 of its {count + 1} tensors have no place there: blocks\.0\.gamma"):
        convert(write(tmp_path, state | {"blocks.0.gamma": torch.ones(8)}), "gfnet")
    with pytest.raises(
        ConfigError, match=rf"know its names: gfnet \({count} of {count}\), afno \({count - 2} of {count}\)"
    ):
        convert(write(tmp_path, state), "resnet")
    with pytest.raises(ConfigError, match=r"no format here knows its names: encoder\.w, encoder\.b"):
        convert(write(tmp_path, {"encoder.w": torch.ones(2), "encoder.b": torch.ones(2)}), "resnet")
