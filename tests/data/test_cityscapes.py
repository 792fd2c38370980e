import numpy as np
import pytest
import torch
from PIL import Image

from afno_repro.data.cityscapes import CLASS_NAMES, cityscapes, splits
from afno_repro.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
# As cityscapesScripts' labels.py has them.
EVALUATED = "7 road, 8 sidewalk, 11 building, 12 wall, 13 fence, 17 pole, 19 traffic light, 20 traffic sign, "
EVALUATED += "21 vegetation, 22 terrain, 23 sky, 24 person, 25 rider, 26 car, 27 truck, 28 bus, 31 train, "
EVALUATED += "32 motorcycle, 33 bicycle"
NAMED = {int(label): name for label, name in (each.split(" ", 1) for each in EVALUATED.split(", "))}
ALL_IDS = np.arange(34, dtype=np.uint8).reshape(2, 17)


def make_cityscapes(root, ids=ALL_IDS, kind="labelIds", splits=("train", "val")):
    for split in splits:
        for city in ("aachen", "ulm"):
            for i in range(2):
                frame = f"{city}_00000{i}_000019"
                for folder, end, pixels in (
                    ("leftImg8bit", "leftImg8bit", np.full((*ids.shape, 3), i, np.uint8)),
                    ("gtFine", f"gtFine_{kind}", ids),
                ):
                    path = root / "cityscapes" / folder / split / city / f"{frame}_{end}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
    return root / "cityscapes"


def load(root, fraction=1.0, seed=0):
    return cityscapes(1024, fraction, seed, root, max_megapixels=100)


def test_label_ids_become_train_ids_and_frames_stay_whole(tmp_path):
    make_cityscapes(tmp_path)
    for images in load(tmp_path):
        assert (len(images), images.num_classes, images.unseen) == (4, 19, ())
        image, label = images.example(1, RNG)
        assert image.shape == (3, 2, 17)
        assert int(image.max()) == 1
        names = ["ignored" if one == 255 else CLASS_NAMES[one] for one in label.flatten().tolist()]
        assert names == [NAMED.get(raw, "ignored") for raw in range(34)]
        assert label.dtype == torch.uint8


def test_train_ids_are_taken_where_every_frame_has_them(tmp_path):
    make_cityscapes(tmp_path)
    ids = np.append(np.arange(16), [255, 255]).reshape(2, 9).astype(np.uint8)
    folder = make_cityscapes(tmp_path, np.pad(ids, ((0, 0), (0, 8))), kind="labelTrainIds", splits=("train",))
    train, val = load(tmp_path)
    assert train.example(0, RNG)[1].unique().tolist() == [*range(16), 255]
    assert val.example(0, RNG)[1].unique().tolist() == [*range(19), 255]
    assert val.unseen == (16, 17, 18)
    (folder / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelTrainIds.png").unlink()
    assert load(tmp_path)[0].example(0, RNG)[1].unique().tolist() == [*range(19), 255]


def test_a_fraction_is_a_fixed_choice_and_checks_look_at_the_whole_split(tmp_path):
    make_cityscapes(tmp_path)
    train, val = load(tmp_path, 0.5)
    assert (len(train), len(val)) == (2, 4)
    assert train.pairs == load(tmp_path, 0.5)[0].pairs


@pytest.mark.parametrize("raw", [34, 100, 254])
def test_a_label_id_that_cityscapes_has_not_is_named_with_its_mask(raw, tmp_path):
    folder = make_cityscapes(tmp_path)
    mask = folder / "gtFine/val/ulm/ulm_000001_000019_gtFine_labelIds.png"
    Image.fromarray(np.full((2, 17), raw, np.uint8)).save(mask)
    with pytest.raises(DataError, match=rf"{mask}: class id {raw} is out of range; allowed: 0\.\.33 or 255"):
        load(tmp_path)
    assert [str(p).split(": ")[0] for p in splits(tmp_path)["val"].problems()] == [str(mask)]


def test_a_frame_without_mask_and_a_mask_without_frame_are_named(tmp_path):
    folder = make_cityscapes(tmp_path)
    mask, frame = (
        folder / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png",
        folder / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png",
    )
    mask.unlink()
    frame.unlink()
    with pytest.raises(DataError, match="its files cannot be used") as error:
        load(tmp_path)
    assert f"{frame.with_name(frame.name.replace('000000', '000001'))}: has no mask in {folder}/gtFine/train" in str(
        error.value
    )
    assert f"{mask.with_name(mask.name.replace('000001', '000000'))}: has no image" in str(error.value)


def test_other_files_of_the_annotations_are_passed_over(tmp_path):
    folder = make_cityscapes(tmp_path)
    for end in ("color.png", "instanceIds.png", "polygons.json"):
        (folder / f"gtFine/train/ulm/ulm_000001_000019_gtFine_{end}").write_bytes(b"")
    assert len(load(tmp_path)[0]) == 4


def test_a_mask_of_another_size_is_named(tmp_path):
    mask = make_cityscapes(tmp_path) / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    Image.fromarray(ALL_IDS[:1]).save(mask)
    with pytest.raises(
        DataError, match=rf"{mask}: 17x1 pixels, but its image aachen_000000_000019_leftImg8bit.png has 17x2"
    ):
        load(tmp_path)


def test_masks_that_ignore_everything_are_refused(tmp_path):
    make_cityscapes(tmp_path, ids=np.zeros((2, 17), np.uint8))
    with pytest.raises(DataError, match="fewer than two classes"):
        load(tmp_path)


def test_an_absent_folder_says_what_is_expected_and_where_to_get_it(tmp_path):
    with pytest.raises(
        DataError,
        match=rf"{tmp_path}/cityscapes/leftImg8bit/train \(no such folder\)"
        r"(.|\n)*_gtFine_labelIds(.|\n)*cityscapes-dataset\.com",
    ):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"cityscapes: must lie in \(0, 1\], is 2"):
        load(tmp_path, 2)
