import numpy as np
import pytest
import torch
from PIL import Image

from afno_repro.data.transforms import AUGMENTS, IGNORED, cut, resize, resize_example, scale_crop

OPTIONS = {
    "none": {},
    "flip": {},
    "random_crop": {"side": [0.5, 1.0]},
    "scale_crop": {"scale": [0.5, 2.0], "photometric": False},
    "rand_augment": {"area": [0.3, 1.0], "operations": 2, "magnitude": 9},
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
