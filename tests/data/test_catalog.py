import shutil

import numpy as np
import pytest
from PIL import Image

from afno_repro.config import DataConfig
from afno_repro.data import DATASETS
from afno_repro.data.catalog import left_out, left_out_of, offenders, survey
from afno_repro.data.entries import ENTRIES
from tests.data.test_camvid import make_camvid
from tests.data.test_cityscapes import make_cityscapes
from tests.data.test_fewshot import make_datasetgan, make_pairs
from tests.data.test_folder import make_flat
from tests.data.test_imagenet import make_folder, make_kaggle
from tests.data.test_parquet import make_parquet

INSIDE = ["photos", "digits", "textures"]


def surveyed(root):
    return {found.name: found for found in survey(root)}


def make_all(root):
    make_folder(root)
    make_flat(root, "holidays")
    make_parquet(root / "cifar10")
    make_datasetgan(root)
    make_pairs(root / "faces")
    make_cityscapes(root)
    make_camvid(root)
    return root


def test_every_data_set_by_name_is_in_the_catalogue_with_all_its_facts():
    assert set(DATASETS) <= {entry.name for entry in ENTRIES}
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert all((entry.purpose, entry.layout, entry.origin, entry.licence, entry.source))


def test_in_an_empty_folder_only_what_packages_hold_is_found(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        found = surveyed(root)
        assert [name for name, each in found.items() if each.found] == INSIDE
        assert {found[name].where for name in INSIDE} == {"inside the packages"}
        assert (found["digits"].images, found["digits"].classes) == ({"all": 1797}, 10)
        for name in set(found) - set(INSIDE):
            assert str(root) in found[name].reason
            assert found[name].where.startswith(str(root))
            assert list(offenders(name, root)) == []


def test_what_is_there_is_counted(tmp_path):
    found = surveyed(make_all(tmp_path))
    counts = {name: (each.images, each.classes) for name, each in found.items() if each.found and name not in INSIDE}
    assert counts == {
        "imagenet": ({"train": 12, "val": 12}, 3),
        "folder/holidays": ({"train": 6, "val": 3}, None),
        "parquet/cifar10": ({"train": 10, "test": 4}, 3),
        "datasetgan/cat": ({"train": 12, "test": 11}, 3),
        "fewshot/faces": ({"train": 3, "test": 2}, 3),
        "cityscapes": ({"train": 4, "val": 4}, 19),
        "camvid": ({"train": 4, "val": 2, "test": 3}, 11),
    }
    assert [found[name].found for name in ("datasetgan/face", "datasetgan/car")] == [False, False]
    assert all(list(offenders(name, tmp_path)) == [] for name in found)


def test_a_set_that_lacks_a_split_is_not_found_and_says_which(tmp_path):
    make_all(tmp_path)
    shutil.rmtree(tmp_path / "camvid/valannot")
    shutil.rmtree(tmp_path / "imagenet/val")
    found = surveyed(tmp_path)
    assert (found["camvid"].found, found["imagenet"].found) == (False, False)
    assert f"{tmp_path}/camvid/val" in found["camvid"].reason
    assert f"{tmp_path}/imagenet/val" in found["imagenet"].reason


def test_classes_that_training_lacks_are_told_of_imagenet(tmp_path):
    make_folder(tmp_path, val=("n7",))
    found = surveyed(tmp_path)["imagenet"]
    assert (found.found, found.classes) == (True, None)
    assert "without labels" in found.reason


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("imagenet", "imagenet/val/n1/2.JPEG"),
        ("folder/holidays", "holidays/val/1.png"),
        ("datasetgan/cat", "datasetgan/annotation/testing_data/cat_16_class/cat_3_mask.npy"),
        ("datasetgan/cat", "datasetgan/annotation/training_data/cat_processed/image_3.jpg"),
        ("fewshot/faces", "faces/train/1.png"),
        ("fewshot/faces", "faces/test/1.jpg"),
        ("cityscapes", "cityscapes/leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png"),
        ("camvid", "camvid/testannot/s2.png"),
    ],
)
def test_the_check_opens_every_file(name, file, tmp_path):
    path = make_all(tmp_path) / file
    path.write_bytes(path.read_bytes()[:-30])
    found = list(offenders(name, tmp_path))
    assert [problem.split(": ")[0] for problem in found] == [str(path)]
    assert all(list(offenders(other, tmp_path)) == [] for other in surveyed(tmp_path) if other != name)


def test_ids_that_no_set_could_have_are_problems_of_plain_pairs(tmp_path):
    folder = make_pairs(tmp_path / "faces")
    Image.fromarray(np.full((12, 16), 254, np.uint8)).save(folder / "train/0.png")
    assert [problem.split(": ")[0] for problem in offenders("fewshot/faces", tmp_path)] == [f"{folder}/train/0.png"]


def test_imagenet_is_found_as_kaggle_has_it(tmp_path):
    folder = make_kaggle(tmp_path)
    found = surveyed(tmp_path)["imagenet"]
    assert (found.images, found.classes, found.where) == ({"train": 12, "val": 12}, 3, str(folder))


def test_a_broken_image_in_a_parquet_file_is_named_by_its_row_and_hidden_files_are_counted(tmp_path):
    folder = make_parquet(tmp_path / "cifar10", broken=7)
    (folder / ".train.parquet").write_bytes(b"none")
    told = list(offenders("parquet/cifar10", tmp_path))
    assert [each.partition(": not a readable")[0] for each in told] == [
        f"{folder}/data/train-00001-of-00002.parquet: row 2"
    ]
    assert list(left_out("parquet/cifar10", tmp_path)) == [f"{folder}/.train.parquet"]


def test_what_a_run_leaves_out_of_images_of_ones_own_is_named_below_the_data_root(tmp_path):
    folder = make_flat(tmp_path, "holidays")
    (folder / "val/notes.txt").write_text("none")
    options = {"folder": "holidays", "skip": ["train/2.png"]}
    found = left_out_of(DataConfig("folder", 16, 1.0, 0, options), tmp_path)
    assert found == {"count": 2, "first": ["holidays/train/2.png", "holidays/val/notes.txt"]}
    (make_parquet(tmp_path / "cifar10") / ".train.parquet").write_bytes(b"none")
    found = left_out_of(DataConfig("parquet", 16, 1.0, 0, {"folder": "cifar10"}), tmp_path)
    assert found == {"count": 1, "first": ["cifar10/.train.parquet"]}
