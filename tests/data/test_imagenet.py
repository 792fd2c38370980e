import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from PIL import Image

from afno_repro.contents import Contents
from afno_repro.data.imagenet import imagenet, splits
from afno_repro.data.reading import read_image
from afno_repro.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def make_folder(root, train=("n0", "n1", "n2"), val=("n0", "n1", "n2"), images=4):
    rng = np.random.default_rng(0)
    for split, classes in (("train", train), ("val", val)):
        for name in classes:
            folder = root / "imagenet" / split / name
            folder.mkdir(parents=True)
            for i in range(images):
                mode = ["RGB", "L", "CMYK"][i % 3]
                shape = (40, 50) if mode == "L" else (40, 50, len(mode))
                Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8), mode).save(folder / f"{i}.JPEG")
    return root / "imagenet"


def load(root, fraction=1.0, seed=0):
    return imagenet(
        16,
        fraction,
        seed,
        root,
        crop_fraction=0.875,
        skip=[],
        interpolation="bilinear",
        tuning=None,
        max_megapixels=100,
    )


def test_images_of_any_mode_become_rgb_whole_for_training_and_square_for_validation(tmp_path):
    make_folder(tmp_path)
    train, val = load(tmp_path)
    assert (len(train), len(val)) == (12, 12)
    assert all(train.example(i, RNG)[0].shape == (3, 40, 50) for i in range(12))
    assert all(val.example(i, RNG)[0].shape == (3, 16, 16) for i in range(12))
    assert train.example(0, RNG)[0].dtype == torch.uint8


def test_a_label_is_the_index_of_the_class_folder_among_those_of_training(tmp_path):
    make_folder(tmp_path, val=("n2", "n1"))
    train, val = load(tmp_path)
    assert train.num_classes == val.num_classes == 3
    assert [train.example(i, RNG)[1].item() for i in range(12)] == [0] * 4 + [1] * 4 + [2] * 4
    assert [val.example(i, RNG)[1].item() for i in range(8)] == [1] * 4 + [2] * 4
    assert train.example(0, RNG)[1].dtype == torch.int64
    assert train.example(0, RNG)[1].shape == ()


def test_where_validation_has_other_classes_there_are_images_without_labels(tmp_path):
    make_folder(tmp_path, val=("n1", "n3"))
    for images in load(tmp_path):
        assert images.num_classes is None
        assert images.example(5, RNG)[1] is None


def test_a_fraction_is_a_fixed_choice_of_each_class(tmp_path):
    make_folder(tmp_path)
    chosen = [load(tmp_path, 0.5, seed)[0] for seed in (0, 0, 1)]
    assert chosen[0].files == chosen[1].files != chosen[2].files
    assert [file.parent.name for file in chosen[0].files] == ["n0"] * 2 + ["n1"] * 2 + ["n2"] * 2
    assert [file.name for file in chosen[0].files] == ["0.JPEG", "2.JPEG", "2.JPEG", "3.JPEG", "1.JPEG", "3.JPEG"]
    assert len(load(tmp_path, 0.01)[0]) == 3


def test_the_fingerprint_is_that_of_the_files_names_and_bytes(tmp_path):
    folder = make_folder(tmp_path)
    train, _ = load(tmp_path, 0.5)
    lines = [f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in train.files]
    assert train.fingerprint(Contents(tmp_path / "memory")) == hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize(
    "change", [{"fraction": 0.0}, {"fraction": 1.1}, {"crop_fraction": 0.0}, {"crop_fraction": 2.0}], ids=str
)
def test_impossible_options_name_their_key(change, tmp_path):
    with pytest.raises(ConfigError, match="imagenet: must lie in") as error:
        imagenet(
            **{
                "image_size": 16,
                "fraction": 1.0,
                "seed": 0,
                "root": tmp_path,
                "crop_fraction": 0.875,
                "skip": [],
                "interpolation": "bilinear",
                "tuning": None,
                "max_megapixels": 100,
                **change,
            }
        )
    assert {p.key for p in error.value.problems} == {tuple(change)}


def test_a_missing_or_empty_folder_says_what_is_expected_and_where_to_get_it(tmp_path):
    with pytest.raises(
        DataError,
        match=rf"{tmp_path}/imagenet/train \(no such folder\)\n.*imagenet/train/CLASS/\*\.JPEG.*\n.*image-net\.org",
    ):
        load(tmp_path)
    (tmp_path / "imagenet/train/n0").mkdir(parents=True)
    with pytest.raises(DataError, match="1 class folders without images"):
        load(tmp_path)


