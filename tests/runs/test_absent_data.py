"""Data that do not fit what the spec asks are told before any work; those of several sizes are evaluated."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.command import afno
from tests.specs import SMALL, write_spec

PHOTOS = SMALL[SMALL.index("    data: {name: photos") : SMALL.index("    train:\n")]
STREETS = (
    SMALL.replace(PHOTOS, "    data: {name: camvid, image_size: 16, fraction: 1.0, seed: 0, validation: val}\n")
    .replace(
        "{name: inpainting, walk: {grid: tokens, patch_size: 4, steps: 16}}",
        "{name: segmentation, num_classes: 11, input: image_mean, stride: 16, absent: skip}",
    )
    .replace("head: {name: inpainting}", "head: {name: linear_segmentation, num_classes: 11}")
    .replace("{name: flip}", "{name: random_crop, side: [0.5, 1.0]}")
    .replace(
        "{key: psnr, title: PSNR, unit: dB, source: pretrain/psnr", "{key: miou, title: mIoU, source: pretrain/miou"
    )
    .replace("psnr:", "miou:")
    .replace("column: psnr", "column: miou")
)
STREETS = STREETS[: STREETS.index("  - key: fill_mean")] + STREETS[STREETS.index("scales:") :]


def make_streets(root, sizes):
    """CamVid's layout, frames of these heights and widths in turn."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 6), ("test", 1)):
        for folder in (split, f"{split}annot"):
            (root / "camvid" / folder).mkdir(parents=True)
        for i in range(count):
            height, width = sizes[i % len(sizes)]
            image = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / f"camvid/{split}/s{i}.png")
            mask = (np.arange(width) * 11 // width * np.ones((height, 1))).astype(np.uint8)
            Image.fromarray(mask).save(root / f"camvid/{split}annot/s{i}.png")


def test_validation_images_of_several_sizes_are_evaluated(tmp_path):
    write_spec(tmp_path, STREETS)
    make_streets(tmp_path / "data", [(48, 64), (64, 48), (20, 20)])
    afno("run", "small", "--scale", "smoke", "--device", "cpu", "--jobs", "1", root=tmp_path)
    (record,) = (tmp_path / "runs").glob("pretrain-afno-*/record.json")
    metrics = json.loads(record.read_text())["metrics"]
    assert 0 <= metrics["miou"] <= 100


@pytest.mark.parametrize("augment", ["flip", "none"])
def test_an_augmentation_that_does_not_crop_images_of_another_size_is_told_before_any_work(augment, tmp_path):
    write_spec(tmp_path, STREETS.replace("{name: random_crop, side: [0.5, 1.0]}", f"{{name: {augment}}}"))
    make_streets(tmp_path / "data", [(16, 16), (48, 64)])
    done = afno("run", "small", "--scale", "smoke", "--row", "afno", "--device", "cpu", root=tmp_path, expect=4)
    told = f"camvid: has training images of 64x48 pixels, the spec asks for 16x16, and its augmentation '{augment}'"
    assert told in done.stderr
    assert not list((tmp_path / "runs").glob("pretrain-*"))
    assert told in afno("check", "small", "--scale", "smoke", root=tmp_path, expect=3).stderr


def test_fewer_training_images_than_a_batch_are_told_before_any_work(tmp_path):
    write_spec(tmp_path, STREETS.replace("batch_size: 4", "batch_size: 5"))
    make_streets(tmp_path / "data", [(16, 16)])
    told = "camvid: has 4 training images, less than a batch of 5"
    assert told in afno("check", "small", "--scale", "smoke", root=tmp_path, expect=3).stderr
    assert told in afno("run", "small", "--scale", "smoke", "--device", "cpu", root=tmp_path, expect=4).stderr
    assert not list((tmp_path / "runs").glob("pretrain-*"))


def test_whole_images_of_the_size_that_the_spec_asks_need_no_crop(tmp_path):
    write_spec(tmp_path, STREETS.replace("{name: random_crop, side: [0.5, 1.0]}", "{name: flip}"))
    make_streets(tmp_path / "data", [(16, 16)])
    afno("run", "small", "--scale", "smoke", "--row", "gfn", "--device", "cpu", root=tmp_path)
