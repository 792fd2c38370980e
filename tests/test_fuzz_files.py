"""Damaged files of every kind that the program reads end in what their readers document."""

import functools
import io
import itertools
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from afno_repro.config import ModelConfig, Part
from afno_repro.data.fewshot import fewshot
from afno_repro.data.reading import read_image, read_mask, size_of
from afno_repro.errors import ConfigError, DataError
from afno_repro.models import build_model
from afno_repro.runs.store import read_arrays
from afno_repro.weights.checkpoint import read_state_dict
from afno_repro.weights.load import load_weights
from tests.data.test_fewshot import OPTIONS, make_pairs
from tests.fuzz import cases, damaged, documented

RNG = np.random.default_rng(0)
COLOURS = Image.fromarray(RNG.integers(0, 255, (12, 16, 3), dtype=np.uint8))
IDS = np.arange(16, dtype=np.uint8) * 3 // 16 * np.ones((12, 1), np.uint8)
MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
    "I;16B",
    "I;16L",
]


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(write):
    buffer = io.BytesIO()
    write(buffer, a=np.arange(5), b=np.ones((3, 4)))
    return buffer.getvalue()


def pt(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


PICTURES = {form: encoded(COLOURS, form) for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM")}
PICTURES |= {
    "TIFF packed": encoded(COLOURS, "TIFF", compression="tiff_deflate"),
    "grey PNG": encoded(COLOURS.convert("L"), "PNG"),
}
MASKS = {"png": encoded(Image.fromarray(IDS), "PNG"), "npy": npy(IDS)}
MASKS |= {
    "palette.png": encoded(COLOURS.convert("P"), "PNG"),
    "deep.png": encoded(Image.fromarray(IDS.astype(np.uint16)), "PNG"),
}
STATE = {"step": 3, "model": {"w": torch.ones(3, 4), "b": torch.zeros(2)}, "losses": [0.5, 0.25], "name": "x"}
WEIGHTS = {"safetensors": save(STATE["model"]), "pt": pt({"model": STATE["model"]}), "pth": pt(STATE["model"])}


@pytest.mark.parametrize("form", PICTURES)
def test_a_damaged_picture_is_read_or_named(tmp_path, form):
    path = tmp_path / "picture.jpg"
    path.write_bytes(PICTURES[form])
    read_image(path)  # imports what it needs, which is no case's time

    @given(data=damaged(PICTURES[form]))
    @cases(40)
    @ignoring_warnings
    def damage(data):
        path.write_bytes(data)
        with documented():
            image = read_image(path)
            assert (image.dtype, image.ndim, image.shape[0]) == (torch.uint8, 3, 3)
        with documented():
            assert min(size_of(path)) > 0

    damage()


def ignoring_warnings(test):
    """Pillow and NumPy warn of what they repair."""

    @functools.wraps(test)
    def quiet(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return test(*args, **kwargs)

    return quiet


@pytest.mark.parametrize("width", [2**31 - 1, 2**24, 30_000], ids=str)
def test_a_picture_that_declares_a_huge_size_is_named_without_taking_its_memory(tmp_path, width):
    path, data = tmp_path / "huge.bmp", bytearray(PICTURES["BMP"])
    data[18:26] = width.to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"huge\.bmp"):
        read_image(path)


@pytest.mark.parametrize("form", ["EPS", "DDS", "AVIF", "PCX"])
def test_other_forms_of_pictures_are_not_even_tried(tmp_path, form):
    try:
        data = encoded(COLOURS, form)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow writes no {form}")
    (tmp_path / "picture.jpg").write_bytes(data)
    for read in (read_image, read_mask, size_of):
        with pytest.raises(DataError, match="cannot identify"):
            read(tmp_path / "picture.jpg")


@pytest.mark.parametrize("name", MASKS)
def test_a_set_with_a_damaged_mask_is_loaded_or_the_mask_is_named(tmp_path, name):
    folder = make_pairs(tmp_path / "faces") / "train"
    (folder / "1.png").unlink()
    path = folder / f"1.{name.rpartition('.')[2]}"

    @given(data=damaged(MASKS[name]))
    @cases(35)
    @ignoring_warnings
    def damage(data):
        path.write_bytes(data)
        told = str(path)
        try:
            images, _ = fewshot(8, 1.0, 0, tmp_path, **OPTIONS)
            image, classes = images.example(1, RNG)
            assert image.shape[1:] == classes.shape
        except DataError as error:
            told = str(error)
        assert str(path) in told

    damage()


def test_an_archive_of_arrays_named_as_one_array_is_no_mask(tmp_path):
    (tmp_path / "mask.npy").write_bytes(npz(np.savez))
    for read in (read_mask, size_of):
        with pytest.raises(DataError, match=r"mask\.npy"):
            read(tmp_path / "mask.npy")


def of_every_mode():
    """A picture of every mode in every form that holds it."""
    for form, mode in itertools.product(("PNG", "TIFF", "GIF", "WEBP", "PPM", "BMP", "JPEG"), MODES):
        with suppress(OSError, ValueError, KeyError):
            yield pytest.param(encoded(Image.new(mode, (16, 12)), form), id=f"{mode} {form}")


@pytest.mark.parametrize("data", list(of_every_mode()))
def test_a_picture_of_any_mode_is_a_mask_of_whole_numbers_or_named(tmp_path, data):
    (tmp_path / "mask.png").write_bytes(data)
    with documented():
        ids = read_mask(tmp_path / "mask.png")
        assert (ids.shape, ids.dtype.kind in "ui") == ((12, 16), True)
    with documented():
        assert read_image(tmp_path / "mask.png").shape == (3, 12, 16)


@given(data=st.sampled_from([npz(np.savez), npz(np.savez_compressed), npy(np.arange(5))]).flatmap(damaged))
@example(data=npy(np.arange(5)))
@cases(150)
@ignoring_warnings
def test_a_damaged_file_of_arrays_is_read_or_a_value_error(tmp_path, data):
    (tmp_path / "arrays.npz").write_bytes(data)
    with documented(ValueError):
        assert all(isinstance(array, np.ndarray) for array in read_arrays(tmp_path / "arrays.npz").values())


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_damaged_weights_file_is_read_or_named(tmp_path, kind):
    path, model = tmp_path / f"weights.{kind}", torch.nn.ParameterDict({"w": torch.ones(3, 4), "b": torch.zeros(2)})

    @given(data=damaged(WEIGHTS[kind]))
    @cases(60)
    @ignoring_warnings
    def damage(data):
        path.write_bytes(data)
        with documented():
            load_weights(model, read_state_dict(path))

    damage()


def test_a_pickled_dict_that_holds_itself_is_refused(tmp_path):
    loop = {}
    loop["model"] = loop
    torch.save(loop, tmp_path / "loop.pt")
    with pytest.raises(ConfigError, match="holds no state dict"):
        read_state_dict(tmp_path / "loop.pt")


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"])
def test_a_tensor_that_is_not_dense_is_refused(tmp_path, tensor):
    torch.save({"w": tensor}, tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match=r"weights\.pt: w: must be a dense tensor"):
        read_state_dict(tmp_path / "weights.pt")


DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.float8_e4m3fn,
    torch.int64,
    torch.int8,
    torch.bool,
    torch.complex64,
]


@given(
    name=st.sampled_from(["backbone.positions.table", "backbone.blocks.0.mixer.filter", "head.project.weight"]),
    data=st.data(),
)
@cases(120)
def test_a_tensor_of_any_shape_and_type_is_loaded_whole_or_refused(name, data):
    options = {"patch_size": 4, "embed_dim": 8, "depth": 1, "mlp_ratio": 2, "skips": 1}
    model = build_model(
        ModelConfig(Part("vit", options), Part("gfn", {}), Part("classification", {"num_classes": 3})), 16
    )
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    shape = tuple(data.draw(st.one_of(st.just(size), st.integers(0, 9))) for size in weights[name].shape)
    weights[name] = torch.ones(shape).to(data.draw(st.sampled_from(DTYPES)))
    with documented():
        load_weights(model, weights)
        assert weights[name].is_floating_point()
        assert torch.allclose(model.state_dict()[name], torch.tensor(1.0))