def test_a_broken_image_is_named_with_its_index(tmp_path):
    broken = make_folder(tmp_path) / "train/n1/2.JPEG"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"imagenet: image 6: {broken}: not a readable image"):
        load(tmp_path)[0].example(6, RNG)
    assert [problem.split(": ")[0] for problem in splits(tmp_path).problems()] == [str(broken)]


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_photograph_is_what_pillow_reads_of_it_to_a_grey_level(tmp_path, mode, quality):
    file = tmp_path / "photograph.jpg"
    source = Path(sklearn.__file__).parent / "datasets/images/china.jpg"
    Image.open(source).convert(mode).save(file, quality=quality)
    expected = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)
    assert (read_image(file).float() - expected.float()).abs().mean() <= 1


@pytest.mark.parametrize("left", [0.3, 0.9, 0.999])
def test_a_jpeg_file_that_was_cut_off_is_refused_wherever_it_ends(tmp_path, left):
    file = tmp_path / "photograph.jpg"
    Image.open(Path(sklearn.__file__).parent / "datasets/images/china.jpg").save(file)
    file.write_bytes(file.read_bytes()[: int(left * file.stat().st_size)])
    with pytest.raises(DataError, match="not a readable image"):
        read_image(file)


def test_an_image_of_too_many_pixels_is_named_with_its_index(tmp_path, monkeypatch):
    huge = make_folder(tmp_path) / "val/n0/1.JPEG"
    Image.new("RGB", (100, 100)).save(huge)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # Pillow refuses twice as many
    with pytest.raises(
        DataError, match=rf"imagenet: image 1: {huge}: not a readable image \(Image size \(10000 pixels\) exceeds limit"
    ):
        load(tmp_path)[1].example(1, RNG)
    assert len(list(splits(tmp_path).problems())) == 1


def test_an_image_of_16_bits_is_refused_rather_than_clipped(tmp_path):
    deep = make_folder(tmp_path) / "train/n0/0.png"
    Image.fromarray(np.full((40, 50), 30000, np.uint16)).save(deep)
    with pytest.raises(DataError, match=rf"{deep}: not a readable image \(more than 8 bits"):
        load(tmp_path)[0].example(1, RNG)


def test_a_broken_training_image_may_be_skipped_by_name_but_none_that_is_evaluated(tmp_path):
    folder = make_folder(tmp_path)
    broken = folder / "train" / "n1" / "2.JPEG"
    broken.write_bytes(b"no image")
    whole, _ = load(tmp_path)
    with pytest.raises(
        DataError, match=r"image 6: .*n1/2\.JPEG: not a readable image[^$]*add train/n1/2\.JPEG to the data's skip"
    ):
        whole.example(6, RNG)
    train, val = imagenet(
        16,
        1.0,
        0,
        tmp_path,
        crop_fraction=0.875,
        skip=["train/n1/2.JPEG"],
        interpolation="bilinear",
        tuning=None,
        max_megapixels=100,
    )
    assert [file for file in whole.files if file not in train.files] == [broken]
    assert all(train.example(i, RNG)[0] is not None for i in range(11))
    assert len(val) == 12
    for name in ("val/n1/2.JPEG", "train/n1/9.JPEG", "../x"):
        with pytest.raises(ConfigError, match=r"no such training image; a name is like train/n0/0\.JPEG"):
            imagenet(
                16,
                1.0,
                0,
                tmp_path,
                crop_fraction=0.875,
                skip=[name],
                interpolation="bilinear",
                tuning=None,
                max_megapixels=100,
            )


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), 9, np.uint8)).save(path)


def test_what_systems_and_editors_leave_among_images_is_no_class_and_no_image(tmp_path):
    folder = make_folder(tmp_path)
    added = [
        *("train/.ipynb_checkpoints/0.JPEG", "train/@eaDir/0.JPEG", "val/__MACOSX/0.JPEG"),
        *("train/n0/._0.JPEG", "train/n1/.9.JPEG"),
    ]
    for name in added:
        picture(folder / name)
    for name in ("train/n0/Thumbs.db", "train/.DS_Store", "val/n2/notes.txt"):
        (folder / name).write_bytes(b"none")
    train, val = load(tmp_path)
    assert (len(train), len(val), train.num_classes) == (12, 12, 3)
    told = set(splits(tmp_path).left_out())
    assert told == {
        *(str(folder / name) for name in ("train/.ipynb_checkpoints", "train/@eaDir", "val/__MACOSX")),
        *(str(folder / name) for name in ("train/n0/._0.JPEG", "train/n1/.9.JPEG", "train/n0/Thumbs.db")),
        *(str(folder / name) for name in ("train/.DS_Store", "val/n2/notes.txt")),
    }


