"""Files as people have them: what Pillow and libjpeg would let pass, and what no file is."""

import os
import struct
import sys
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import sklearn
from PIL import Image

from afno_repro.data import reading
from afno_repro.data.fewshot import fewshot
from afno_repro.data.imagenet import imagenet, splits
from afno_repro.data.reading import read_image, read_mask
from afno_repro.errors import ConfigError, DataError
from tests.data.test_fewshot import OPTIONS, make_pairs
from tests.data.test_imagenet import make_folder

PHOTOGRAPH = Path(sklearn.__file__).parent / "datasets/images/china.jpg"


def grey_png(ids, bits):
    """A grey PNG of 1, 2, 4 or 8 bits, written by the format's own rules."""
    height, width = ids.shape
    digits = np.unpackbits(ids[..., None].astype(np.uint8), axis=-1)[..., -bits:].reshape(height, width * bits)
    lines = np.pad(np.packbits(digits, axis=1), ((0, 0), (1, 0)))  # a filter type of 0 before each line

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.fast
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_mask_holds_the_numbers_that_its_png_stores_whatever_its_bits(bits, tmp_path):
    ids = np.random.default_rng(0).integers(2**bits, size=(5, 7))
    (tmp_path / "mask.png").write_bytes(grey_png(ids, bits))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_mask_with_a_palette_holds_its_indices(bits, tmp_path):
    ids = np.random.default_rng(0).integers(2**bits, size=(5, 7)).astype(np.uint8)
    image = Image.fromarray(ids, "P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(tmp_path / "mask.png", bits=bits)
    assert (tmp_path / "mask.png").read_bytes()[24] == bits
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), ids)


def test_a_mask_that_was_compressed_as_a_photograph_is_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "mask.jpg")
    (tmp_path / "mask.jpg").rename(tmp_path / "mask.png")
    with pytest.raises(DataError, match="not a readable mask"):
        read_mask(tmp_path / "mask.png")


def test_a_channel_for_each_class_is_refused_and_not_its_first_taken_for_ids(tmp_path):
    ids = np.arange(48).reshape(6, 8) % 20
    np.save(tmp_path / "mask.npy", np.eye(20, dtype=np.uint8)[ids])
    with pytest.raises(DataError, match=r"mask\.npy: .*shape \(6, 8, 20\): one class id a pixel.*np\.argmax"):
        read_mask(tmp_path / "mask.npy")


def half(data):
    return data[: len(data) // 2] + b"\xff\xd9"


def two_bytes_changed(data):
    at = len(data) // 2
    return data[:at] + b"\xff\x01" + data[at + 2 :]  # a marker that is none


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("damage", [half, two_bytes_changed])
def test_a_jpeg_of_which_libjpeg_complains_is_named_by_run_and_by_the_check(damage, mode, tmp_path, capfd):
    file = make_folder(tmp_path) / "train/n1/2.JPEG"
    Image.open(PHOTOGRAPH).convert(mode).save(file)
    file.write_bytes(damage(file.read_bytes()))
    Image.open(file).load()  # Pillow lets it pass
    with pytest.raises(DataError, match=rf"{file}: not a readable image \(Corrupt JPEG data"):
        read_image(file)
    assert [told.partition(": ")[0] for told in splits(tmp_path).problems()] == [str(file)]
    assert capfd.readouterr().err == ""


def test_what_others_write_to_standard_error_while_a_jpeg_is_read_is_passed_on(capfd):
    with reading._complaints() as said:
        os.write(2, b"a line\n")
    assert (said, capfd.readouterr().err) == ([], "a line\n")
    print("another", file=sys.stderr)
    assert capfd.readouterr().err == "another\n"


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_a_photograph_turned_by_exif_beside_an_upright_mask_is_refused(orientation, tmp_path):
    image = make_pairs(tmp_path / "faces") / "train/1.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(image).save(image, exif=exif)
    with pytest.raises(DataError, match=rf"{image}: its EXIF orientation is {orientation}, .*1\.png"):
        fewshot(8, 1.0, 0, tmp_path, **OPTIONS)
    exif[0x0112] = 1
    Image.open(image).save(image, exif=exif)
    assert len(fewshot(8, 1.0, 0, tmp_path, **OPTIONS)[0]) == 3


def test_an_image_of_more_than_a_hundred_megapixels_is_refused_before_it_is_decoded(tmp_path):
    header = struct.pack(">IIBBBBB", 10_001, 10_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    for name in ("huge.png", "mask.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0" * 4)
    for read in (read_image, read_mask, reading.size_of):
        with pytest.raises(DataError, match="10001x10000 pixels, at most 100 million"):
            read(tmp_path / "huge.png")


def test_a_spec_may_allow_more_and_fewer_pixels(tmp_path):
    assert Image.MAX_IMAGE_PIXELS is None  # else Pillow refuses 179 million, whatever a spec says
    make_pairs(tmp_path / "faces", height=15_000, width=80)
    for most in (1, 2):
        with nullcontext() if most == 2 else pytest.raises(DataError, match="80x15000 pixels, at most 1 million"):
            train, _ = fewshot(8, 1.0, 0, tmp_path, **{**OPTIONS, "max_megapixels": most})
            train.example(0, np.random.default_rng(0))
    np.save(tmp_path / "mask.npy", np.zeros((1250, 1000), np.uint8))
    with pytest.raises(DataError, match="1000x1250 pixels, at most 1 million"):
        read_mask(tmp_path / "mask.npy", 1)
    with pytest.raises(ConfigError, match="max_megapixels: fewshot: must be at least 1, is 0"):
        fewshot(8, 1.0, 0, tmp_path, **{**OPTIONS, "max_megapixels": 0})
    folder = tmp_path / "imagenet"
    for split in ("train", "val"):
        (folder / split / "a").mkdir(parents=True)
        Image.new("RGB", (1250, 1000)).save(folder / split / "a" / "0.png")
    options = {"crop_fraction": 1.0, "skip": [], "interpolation": "bilinear", "tuning": None}
    for part in imagenet(8, 1.0, 0, tmp_path, **options, max_megapixels=1):
        with pytest.raises(DataError, match="1250x1000 pixels, at most 1 million"):
            part.example(0, np.random.default_rng(0))
    for part in imagenet(8, 1.0, 0, tmp_path, **options, max_megapixels=2):
        part.example(0, np.random.default_rng(0))


@pytest.mark.parametrize("read", [read_image, read_mask, reading.size_of, reading.id_counts], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["pipe.png", "pipe.npy"])
def test_a_pipe_is_refused_and_never_waited_for(read, name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: not a readable .*not a regular file"):
        read(tmp_path / name)
