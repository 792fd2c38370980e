import os

import numpy as np
import pytest
from PIL import Image

from afno_repro.contents import Contents
from afno_repro.data import pairs
from afno_repro.data.fewshot import fewshot, plain_splits
from afno_repro.errors import DataError
from tests.data.test_fewshot import OPTIONS, make_pairs

RNG = np.random.default_rng(0)


def refused(root):
    """The message that keeps a training from starting."""
    with pytest.raises(DataError) as error:
        fewshot(8, 1.0, 0, root, **OPTIONS)
    return str(error.value)


def told(root):
    """What opening every file finds."""
    return [problem for split in plain_splits(root / "faces", 3, 0).values() for problem in split.problems()]


def png(path, array):
    Image.fromarray(np.asarray(array)).save(path)


def npy(folder, array):
    """Another mask of the second image."""
    (folder / "1.png").unlink()
    np.save(folder / "1.npy", array, allow_pickle=True)
    return folder / "1.npy"


def missing_mask(folder):
    (folder / "1.png").unlink()
    return folder / "1.jpg", "has no mask"


def missing_image(folder):
    (folder / "1.jpg").unlink()
    return folder / "1.png", "has no image"


def two_masks(folder):
    np.save(folder / "1.npy", np.zeros((12, 16), np.uint8))
    return folder / "1.png", "unclear which"


def other_size(folder):
    png(folder / "1.png", np.ones((6, 16), np.uint8))
    return folder / "1.png", "16x6 pixels, but its image 1.jpg has 16x12"


def out_of_range(folder):
    png(folder / "1.png", np.full((12, 16), 3, np.uint8))
    return folder / "1.png", "class id 3 is out of range; allowed: 0..2 or 255"


def far_out_of_range(folder):
    return npy(folder, np.full((12, 16), -1)), "class id -1 is out of range"


def beyond_a_byte(folder):
    png(folder / "1.png", np.full((12, 16), 256, np.uint16))
    return folder / "1.png", "class id 256 is out of range"


def colours(folder):
    png(folder / "1.png", np.zeros((12, 16, 3), np.uint8))
    return folder / "1.png", "mode RGB, but a mask holds one class id a pixel"


def truncated_mask(folder):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:-30])
    return folder / "1.png", "not a readable mask"


def no_mask_at_all(folder):
    (folder / "1.png").write_bytes(b"")
    return folder / "1.png", "not a readable file"


def pickled(folder):
    return npy(folder, np.array([{}, {}], dtype=object)), "not a readable"


def fractions(folder):
    return npy(folder, np.full((12, 16), 0.5)), "whole numbers"


def one_dimension(folder):
    return npy(folder, np.zeros(192, np.uint8)), "not a readable file"


def no_channel(folder):
    return npy(folder, np.zeros((12, 16, 0), np.uint8)), "not a readable file"


def no_image(folder):
    (folder / "1.jpg").write_bytes(b"no image")
    return folder / "1.jpg", "not a readable"


def dangling_link(folder):
    (folder / "1.jpg").unlink()
    (folder / "1.jpg").symlink_to(folder / "nowhere.jpg")
    return folder / "1.jpg", "cannot be read"


BREAKAGES = [
    *(
        missing_mask,
        missing_image,
        two_masks,
        other_size,
        out_of_range,
        far_out_of_range,
        beyond_a_byte,
        colours,
        truncated_mask,
    ),
    *(no_mask_at_all, pickled, fractions, one_dimension, no_channel, no_image, dangling_link),
]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda function: function.__name__)
def test_what_is_broken_is_named_before_a_training_and_by_the_check(breakage, split, tmp_path):
    folder = make_pairs(tmp_path / "faces") / split
    assert told(tmp_path) == []
    path, what = breakage(folder)
    message = refused(tmp_path)
    assert f"{path}: " in message
    assert what in message
    assert "faces/{train,test}/NAME.jpg" in message
    assert len(told(tmp_path)) == 1
    assert told(tmp_path)[0].startswith(f"{path}: ")


def test_the_first_five_offenders_are_named_and_all_counted(tmp_path):
    folder = make_pairs(tmp_path / "faces", train=8)
    for i in range(7):
        (folder / "train" / f"{i}.png").unlink()
    message = refused(tmp_path)
    assert [f"/{i}.jpg: " in message for i in range(7)] == [True] * 5 + [False] * 2
    assert "... and 2 more, 7 in all" in message


