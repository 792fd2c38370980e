from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from afno_repro.config import completed
from afno_repro.data.rand_augment import RandAugment
from afno_repro.data.transforms import AUGMENTS, IGNORED, cut, drawn_from, resize, resize_example, scale_crop
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.tasks.inputs import IMAGENET_MEAN
from tests.specs import ROOT

OPTIONS = {
    "none": {},
    "flip": {},
    "random_crop": {"side": [0.5, 1.0]},
    "scale_crop": {"scale": [0.5, 2.0], "photometric": False},
    "rand_augment": completed("augment rand_augment", {"area": [0.3, 1.0], "operations": 2, "magnitude": 9}),
}


def example(height=40, width=56):
    """An image whose red and green channels are its own coordinates, and their checkerboard as label."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows, columns, rows + columns]).to(torch.uint8)
    return image, ((rows // 8 + columns // 8) % 2).to(torch.uint8)


@pytest.mark.parametrize("name", AUGMENTS)
def test_every_augmentation_follows_its_generator_and_leaves_pytorch_s_alone(name):
    state = torch.get_rng_state()
    first, again, *others = (
        AUGMENTS[name](example(), 16, np.random.default_rng(seed), **OPTIONS[name])[0] for seed in (3, 3, 4, 5, 6, 7)
    )
    assert torch.equal(first, again)
    assert name == "none" or any(not torch.equal(first, other) for other in others)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["none", "flip"])
def test_labels_move_with_the_pixels_they_belong_to(name):
    for seed in range(4):
        image, label = AUGMENTS[name](example(), 40, np.random.default_rng(seed), **OPTIONS[name])
        assert torch.equal(label, (image[0] // 8 + image[1] // 8) % 2)


def test_a_scaled_crop_keeps_labels_on_their_pixels_away_from_edges():
    for seed in range(20):
        image, label = scale_crop(example(), 16, np.random.default_rng(seed), [0.5, 2.0], photometric=False)
        assert image.shape == (3, 16, 16)
        assert label.shape == (16, 16)
        rows, columns = image[0].float(), image[1].float()
        inside = ((rows % 8 - 4).abs() < 2) & ((columns % 8 - 4).abs() < 2)
        expected = (image[0] // 8 + image[1] // 8) % 2
        assert torch.equal(label[inside], expected[inside])


def test_what_lies_outside_the_image_is_ignored():
    image, label = scale_crop(example(10, 12), 16, np.random.default_rng(0), [1.0, 1.0], photometric=False)
    assert int((label != IGNORED).sum()) == 10 * 12
    assert int(image[:, label == IGNORED].sum()) == 0


def test_the_photometric_distortion_changes_colours_and_no_label():
    pairs = [
        [
            scale_crop(example(), 32, np.random.default_rng(seed), [1.0, 1.0], photometric)
            for photometric in (False, True)
        ]
        for seed in range(8)
    ]
    assert all(torch.equal(plain[1], distorted[1]) for plain, distorted in pairs)
    assert any(not torch.equal(plain[0], distorted[0]) for plain, distorted in pairs)


@pytest.mark.parametrize("size", [(24, 24), (13, 31), (100, 90)])
def test_resizing_is_pillow_s_to_a_grey_level(size):
    noise = np.random.default_rng(0).integers(0, 256, (57, 64, 3), dtype=np.uint8)
    expected = np.array(Image.fromarray(noise).resize(size[::-1], Image.Resampling.BILINEAR))
    resized = resize(torch.from_numpy(noise).permute(2, 0, 1), *size).permute(1, 2, 0).numpy()
    assert np.abs(resized.astype(int) - expected).mean() <= 1


def test_a_class_passes_through_and_so_does_no_label():
    for label in (None, torch.tensor(3)):
        for name in AUGMENTS:
            assert AUGMENTS[name]((example()[0], label), 16, np.random.default_rng(0), **OPTIONS[name])[1] is label


def test_a_label_map_is_resized_without_new_classes():
    image, label = resize_example(example(), 21, 30)
    assert image.shape[1:] == label.shape == (21, 30)
    assert set(label.unique().tolist()) <= {0, 1}


def test_a_cut_is_a_window_of_image_and_label():
    image, label = cut(example(), 3, 5, 10)
    assert int(image[0, 0, 0]) == 3
    assert int(image[1, 0, 0]) == 5
    assert label.shape == (10, 10)


def recipe_of(table):
    config = plan_runs(load_spec(ROOT / "experiments" / f"{table}.yaml"), "paper").needs["afno", "pretrain", 0].config
    return {key: value for key, value in config.train.augment.items() if key != "name"}


class Watched(RandAugment):
    """Tells what it would do, and does nothing."""

    told: ClassVar[list[tuple[str, float]]] = []

    def _apply_image_or_video_transform(self, image, transform_id, magnitude, interpolation, fill):
        self.told.append((transform_id, magnitude))
        return image


def test_at_paper_scale_magnitude_9_is_9_of_10_done_half_the_time(monkeypatch):
    named = {"Rotate": 27.0, "ShearX": 0.27, "ShearY": 0.27, "TranslateX": 0.405 * 200, "TranslateY": 0.405 * 200}
    named |= dict.fromkeys(["Brightness", "Color", "Contrast", "Sharpness"], 0.81)
    monkeypatch.setattr("afno_repro.data.rand_augment.RandAugment", Watched)
    monkeypatch.setattr(Watched, "told", [])
    options, tries = recipe_of("table5"), 400
    for seed in range(tries):
        AUGMENTS["rand_augment"](example(), 200, np.random.default_rng(seed), **options)
    assert {name for name, _ in Watched.told} > set(named)
    for name, magnitude in Watched.told:
        assert abs(magnitude) == pytest.approx(named.get(name, abs(magnitude)))
    assert {np.sign(magnitude) for name, magnitude in Watched.told if name == "Rotate"} == {-1, 1}
    done = len(Watched.told) / (options["operations"] * tries)
    assert abs(done - 0.5) < 4 * (0.25 / (options["operations"] * tries)) ** 0.5


class Rotation(RandAugment):
    """Rotates and does nothing else."""

    def _get_random_item(self, operations):
        return "Rotate", operations["Rotate"]


@pytest.mark.parametrize("fill", ["black", "mean"])
def test_what_rand_augment_uncovers_has_the_colour_asked_for(monkeypatch, fill):
    monkeypatch.setattr("afno_repro.data.rand_augment.RandAugment", Rotation)
    colour = [round(255 * mean) for mean in IMAGENET_MEAN] if fill == "mean" else [0, 0, 0]
    white = torch.full((3, 40, 40), 255, dtype=torch.uint8)
    options = {"area": [1.0, 1.0], "operations": 1, "magnitude": 9, "levels": 11, "translation": 0.45}
    image, _ = AUGMENTS["rand_augment"](
        (white, None), 32, np.random.default_rng(0), **options, probability=1.0, fill=fill
    )
    assert sorted(image.flatten(1).unique(dim=1).T.tolist()) == sorted([colour, [255, 255, 255]])


def test_rand_augment_as_before_is_torchvision_s():
    steps = v2.Compose(
        [
            v2.RandomResizedCrop(16, scale=(0.3, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(2, 9),
        ]
    )
    for seed in range(30):
        rng = np.random.default_rng(seed)
        expected = drawn_from(rng, steps, example()[0])
        ours, _ = AUGMENTS["rand_augment"](example(), 16, np.random.default_rng(seed), **OPTIONS["rand_augment"])
        assert torch.equal(ours, expected)
