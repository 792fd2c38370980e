import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from afno_repro.config import DataConfig
from afno_repro.contents import Contents
from afno_repro.data import classes, load_data
from afno_repro.data.folder import splits
from afno_repro.data.reading import read_image
from afno_repro.data.transforms import random_crop
from afno_repro.errors import ConfigError, DataError
from tests.data.test_imagenet import make_folder

RNG = np.random.default_rng(0)
OPTIONS = {"crop_fraction": 0.875, "skip": [], "interpolation": "bilinear", "tuning": None, "max_megapixels": 100}


def load(root, name="mine", **changes):
    return load_data(DataConfig("folder", 16, 1.0, 0, {"folder": name, **OPTIONS, **changes}), root)


def make_flat(root, name="mine", train=6, val=3):
    rng = np.random.default_rng(1)
    for split, count in (("train", train), ("val", val)):
        (root / name / split).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / split / f"{i}.png")
    return root / name


def test_a_folder_by_class_is_read_as_imagenets_is(tmp_path):
    make_folder(tmp_path, val=("n2", "n1"))
    imagenet = load_data(DataConfig("imagenet", 16, 1.0, 0, OPTIONS), tmp_path)
    (tmp_path / "imagenet").rename(tmp_path / "mine")
    for ours, theirs in zip(load(tmp_path), imagenet, strict=True):
        assert [file.name for file in ours.files] == [file.name for file in theirs.files]
        assert ours.labels == theirs.labels == {"n0": 0, "n1": 1, "n2": 2}
        assert ours.folders == theirs.folders


def test_flat_images_are_sorted_whole_for_training_square_for_validation_and_have_no_labels(tmp_path):
    where = make_flat(tmp_path)
    train, val = load(tmp_path)
    assert (len(train), len(val), train.num_classes, val.num_classes) == (6, 3, None, None)
    assert train.files == [where / f"train/{i}.png" for i in range(6)]
    for i in range(6):
        image, label = train.example(i, RNG)
        assert label is None
        np.testing.assert_array_equal(image.permute(1, 2, 0), Image.open(train.files[i]))
    assert {val.example(i, RNG)[0].shape for i in range(3)} == {torch.Size([3, 16, 16])}


@pytest.mark.parametrize(("limit", "reads"), [("FEW", 18), ("KEPT_BYTES", 18), (None, 6)])
def test_images_of_a_small_set_are_read_once_and_stay_as_they_were_read(tmp_path, monkeypatch, limit, reads):
    make_flat(tmp_path)
    if limit is not None:
        monkeypatch.setattr(classes, limit, 5)
    read, train = [], load(tmp_path)[0]
    monkeypatch.setattr(classes, "read_image", lambda path, megapixels: read.append(path) or read_image(path))
    first = [train.example(i, RNG)[0].clone() for i in range(6)]
    for i, pixels in enumerate(first):
        random_crop((train.example(i, RNG)[0], None), 16, RNG, [0.5, 1.0])
        assert torch.equal(train.example(i, RNG)[0], pixels)
    assert len(read) == reads


@pytest.mark.parametrize(("fraction", "count"), [(1.0, 6), (0.5, 3), (0.01, 1)])
def test_a_fraction_of_flat_images_is_a_fixed_choice(fraction, count, tmp_path):
    make_flat(tmp_path)
    picks = [
        load_data(DataConfig("folder", 16, fraction, seed, {"folder": "mine", **OPTIONS}), tmp_path)[0].files
        for seed in (0, 0, 3)
    ]
    assert [len(pick) for pick in picks] == [count] * 3
    assert picks[0] == picks[1] == sorted(picks[0])


def test_the_fingerprint_is_that_of_names_and_bytes(tmp_path):
    where = make_flat(tmp_path)
    _, val = load(tmp_path)
    lines = [f"val/{i}.png {hashlib.sha256((where / f'val/{i}.png').read_bytes()).hexdigest()}" for i in range(3)]
    assert val.fingerprint(Contents(tmp_path / "memory")) == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_flat_training_images_may_be_skipped_and_held_out(tmp_path):
    where = make_flat(tmp_path)
    train, val = load(tmp_path, skip=["train/2.png"], tuning=3)
    assert [file.name for file in val.files] == ["0.png", "4.png"]
    assert [file.name for file in train.files] == ["1.png", "3.png", "5.png"]
    with pytest.raises(ConfigError, match=r"folder: val/0\.png: no such training image; a name is like train/0\.png"):
        load(tmp_path, skip=["val/0.png"])
    (where / "train/5.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"(?s)folder: image 5: .*add train/5\.png to the data's skip"):
        load(tmp_path)[0].example(5, RNG)


@pytest.mark.parametrize("flat", ["train", "val"])
def test_where_one_split_alone_has_classes_there_are_no_labels(flat, tmp_path):
    make_folder(tmp_path)
    make_flat(tmp_path, "other")
    other = tmp_path / "imagenet" / flat
    other.rename(tmp_path / "set_aside")
    (tmp_path / "other" / flat).rename(other)
    assert {images.num_classes for images in load(tmp_path, "imagenet")} == {None}


def test_images_beside_class_folders_are_refused(tmp_path):
    where = make_folder(tmp_path)
    Image.new("RGB", (8, 8)).save(where / "train/loose.png")
    with pytest.raises(
        DataError, match=r"imagenet/train: images lie in it \(loose\.png\) and in folders of it \(n0/\)"
    ):
        load(tmp_path, "imagenet")


def test_what_is_wrong_and_what_is_not_used_is_told(tmp_path):
    where = make_flat(tmp_path)
    (where / "val/notes.txt").write_text("none")
    (where / "train/._0.png").write_bytes(b"")
    (where / "train/1.png").write_bytes(b"no image")
    assert [told.partition(": ")[0] for told in splits(tmp_path, "mine").problems()] == [f"{where}/train/1.png"]
    assert list(splits(tmp_path, "mine").left_out()) == [f"{where}/train/._0.png", f"{where}/val/notes.txt"]


def test_an_absent_or_empty_folder_says_what_is_expected(tmp_path):
    with pytest.raises(
        DataError, match=rf"no images in {tmp_path}/mine/train \(no such folder\)\n.*mine/{{train,val}}"
    ):
        load(tmp_path)
    (tmp_path / "mine/train").mkdir(parents=True)
    with pytest.raises(DataError, match="none of its files is one"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["", "/etc", "../mine", "a/../../b"])
def test_it_lies_below_the_data_root(name, tmp_path):
    with pytest.raises(ConfigError, match="folder: folder: must be a folder below the data root"):
        load(tmp_path, name)