@pytest.mark.parametrize("ending", ["webp", "bmp", "tif", "TIFF", "png"])
def test_a_class_of_any_usual_format_keeps_its_label(ending, tmp_path):
    folder = make_folder(tmp_path, train=("a", "b", "c"), val=("c",), images=1)
    (folder / "train/b/0.JPEG").unlink()
    picture(folder / f"train/b/0.{ending}")
    train, val = load(tmp_path)
    assert [int(train.example(i, RNG)[1]) for i in range(3)] == [0, 1, 2]
    assert int(val.example(0, RNG)[1]) == 2
    assert train.example(1, RNG)[0].unique().tolist() == [9]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_images_is_refused_and_shifts_no_label(split, tmp_path):
    folder = make_folder(tmp_path)
    for file in (folder / split / "n1").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=rf"{folder}/{split}/n1: a class without images"):
        load(tmp_path)
    assert [told.partition(": ")[0] for told in splits(tmp_path).problems()] == [str(folder / split / "n1")]
    other = make_folder(tmp_path / "other").parent
    with pytest.raises(ConfigError, match="leaves no training image of n0"):
        imagenet(
            16,
            1.0,
            0,
            other,
            crop_fraction=0.875,
            skip=[f"train/n0/{i}.JPEG" for i in range(4)],
            interpolation="bilinear",
            tuning=None,
            max_megapixels=100,
        )


def test_class_names_that_differ_by_case_are_named(tmp_path):
    folder = make_folder(tmp_path, train=("Ant", "Bee"), val=("ant", "Bee"))
    with pytest.raises(DataError, match=rf"{folder}/val/ant: train/ calls this class Ant"):
        load(tmp_path)


def test_a_broken_link_and_a_pipe_among_images_are_named(tmp_path):
    folder = make_folder(tmp_path)
    (folder / "train/n0/link.JPEG").symlink_to("nowhere")
    with pytest.raises(DataError, match=rf"{folder}/train/n0/link\.JPEG: no file can be read there"):
        load(tmp_path)
    (folder / "train/n0/link.JPEG").unlink()
    os.mkfifo(folder / "train/n0/pipe.JPEG")
    with pytest.raises(DataError, match=rf"{folder}/train/n0/pipe\.JPEG: no file can be read there"):
        load(tmp_path)


def test_a_name_that_is_no_utf8_is_a_name_like_others(tmp_path):
    folder = make_folder(tmp_path)
    (folder / "train/n0/0.JPEG").rename(os.fsdecode(os.fsencode(folder) + b"/train/n0/\xe4.JPEG"))
    train, _ = load(tmp_path)
    assert len(train) == 12
    assert len(train.fingerprint(Contents(tmp_path / "memory"))) == 64


@pytest.mark.parametrize(
    ("interpolation", "filtering"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_what_is_evaluated_is_resized_as_asked_for_and_as_pillow_does(tmp_path, interpolation, filtering):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split / "n0").mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
            tmp_path / "imagenet" / split / "n0" / "0.png"
        )
    _, val = imagenet(
        24, 1.0, 0, tmp_path, crop_fraction=0.75, skip=[], interpolation=interpolation, tuning=None, max_megapixels=100
    )
    with Image.open(tmp_path / "imagenet/val/n0/0.png") as image:
        expected = np.array(image.crop((8, 8, 56, 56)).resize((24, 24), filtering)).astype(int)
    found = val.example(0, rng)[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - expected).mean() <= 1
    others = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]
    with Image.open(tmp_path / "imagenet/val/n0/0.png") as image:
        other = image.crop((8, 8, 56, 56)).resize((24, 24), others[1 - others.index(filtering)])
    assert np.abs(found - np.array(other).astype(int)).mean() > 3


def test_settings_are_chosen_on_training_images_that_are_not_trained_on(tmp_path):
    make_folder(tmp_path, val=("n3",))
    asked = {"crop_fraction": 0.875, "skip": [], "interpolation": "bilinear"}
    whole, _ = imagenet(16, 1.0, 0, tmp_path, **asked, tuning=None, max_megapixels=100)
    train, chosen_on = imagenet(16, 1.0, 0, tmp_path, **asked, tuning=5, max_megapixels=100)
    assert chosen_on.files == whole.files[::5]
    assert sorted(train.files + chosen_on.files) == whole.files
    assert [chosen_on.example(i, RNG)[1].item() for i in range(len(chosen_on))] == [0, 1, 2]
    with pytest.raises(ConfigError, match="tuning: imagenet: must be null or at least 2, is 1"):
        imagenet(16, 1.0, 0, tmp_path, **asked, tuning=1, max_megapixels=100)


