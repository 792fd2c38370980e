from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from afno_repro.contents import Contents
from afno_repro.data.digits import digits
from afno_repro.errors import ConfigError


def made(tmp_path, image_size=8, seed=0, train_images=600):
    return digits(image_size, 1.0, seed, tmp_path, train_images=train_images)


def contents(*sets):
    pairs = [s.example(i, np.random.default_rng(0)) for s in sets for i in range(len(s))]
    return Counter((image[0].numpy().tobytes(), int(label)) for image, label in pairs)


def test_every_digit_is_either_trained_or_tested_on_with_its_label(tmp_path):
    known = load_digits()
    expected = Counter(
        ((image * 255 / 16).round().astype(np.uint8).tobytes(), int(label))
        for image, label in zip(known.images, known.target, strict=True)
    )
    train, test = made(tmp_path)
    assert (len(train), len(test), train.num_classes) == (600, 1797 - 600, 10)
    assert contents(train, test) == expected


def test_an_example_is_a_grey_image_of_the_size_asked_for_and_a_class(tmp_path):
    image, label = made(tmp_path, 32)[0].example(5, np.random.default_rng(0))
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.uint8)
    assert (label.shape, label.dtype) == ((), torch.int64)
    assert all(torch.equal(image[0], channel) for channel in image)


def test_digits_are_enlarged_as_pillow_does_it(tmp_path):
    small, large = made(tmp_path, 8)[1], made(tmp_path, 20)[1]
    for index in range(10):
        grey, ours = (s.example(index, np.random.default_rng(0))[0][0].numpy() for s in (small, large))
        expected = np.array(Image.fromarray(grey).resize((20, 20), Image.Resampling.BILINEAR))
        assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 1


def test_the_split_follows_from_the_seed_alone(tmp_path):
    first, again, other = (made(tmp_path, seed=seed)[0] for seed in (0, 0, 1))
    prints = [each.fingerprint(Contents(tmp_path)) for each in (first, again, other)]
    assert prints[0] == prints[1] != prints[2]
    assert contents(first) == contents(again) != contents(other)


@pytest.mark.parametrize("change", [{"train_images": 0}, {"train_images": 1797}, {"fraction": 0.5}], ids=str)
def test_impossible_options_name_their_key(change, tmp_path):
    with pytest.raises(ConfigError, match="digits: ") as error:
        digits(**{"image_size": 8, "fraction": 1.0, "seed": 0, "root": tmp_path, "train_images": 600, **change})
    assert {p.key for p in error.value.problems} == {tuple(change)}
