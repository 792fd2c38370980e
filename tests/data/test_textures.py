import importlib

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage.filters import gabor_kernel
from sklearn.ensemble import RandomForestClassifier

from afno_repro.contents import Contents
from afno_repro.data.textures import TEXTURES, equalised, halves, patch, textures, voronoi
from afno_repro.errors import ConfigError

MODULE = importlib.import_module("afno_repro.data.textures")  # the package gives this name to the function

OPTIONS = {"textures": list(TEXTURES), "train_images": 16, "test_images": 24, "regions": 4, "zoom": 0.5, "border": 2}


def made(tmp_path, image_size=64, seed=0, **change):
    return textures(image_size, 1.0, seed, tmp_path, **{**OPTIONS, "side": image_size, **change})


def example(mosaics, index):
    image, labels = mosaics.example(index, np.random.default_rng())
    return image[0].numpy(), labels.numpy()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_example_is_a_grey_image_and_a_class_for_each_pixel(tmp_path):
    for mosaics, count in zip(made(tmp_path, 40), (16, 24), strict=True):
        image, labels = mosaics.example(3, np.random.default_rng(0))
        assert (len(mosaics), mosaics.num_classes) == (count, len(TEXTURES))
        assert (image.shape, image.dtype) == ((3, 40, 40), torch.uint8)
        assert (labels.shape, labels.dtype) == ((40, 40), torch.uint8)
        assert all(torch.equal(image[0], channel) for channel in image)
        assert set(labels.unique().tolist()) <= {*range(len(TEXTURES)), 255}


def test_a_mosaic_follows_from_seed_split_and_index(tmp_path):
    train, test = made(tmp_path)
    again = made(tmp_path, train_images=99, test_images=99)
    for ours, theirs in zip((train, test), again, strict=True):
        expected = {index: example(ours, index) for index in range(4)}
        assert all(same(example(theirs, index), expected[index]) for index in (3, 0, 2, 1))
    first = example(train, 0)
    for other in (example(train, 1), example(test, 0), example(made(tmp_path, seed=1)[0], 0)):
        assert not np.array_equal(first[0], other[0])
        assert not np.array_equal(first[1], other[1])


def test_a_changed_example_leaves_the_kept_mosaic_alone(tmp_path):
    train, _ = made(tmp_path)
    before = [part.copy() for part in example(train, 0)]
    for part in train.example(0, np.random.default_rng(0)):
        part.zero_()
    assert same(example(train, 0), before)