def make_kaggle(root, **options):
    """The same images as `make_folder` makes, as Kaggle has them."""
    by_class = make_folder(root / "other", **options)
    folder, lines = root / "imagenet/ILSVRC/Data/CLS-LOC", ["ImageId,PredictionString"]
    (folder / "val").mkdir(parents=True)
    (by_class / "train").rename(folder / "train")
    for i, file in enumerate(sorted((by_class / "val").glob("*/*"), key=lambda path: (path.name, path.parent.name))):
        file.rename(folder / f"val/ILSVRC2012_val_{i:08}.JPEG")
        box = f"{file.parent.name} {i} 1 499 272 "
        lines.insert(1, f"ILSVRC2012_val_{i:08},{box * (1 + i % 2)}")
    (root / "imagenet/LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_kaggles_layout_has_the_labels_order_and_fingerprint_of_class_folders(tmp_path):
    folder = make_kaggle(tmp_path)
    train, val = load(tmp_path)
    assert (len(train), len(val), val.num_classes) == (12, 12, 3)
    assert {file.parent for file in val.files} == {folder / "val"}
    (tmp_path / "same/imagenet").mkdir(parents=True)
    (folder / "train").rename(tmp_path / "same/imagenet/train")
    classes = dict(line.split(",") for line in (tmp_path / "imagenet/LOC_val_solution.csv").read_text().splitlines())
    for file in val.files:
        target = tmp_path / "same/imagenet/val" / classes[file.stem].split()[0] / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    same = load(tmp_path / "same")[1]
    assert [file.name for file in val.files] == [file.name for file in same.files]
    assert [val.example(i, RNG)[1] for i in range(12)] == [same.example(i, RNG)[1] for i in range(12)]
    assert all(torch.equal(val.example(i, RNG)[0], same.example(i, RNG)[0]) for i in range(12))
    prints = [each.fingerprint(Contents(tmp_path / "memory")) for each in (val, same)]
    assert prints[0] == prints[1]


def test_a_class_that_kaggles_table_changes_changes_the_fingerprint(tmp_path):
    make_kaggle(tmp_path)
    before = load(tmp_path)[1].fingerprint(Contents(tmp_path / "memory"))
    table = tmp_path / "imagenet/LOC_val_solution.csv"
    table.write_text(table.read_text().replace("n2 2 1", "n1 2 1"))
    assert load(tmp_path)[1].fingerprint(Contents(tmp_path / "memory")) != before


def test_training_images_of_kaggles_layout_are_skipped_by_the_same_names(tmp_path):
    make_kaggle(tmp_path)
    skip = ["train/n1/2.JPEG"]
    train, _ = imagenet(
        16, 1.0, 0, tmp_path, crop_fraction=0.875, skip=skip, interpolation="bilinear", tuning=None, max_megapixels=100
    )
    assert len(train) == 11


def test_class_folders_come_before_kaggles_layout(tmp_path):
    make_kaggle(tmp_path)
    assert make_folder(tmp_path) == splits(tmp_path).folder
    assert len(load(tmp_path)[1]) == 12


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, r"LOC_val_solution\.csv: no such file: the classes of .*/val stand in it"),
        (
            "ImageId,PredictionString\nILSVRC2012_val_00000000,n0 1 1 2 2\n",
            r"val_00000001\.JPEG: not in .*its class is",
        ),
        ("image,label\na,1\n", "a table ImageId,PredictionString is expected"),
        ("ImageId,PredictionString\nILSVRC2012_val_00000000,\n", "whose second column begins with the class"),
        ("ImageId,PredictionString\nILSVRC2012_val_00000000\n", "whose second column begins with the class"),
        (b"\xff\xfe\x00", "a table ImageId,PredictionString is expected"),
    ],
)
def test_a_table_of_kaggles_that_does_not_say_each_class_is_refused(text, told, tmp_path):
    make_kaggle(tmp_path)
    table = tmp_path / "imagenet/LOC_val_solution.csv"
    table.unlink()
    if text is not None:
        table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=told):
        load(tmp_path)


def test_what_is_wrong_and_what_is_not_used_is_told_of_kaggles_layout_too(tmp_path):
    folder = make_kaggle(tmp_path)
    (folder / "val/notes.txt").write_text("none")
    broken = folder / "val/ILSVRC2012_val_00000003.JPEG"
    broken.write_bytes(b"no image")
    assert [told.partition(": ")[0] for told in splits(tmp_path).problems()] == [str(broken)]
    assert list(splits(tmp_path).left_out()) == [str(folder / "val/notes.txt")]
