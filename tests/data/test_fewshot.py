import numpy as np
import pytest
import torch
from PIL import Image

from afno_repro.contents import Contents
from afno_repro.data.fewshot import datasetgan, fewshot
from afno_repro.errors import ConfigError, DataError

OPTIONS = {"folder": "faces", "num_classes": 3, "min_pixels": 0, "max_megapixels": 100}
GAN = {"part": "cat", "num_classes": 3, "min_pixels": 0, "max_megapixels": 100}
RNG = np.random.default_rng(0)


def make_pairs(folder, train=3, test=2, height=12, width=16):
    """Images with masks of three classes, a few pixels ignored."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / split / f"{i}.jpg")
            mask = np.arange(width, dtype=np.uint8) * 3 // width * np.ones((height, 1), np.uint8)
            mask[0, :2] = 255
            Image.fromarray(mask).save(folder / split / f"{i}.png")
    return folder


def make_datasetgan(root, train=12, test=11):
    annotation = root / "datasetgan/annotation"
    first, second = annotation / "training_data/cat_processed", annotation / "testing_data/cat_16_class"
    for folder, count, image, mask in (
        (first, train, "image_{}.jpg", "image_mask{}.npy"),
        (second, test, "cat_{}.png", "cat_{}_mask.npy"),
    ):
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(folder / image.format(i), quality=100)
            np.save(folder / mask.format(i), np.arange(16) % 3 * np.ones((16, 1)) if i else np.eye(16))
    return annotation


def test_images_and_masks_are_resized_whole(tmp_path):
    make_pairs(tmp_path / "faces")
    train, test = fewshot(24, 1.0, 0, tmp_path, **OPTIONS)
    assert (len(train), len(test), train.num_classes) == (3, 2, 3)
    for images in (train, test):
        image, label = images.example(1, RNG)
        assert (image.shape, image.dtype) == ((3, 24, 24), torch.uint8)
        assert (label.shape, label.dtype) == ((24, 24), torch.uint8)
        assert label.unique().tolist() == [0, 1, 2, 255]


def test_at_its_own_size_a_pair_is_what_the_files_hold(tmp_path):
    make_pairs(tmp_path / "faces", height=16)
    image, label = fewshot(16, 1.0, 0, tmp_path, **OPTIONS)[0].example(2, RNG)
    np.testing.assert_array_equal(image.permute(1, 2, 0), Image.open(tmp_path / "faces/train/2.jpg"))
    np.testing.assert_array_equal(label, Image.open(tmp_path / "faces/train/2.png"))


def test_alpha_is_dropped_from_an_image_beside_an_array(tmp_path):
    folder = make_pairs(tmp_path / "faces") / "train"
    (folder / "1.jpg").unlink()
    np.save(folder / "1.npy", Image.open(folder / "1.png"))
    Image.fromarray(np.full((12, 16, 4), [10, 20, 30, 40], np.uint8)).save(folder / "1.png")
    image, label = fewshot(16, 1.0, 0, tmp_path, **OPTIONS)[0].example(1, RNG)
    assert image.unique().tolist() == [10, 20, 30]
    assert image.shape == (3, 16, 16)
    assert label.unique().tolist() == [0, 1, 2, 255]


def test_small_classes_become_background_in_training_masks_alone(tmp_path):
    folder = make_pairs(tmp_path / "faces")
    few = np.arange(16, dtype=np.uint8) % 2 * np.ones((12, 1), np.uint8)
    few[0, :5] = 2
    few[1, 0] = 255
    for split in ("train", "test"):
        Image.fromarray(few).save(folder / split / "1.png")
    for min_pixels, expected in ((0, [0, 1, 2, 255]), (5, [0, 1, 2, 255]), (6, [0, 1, 255])):
        train, test = fewshot(16, 1.0, 0, tmp_path, **{**OPTIONS, "min_pixels": min_pixels})
        assert train.example(1, RNG)[1].unique().tolist() == expected
        assert test.example(1, RNG)[1].unique().tolist() == [0, 1, 2, 255]


def test_a_class_whose_every_training_mask_is_too_small_counts_as_absent(tmp_path):
    make_pairs(tmp_path / "faces")  # 70, 60 and 60 pixels of the classes
    for mask in (tmp_path / "faces/train").glob("*.png"):
        stored = np.array(Image.open(mask))
        stored[5, -1] = 255
        Image.fromarray(stored).save(mask)
    assert fewshot(8, 1.0, 0, tmp_path, **{**OPTIONS, "min_pixels": 59})[0].unseen == ()
    with pytest.raises(DataError, match="hold classes that no training mask holds: 2"):
        fewshot(8, 1.0, 0, tmp_path, **{**OPTIONS, "min_pixels": 60})


def test_a_fraction_is_a_fixed_choice(tmp_path):
    make_pairs(tmp_path / "faces", train=8)
    chosen = [fewshot(8, 0.5, seed, tmp_path, **OPTIONS)[0] for seed in (0, 0, 1)]
    assert [len(images) for images in chosen] == [4, 4, 4]
    assert chosen[0].pairs == chosen[1].pairs != chosen[2].pairs
    assert (
        chosen[0].fingerprint(Contents(tmp_path / "memory"))
        == chosen[1].fingerprint(Contents(tmp_path / "memory"))
        != chosen[2].fingerprint(Contents(tmp_path / "memory"))
    )
    assert len(fewshot(8, 0.01, 0, tmp_path, **OPTIONS)[0]) == 1
    assert len(fewshot(8, 0.5, 0, tmp_path, **OPTIONS)[1]) == 2


def test_hidden_files_and_other_files_are_passed_over(tmp_path):
    folder = make_pairs(tmp_path / "faces")
    for name in ("._0.jpg", ".DS_Store", "notes.txt"):
        (folder / "train" / name).write_bytes(b"no image")
    assert len(fewshot(8, 1.0, 0, tmp_path, **OPTIONS)[0]) == 3


@pytest.mark.parametrize("folder", ["", ".", "..", "../faces", "faces/../..", "/faces"])
def test_a_folder_outside_the_data_root_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"fewshot: must be a folder below the data root"):
        fewshot(8, 1.0, 0, tmp_path, **{**OPTIONS, "folder": folder})


@pytest.mark.parametrize(
    "change",
    [{"num_classes": 1}, {"num_classes": 255}, {"min_pixels": -1}, {"fraction": 0.0}, {"fraction": 1.5}],
    ids=str,
)
@pytest.mark.parametrize(("function", "options"), [(fewshot, OPTIONS), (datasetgan, GAN)])
def test_impossible_options_name_their_key(function, options, change, tmp_path):
    with pytest.raises(ConfigError, match=rf"{function.__name__}: must") as error:
        function(**{"image_size": 8, "fraction": 1.0, "seed": 0, "root": tmp_path, **options, **change})
    assert {p.key for p in error.value.problems} == {tuple(change)}


def test_an_absent_or_empty_folder_says_where_it_looked_and_what_it_expected(tmp_path):
    with pytest.raises(
        DataError,
        match=rf"no images in {tmp_path}/faces/train \(no such folder\)\n"
        r".*faces/{train,test}/NAME\.jpg.*\n.*--data or AFNO_DATA",
    ):
        fewshot(8, 1.0, 0, tmp_path, **OPTIONS)
    make_pairs(tmp_path / "faces", test=0)
    with pytest.raises(DataError, match=rf"no images in {tmp_path}/faces/test \(nothing in it\)"):
        fewshot(8, 1.0, 0, tmp_path, **OPTIONS)
    with pytest.raises(DataError, match="cat_processed"):
        datasetgan(8, 1.0, 0, tmp_path, **GAN)


def test_datasetgans_files_are_paired_by_number_and_order_whatever_their_sizes(tmp_path):
    make_datasetgan(tmp_path)
    train, test = datasetgan(16, 1.0, 0, tmp_path, **GAN)
    assert (len(train), len(test)) == (12, 11)
    for images in (train, test):
        for i in range(len(images)):
            image, label = images.example(i, RNG)
            assert abs(int(image.float().mean()) - 10 * i) <= 1
            assert label.shape == (16, 16)
            np.testing.assert_array_equal(label, np.eye(16) if i == 0 else np.arange(16) % 3 * np.ones((16, 1)))


def test_datasetgans_test_pairs_with_numbers_never_meet_by_rank(tmp_path):
    test = make_datasetgan(tmp_path, test=4) / "testing_data/cat_16_class"
    (test / "cat_1_mask.npy").rename(test / "cat_4_mask.npy")
    with pytest.raises(DataError) as told:
        datasetgan(16, 1.0, 0, tmp_path, **GAN)
    assert "cat_1.png: has no mask" in str(told.value)
    assert "cat_4_mask.npy: has no image" in str(told.value)
    assert "cat_2" not in str(told.value)


def test_datasetgans_test_pairs_without_numbers_meet_in_order(tmp_path):
    test = make_datasetgan(tmp_path, test=3) / "testing_data/cat_16_class"
    for i, name in enumerate("abc"):
        (test / f"cat_{i}.png").rename(test / f"{name}.png")
        (test / f"cat_{i}_mask.npy").rename(test / f"{name}_mask.npy")
    images = datasetgan(16, 1.0, 0, tmp_path, **GAN)[1]
    assert [(image.stem, mask.stem) for image, mask in images.pairs] == [(n, f"{n}_mask") for n in "abc"]


def test_a_class_that_only_datasetgans_test_images_hold_is_a_property(tmp_path):
    annotation = make_datasetgan(tmp_path, train=1)
    assert [images.unseen for images in datasetgan(8, 1.0, 0, tmp_path, **GAN)] == [(2,), (2,)]
    (annotation / "training_data/cat_processed/image_mask0.npy").unlink()
    with pytest.raises(DataError, match=r"image_0\.jpg: has no mask"):
        datasetgan(8, 1.0, 0, tmp_path, **GAN)


def test_datasetgan_has_three_parts(tmp_path):
    with pytest.raises(ConfigError, match="must be one of face, car, cat, is 'dog'"):
        datasetgan(8, 1.0, 0, tmp_path, **{**GAN, "part": "dog"})


def test_datasetgans_test_files_with_numbers_are_paired_by_them_and_the_rest_is_named(tmp_path):
    folder = make_datasetgan(tmp_path, test=5) / "testing_data/cat_16_class"
    (folder / "cat_4.png").unlink()
    (folder / "cat_1_mask.npy").unlink()
    with pytest.raises(DataError, match=r"cat_1\.png: has no mask[^$]*cat_4_mask\.npy: has no image"):
        datasetgan(8, 1.0, 0, tmp_path, **GAN)


def test_datasetgans_test_files_without_numbers_are_paired_by_their_order(tmp_path):
    folder = make_datasetgan(tmp_path, test=3) / "testing_data/cat_16_class"
    for i, name in enumerate("abc"):
        (folder / f"cat_{i}.png").rename(folder / f"cat_{name}.png")
        (folder / f"cat_{i}_mask.npy").rename(folder / f"{name}.npy")
    _, test = datasetgan(8, 1.0, 0, tmp_path, **GAN)
    assert [(image.name, mask.name) for image, mask in test.pairs] == [(f"cat_{n}.png", f"{n}.npy") for n in "abc"]