@pytest.mark.parametrize("border", [0, 1, 2, 3])
def test_pixels_are_ignored_exactly_where_another_region_is_near(border, tmp_path):
    whole, bordered = (made(tmp_path, 48, border=b)[0] for b in (0, border))
    for index in range(4):
        (image, classes), (expected_image, labels) = example(whole, index), example(bordered, index)
        around = np.pad(classes, border, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(around, (2 * border + 1, 2 * border + 1))
        near = (windows != classes[:, :, None, None]).any(axis=(2, 3))
        assert np.array_equal(labels, np.where(near, 255, classes))
        assert np.array_equal(image, expected_image)


@pytest.mark.parametrize(("image_size", "regions"), [(16, 4), (33, 8), (64, 4), (100, 1), (64, 6)])
def test_regions_have_different_textures_while_there_are_enough(image_size, regions, tmp_path):
    train, _ = made(tmp_path, image_size, regions=regions, border=0)
    assert all(len(np.unique(example(train, index)[1])) == regions for index in range(len(train)))


def test_more_regions_than_textures_use_every_texture(tmp_path):
    train, _ = made(tmp_path, regions=12, border=0)
    assert all(len(np.unique(example(train, index)[1])) == len(TEXTURES) for index in range(8))


@pytest.mark.parametrize(("regions", "size"), [(4, 16), (4, 64), (16, 64), (30, 97)])
def test_no_region_is_lost_by_the_warp(regions, size):
    for seed in range(20):
        region = voronoi(regions, size, np.random.default_rng(seed))
        assert region.shape == (size, size)
        assert np.unique(region).tolist() == list(range(regions))


def test_each_region_shows_its_own_texture_from_the_half_of_its_split(tmp_path, monkeypatch):
    def coded(name, shrink):
        return tuple(np.full((30, 30), 10 * TEXTURES.index(name) + split, dtype=np.uint8) for split in (0, 1))

    monkeypatch.setattr(MODULE, "halves", coded)
    for split, mosaics in enumerate(made(tmp_path, border=0)):
        for index in range(6):
            image, labels = example(mosaics, index)
            assert np.array_equal(image, 10 * labels + split)


@pytest.mark.parametrize("name", TEXTURES)
@pytest.mark.parametrize("zoom", [0.25, 0.5, 1.0])
def test_a_half_depends_on_its_own_side_of_the_photograph_alone(name, zoom, monkeypatch):
    source = MODULE.photograph(name)
    middle, noise = (
        source.shape[2] // 2,
        torch.randint(0, 256, source.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
    )
    before = halves(name, zoom)
    for kept, columns in ((0, slice(middle, None)), (1, slice(None, middle))):
        changed = source.clone()
        changed[:, :, columns] = noise[:, :, columns]
        monkeypatch.setattr(MODULE, "photograph", lambda name, changed=changed: changed)
        after = halves.__wrapped__(name, zoom)
        assert np.array_equal(after[kept], before[kept])
        assert not np.array_equal(after[1 - kept], before[1 - kept])
    assert 0.9 < sum(half.shape[1] for half in before) / (source.shape[2] * zoom) < 0.97  # the rest is the gap


@pytest.mark.parametrize("name", TEXTURES)
@pytest.mark.parametrize("zoom", [0.3, 0.5, 1.0])
def test_each_half_has_every_grey_level_equally_often(name, zoom):
    for half in halves(name, zoom):
        counts = np.bincount(half.ravel(), minlength=256)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("levels", [1, 3, 256])
def test_equalising_keeps_the_order_of_grey_levels(levels):
    grey = np.random.default_rng(0).integers(0, levels, (40, 50)).astype(float)
    ours = equalised(grey)
    counts = np.bincount(ours.ravel(), minlength=256)
    assert counts.max() - counts.min() <= 1
    for level in np.unique(grey)[1:]:
        assert ours[grey < level].max() <= ours[grey >= level].min()


def test_of_two_equal_grey_levels_the_one_in_brighter_surroundings_becomes_brighter():
    step = np.zeros((40, 10))
    step[:, 5:] = 255
    assert (np.diff(equalised(step).mean(axis=0)) > 0).all()


def test_a_patch_is_a_rectangle_of_the_half_or_its_mirror_image():
    half = np.arange(20 * 30).reshape(20, 30)
    steps = set()
    for seed in range(20):
        cut = patch(half, 7, 9, np.random.default_rng(seed))
        assert cut.shape == (7, 9)
        assert (np.diff(cut, axis=0) == 30).all()
        across = np.unique(np.diff(cut, axis=1))
        assert len(across) == 1
        steps.add(int(across[0]))
    assert steps == {-1, 1}


def test_a_patch_larger_than_the_half_continues_it_by_mirroring():
    half = np.arange(4 * 5).reshape(4, 5)
    cut = patch(half, 11, 3, np.random.default_rng(0))
    rows = cut[:, 0] // 5
    assert rows.tolist() == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2]


def test_the_fingerprint_tells_every_difference(tmp_path):
    changes = [
        {"textures": TEXTURES[::-1]},
        {"train_images": 15},
        {"regions": 3},
        {"zoom": 0.6},
        {"border": 1},
        {"seed": 1},
        {"image_size": 63},
    ]
    prints = [s.fingerprint(Contents(tmp_path / "memory")) for s in made(tmp_path)] + [
        made(tmp_path, **change)[0].fingerprint(Contents(tmp_path / "memory")) for change in changes
    ]
    assert len(set(prints)) == len(prints)
    assert [s.fingerprint(Contents(tmp_path / "memory")) for s in made(tmp_path)] == prints[:2]


@pytest.mark.parametrize(
    "change",
    [
        {"textures": ["brick", "bark"]},
        {"textures": ["brick", "brick"]},
        {"textures": ["brick"]},
        {"train_images": 0},
        {"test_images": 0},
        {"regions": 0},
        {"regions": 65},
        {"zoom": 0.05},
        {"zoom": 1.5},
        {"border": -1},
        {"border": 9},
        {"fraction": 0.5},
    ],
    ids=str,
)
def test_impossible_options_name_their_key(change, tmp_path):
    with pytest.raises(ConfigError, match="textures: ") as error:
        textures(**{"image_size": 64, "fraction": 1.0, "seed": 0, "root": tmp_path, "side": 64, **OPTIONS, **change})
    assert {p.key for p in error.value.problems} == {tuple(change)}


def grey_level(image):
    return image[..., None]


def gabor_energies(image):
    """Locally averaged magnitudes of Gabor responses (Jain & Farrokhnia, 1991)."""
    energies = []
    for kernel in (gabor_kernel(f, theta=np.pi * k / 4) for f in (0.1, 0.2, 0.4) for k in range(4)):
        margin = max(kernel.shape) // 2
        response = fftconvolve(np.pad(image / 255 - 0.5, margin, mode="symmetric"), kernel, mode="same")[
            margin:-margin, margin:-margin
        ]
        energies.append(gaussian_filter(np.abs(response), 3))
    return np.stack(energies, axis=-1)


def pixels(mosaics, features, stride):
    parts = []
    for index in range(len(mosaics)):
        image, labels = example(mosaics, index)
        known = labels != 255
        parts.append((features(image)[known][::stride], labels[known][::stride]))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def test_one_pixels_grey_tells_nothing_and_its_surroundings_tell_the_texture(tmp_path):
    train, test = made(tmp_path, train_images=24, test_images=32)
    accuracy = {}
    for features in (grey_level, gabor_energies):
        forest = RandomForestClassifier(20, min_samples_leaf=10, random_state=0).fit(*pixels(train, features, 11))
        accuracy[features] = forest.score(*pixels(test, features, 11))
    chance = 1 / len(TEXTURES)
    assert accuracy[grey_level] < 1.5 * chance
    assert accuracy[gabor_energies] > 2.5 * chance
