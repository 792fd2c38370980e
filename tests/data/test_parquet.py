import hashlib
import io
import json
import os
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet as pq

from afno_repro.config import DataConfig
from afno_repro.contents import Contents
from afno_repro.data import load_data
from afno_repro.data.loader import loader
from afno_repro.data.samples import VALIDATION, Samples, validation_batches
from afno_repro.errors import ConfigError, DataError
from tests.command import afno
from tests.specs import write_spec

RNG = np.random.default_rng(0)
OPTIONS = {
    "validation": "test",
    "label": "label",
    "crop_fraction": 1.0,
    "interpolation": "bilinear",
    "tuning": None,
    "max_megapixels": 100,
}
NAMES = json.dumps({"info": {"features": {"img": {"_type": "Image"}, "label": {"names": ["a", "b", "c"]}}}})


def pixels(split, row):
    rng = np.random.default_rng([len(split), row])
    return rng.integers(0, 255, (16, 20 if row % 2 else 16, 3), dtype=np.uint8)


def encoded(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def make_parquet(folder, image="img", metadata=NAMES, labels=lambda row: row % 3, broken=None):
    """Ten training images in two files and four test images, in row groups of two."""
    (folder / "data").mkdir(parents=True)
    for split, parts in (("train", [range(5), range(5, 10)]), ("test", [range(4)])):
        for i, rows in enumerate(parts):
            images = [
                {
                    "bytes": b"no image" if split == "train" and row == broken else encoded(pixels(split, row)),
                    "path": f"{row}.png",
                }
                for row in rows
            ]
            type_ = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            table = pa.table({image: pa.array(images, type_), "label": [labels(row) for row in rows]})
            table = table.replace_schema_metadata({"huggingface": metadata} if metadata else None)
            pq.write_table(table, folder / f"data/{split}-{i:05}-of-{len(parts):05}.parquet", row_group_size=2)
    return folder


def load(root, fraction=1.0, seed=0, name="cifar10", **changes):
    return load_data(DataConfig("parquet", 16, fraction, seed, {"folder": name, **OPTIONS, **changes}), root)


@pytest.mark.parametrize("image", ["img", "image"])
def test_images_and_labels_are_those_of_the_rows(image, tmp_path):
    make_parquet(tmp_path / "cifar10", image=image)
    for split, images, count in zip(("train", "test"), load(tmp_path), (10, 4), strict=True):
        assert (len(images), images.num_classes) == (count, 3)
        rows = sorted(range(count), key=lambda row: (row % 3, row))  # by class, then in order
        for index, row in enumerate(rows):
            found, label = images.example(index, RNG)
            expected = pixels(split, row) if split == "train" else pixels(split, row)[:, 2 * (row % 2) :][:, :16]
            np.testing.assert_array_equal(found.permute(1, 2, 0), expected)
            assert (label.item(), label.dtype, label.shape) == (row % 3, torch.int64, ())
    assert load(tmp_path)[0].sizes() == {(16, 16), (16, 20)}
    assert load(tmp_path)[1].sizes() == {(16, 16)}


def test_any_order_of_rows_and_a_small_memory_give_the_same_images(tmp_path, monkeypatch):
    make_parquet(tmp_path / "cifar10")
    monkeypatch.setattr(sys.modules["afno_repro.data.parquet"], "KEPT_BYTES", 1)  # a function has its name
    train, _ = load(tmp_path)
    for index in (9, 0, 5, 9, 4, 0):
        row = train.rows[index]
        np.testing.assert_array_equal(train.example(index, RNG)[0].permute(1, 2, 0), pixels("train", row))
        assert len(train.table.kept) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_other_processes_read_the_same(workers, tmp_path):
    make_parquet(tmp_path / "cifar10")
    _, test = load(tmp_path)
    test.example(0, RNG)  # a row group is open and in memory before the processes fork
    samples = Samples(test, lambda example, rng: example, 0, VALIDATION)
    batches = list(loader(samples, validation_batches(len(test), 3), workers, pin_memory=False))
    for i, image in enumerate(torch.cat([images for images, _ in batches])):
        assert torch.equal(image, test.example(i, RNG)[0])


def test_without_names_in_the_schema_the_largest_label_says_how_many_classes_there_are(tmp_path):
    make_parquet(tmp_path / "cifar10", metadata=None, labels=lambda row: row)
    assert {images.num_classes for images in load(tmp_path)} == {10}
    make_parquet(tmp_path / "other", metadata="[1]", labels=lambda row: row // 2)
    assert {images.num_classes for images in load(tmp_path, name="other")} == {5}


def test_a_label_column_of_null_gives_images_without_labels(tmp_path):
    make_parquet(tmp_path / "cifar10", labels=lambda row: -1)
    train, test = load(tmp_path, label=None)
    assert train.rows == list(range(10))
    assert (train.num_classes, test.num_classes, test.example(1, RNG)[1]) == (None, None, None)
    with pytest.raises(DataError, match=r"train-00000-of-00002\.parquet: row 0: label -1, but the classes are 0 to 2"):
        load(tmp_path)


def test_a_fraction_is_a_fixed_choice_of_each_class_and_settings_are_chosen_on_held_out_rows(tmp_path):
    make_parquet(tmp_path / "cifar10")
    chosen = [load(tmp_path, 0.5, seed)[0].rows for seed in (0, 0, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert [row % 3 for row in chosen[0]] == [0, 0, 1, 1, 2, 2]
    train, held = load(tmp_path, tuning=4)
    assert held.rows == [0, 1, 5]  # of 0 3 6 9, 1 4 7, 2 5 8 every fourth
    assert sorted(train.rows + held.rows) == list(range(10))
    np.testing.assert_array_equal(held.example(0, RNG)[0].permute(1, 2, 0), pixels("train", 0))


def test_the_fingerprint_is_that_of_the_splits_files(tmp_path):
    folder = make_parquet(tmp_path / "cifar10")
    train, test = load(tmp_path)
    for images in (train, test):
        lines = [f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in images.files]
        expected = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        assert images.fingerprint(Contents(tmp_path / "memory")) == expected
    assert [len(train.files), len(test.files)] == [2, 1]


def test_a_missing_file_of_a_split_and_a_missing_split_are_named(tmp_path):
    folder = make_parquet(tmp_path / "cifar10")
    with pytest.raises(
        DataError, match=r"no files of the split 'validation' in .* \(splits: test, train\)\n.*cifar10/"
    ):
        load(tmp_path, validation="validation")
    (folder / "data/train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"not one of each of the 2 files .*'train': train-00001-of-00002\.parquet"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"no files of the split 'train' in .*nowhere \(splits: none\)"):
        load(tmp_path, name="nowhere")


@pytest.mark.parametrize("layout", ["{split}.parquet", "{split}/0000.parquet", "default/{split}/0000.parquet"])
def test_other_usual_names_are_splits_too(layout, tmp_path):
    made = make_parquet(tmp_path / "made") / "data"
    for split, name in (("train", "train-00001-of-00002"), ("test", "test-00000-of-00001")):
        target = tmp_path / "cifar10" / layout.format(split=split)
        target.parent.mkdir(parents=True, exist_ok=True)
        (made / f"{name}.parquet").rename(target)
    assert [len(images) for images in load(tmp_path)] == [5, 4]


def test_what_is_no_table_of_images_is_refused(tmp_path):
    folder = make_parquet(tmp_path / "cifar10")
    with pytest.raises(DataError, match=r"has no column 'fine_label' \(columns: img, label\)"):
        load(tmp_path, label="fine_label")
    with pytest.raises(DataError, match=r"column 'img': must hold whole numbers, holds struct"):
        load(tmp_path, label="img")
    test = folder / "data/test-00000-of-00001.parquet"
    pq.write_table(pa.table({"label": [1]}), test)
    with pytest.raises(DataError, match=r"must have one column of images \{bytes, path\}, has 0 \(columns: label\)"):
        load(tmp_path)
    test.write_bytes(test.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: not a readable parquet file"):
        load(tmp_path)
    test.unlink()
    os.mkfifo(test)
    with pytest.raises(DataError, match="not a readable parquet file"):
        load(tmp_path)


def test_a_broken_and_an_absent_image_are_named_by_their_rows(tmp_path):
    make_parquet(tmp_path / "cifar10", broken=7)
    train, _ = load(tmp_path)
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet: row 2: not a readable image"):
        train.example(train.rows.index(7), RNG)
    file = tmp_path / "cifar10/data/test-00000-of-00001.parquet"
    table = pq.read_table(file)
    names = [{"bytes": None, "path": "0.png"}] * len(table)
    pq.write_table(table.set_column(0, "img", pa.array(names, table.schema.field("img").type)), file)
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: row 0: holds no image, or only the name"):
        load(tmp_path)[1].example(0, RNG)


@pytest.mark.parametrize(
    "change", [{"folder": ".."}, {"folder": "/tmp"}, {"crop_fraction": 0.0}, {"tuning": 1}], ids=str
)
def test_impossible_options_name_their_key(change, tmp_path):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, name=change.pop("folder", "cifar10"), **change)
    assert {p.key for p in error.value.problems} == {tuple(change) or ("folder",)}


def test_without_pyarrow_the_extra_is_named(tmp_path):
    make_parquet(tmp_path / "data/cifar10")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/pyarrow.py").write_text("raise ModuleNotFoundError('No module', name='pyarrow')\n")
    paths = os.pathsep.join([str(tmp_path / "hidden"), *sys.path])
    data = (
        "pretrain.data={name: parquet, image_size: 16, fraction: 1.0, seed: 0, folder: cifar10, validation: test, "
        "label: label, crop_fraction: 1.0, interpolation: bilinear, tuning: null, max_megapixels: 100}"
    )
    write_spec(tmp_path)
    done = afno(
        *("run", "small", "--row", "gfn", "--set", data),
        root=tmp_path,
        expect=3,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert "the package pyarrow is not installed\n  pip install 'afno_repro[parquet]'" in done.stderr


def test_a_damaged_file_is_read_or_named(tmp_path):
    file = make_parquet(tmp_path / "cifar10") / "data/test-00000-of-00001.parquet"
    whole, rng, named = file.read_bytes(), np.random.default_rng(0), 0
    for trial in range(60):
        data = bytearray(whole)
        for place in rng.integers(len(data) - 1500 if trial % 2 else 0, len(data), 3):
            data[place] = rng.integers(256)
        file.write_bytes(bytes(data))
        try:
            _, test = load(tmp_path)
            assert all(test.example(i, RNG)[0].shape == (3, 16, 16) for i in range(len(test)))
        except DataError as error:
            named += str(file) in str(error)
            continue
        named += 1
    assert named == 60