def test_an_image_whose_pixels_are_broken_is_named_when_it_is_read(tmp_path):
    folder = make_pairs(tmp_path / "faces")
    broken = folder / "train" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:-40])
    train, _ = fewshot(8, 1.0, 0, tmp_path, **OPTIONS)
    with pytest.raises(DataError, match=rf"fewshot: example 1: {broken}: not a readable image"):
        train.example(1, RNG)
    assert [problem.split(": ")[0] for problem in told(tmp_path)] == [str(broken)]


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    folder = make_pairs(tmp_path / "faces", train=2)
    Image.new("RGB", (40, 50)).save(folder / "train" / "1.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)  # Pillow refuses twice as many
    assert f"{folder}/train/1.jpg: not a readable file (Image size (2000 pixels) exceeds limit" in refused(tmp_path)
    assert len(told(tmp_path)) == 1


def test_masks_of_one_class_are_refused_whatever_is_ignored(tmp_path):
    folder = make_pairs(tmp_path / "faces")
    for mask in (folder / "train").glob("*.png"):
        png(mask, np.where(np.arange(16) < 3, 255, np.ones((12, 1))).astype(np.uint8))
    message = refused(tmp_path)
    assert "the training masks hold fewer than two classes" in message
    assert f"{folder}/train/0.png: classes [1]" in message


def test_classes_that_only_validation_holds_are_refused_with_the_masks_that_hold_them(tmp_path):
    folder = make_pairs(tmp_path / "faces")
    for mask in (folder / "train").glob("*.png"):
        png(mask, np.arange(16, dtype=np.uint8) % 2 * np.ones((12, 1), np.uint8))
    message = refused(tmp_path)
    assert "the validation masks hold classes that no training mask holds: 2" in message
    assert f"{folder}/test/0.png: classes [2]" in message


def test_in_a_set_of_many_masks_the_ids_are_looked_at_when_they_are_read(tmp_path, monkeypatch):
    folder = make_pairs(tmp_path / "faces")
    out_of_range(folder / "train")
    monkeypatch.setattr(pairs, "LOOKED_INTO", 3)
    train, val = fewshot(8, 1.0, 0, tmp_path, **OPTIONS)
    assert train.unseen is val.unseen is None
    with pytest.raises(DataError, match=rf"example 1: {folder}/train/1\.png: class id 3"):
        train.example(1, RNG)


IDS = np.arange(12 * 16).reshape(12, 16) % 3


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("1.npy", IDS.astype(np.uint8)),
        ("1.npy", IDS),
        ("1.npy", IDS.astype(np.float32)),
        ("1.npy", np.stack([IDS, IDS * 0], axis=-1)),
        ("1.npy", IDS[None]),
        ("1.npy", IDS[..., None]),
        ("1.npy", np.asfortranarray(IDS)),
        ("1.png", IDS.astype(np.uint16)),
        ("1.png", Image.fromarray(IDS.astype(np.uint8), "P")),
    ],
    ids=["uint8", "int64", "float", "channels", "leading axis", "last axis", "fortran", "16 bits", "palette"],
)
def test_a_mask_is_read_alike_however_it_is_stored(name, stored, tmp_path):
    folder = make_pairs(tmp_path / "faces") / "train"
    if isinstance(stored, Image.Image):
        stored.putpalette(list(range(255, 246, -1)))
        stored.save(folder / name)
    elif name.endswith("npy"):
        npy(folder, stored)
    else:
        png(folder / name, stored)
    mask = pairs.read_mask(folder / name)
    np.testing.assert_array_equal(mask, IDS)
    split = plain_splits(folder.parent, 3, 0)["train"]
    assert split.classes_in(folder / name) == {0, 1, 2}
    assert list(split.problems()) == []


def test_a_changed_mask_is_read_again_and_changes_the_fingerprint(tmp_path):
    folder = make_pairs(tmp_path / "faces") / "train"
    npy(folder, IDS)
    before = fewshot(8, 1.0, 0, tmp_path, **OPTIONS)[0].fingerprint(Contents(tmp_path / "memory"))
    assert fewshot(8, 1.0, 0, tmp_path, **OPTIONS)[0].fingerprint(Contents(tmp_path / "memory")) == before
    np.save(folder / "1.npy", IDS[::-1])  # as many bytes as before
    assert fewshot(8, 1.0, 0, tmp_path, **OPTIONS)[0].fingerprint(Contents(tmp_path / "memory")) != before


def test_files_damaged_at_random_are_always_a_data_error(tmp_path):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "whole.npy", IDS.astype(np.uint8))
    png(tmp_path / "whole.png", IDS.astype(np.uint8))
    Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    for kind in ("npy", "png", "jpg"):
        whole = (tmp_path / f"whole.{kind}").read_bytes()
        for i in range(300):
            damaged = bytearray(whole[: int(rng.integers(len(whole)))] if i % 2 else whole)
            for place in rng.integers(max(1, len(damaged)), size=4 if damaged else 0):
                damaged[place] = rng.integers(256)
            path = tmp_path / f"{i}.{kind}"
            path.write_bytes(bytes(damaged))
            pairs.failures(pairs.size_of, [path])
            pairs.failures(pairs.read_image if kind == "jpg" else pairs.id_counts, [path])


def test_validation_masks_that_are_all_ignored_are_refused_before_a_training(tmp_path, monkeypatch):
    folder = make_pairs(tmp_path / "faces") / "test"
    for mask in folder.glob("*.png"):
        png(mask, np.full((12, 16), 255, np.uint8))
    for most in (1000, 1):  # sets of many masks, too
        monkeypatch.setattr(pairs, "LOOKED_INTO", most)
        assert f"every pixel of these masks is ignored, so nothing can be scored\n  {folder}/0.png" in refused(tmp_path)


def test_ids_of_0_and_255_are_told_to_be_one_class_and_ignored_pixels(tmp_path):
    folder = make_pairs(tmp_path / "faces")
    for mask in folder.glob("*/*.png"):
        png(mask, np.where(np.arange(16) < 8, 0, np.full((12, 1), 255)).astype(np.uint8))
    assert "fewer than two classes (255 is ignored)" in refused(tmp_path)


def test_a_pipe_among_pairs_is_named(tmp_path):
    folder = make_pairs(tmp_path / "faces") / "train"
    (folder / "1.jpg").unlink()
    os.mkfifo(folder / "1.jpg")
    assert f"{folder}/1.jpg: not a readable file" in refused(tmp_path)
