import numpy as np
import pytest
from scipy.ndimage import convolve

from afno_repro.fills import FILLS

pytestmark = pytest.mark.fast


@pytest.fixture
def image_and_mask():
    rng = np.random.default_rng(1)
    mask = rng.random((12, 17)) < 0.4
    mask[0, 0] = mask[-1, -1] = True
    return rng.random((3, 12, 17)), mask


@pytest.mark.parametrize("name", sorted(FILLS))
def test_visible_pixels_stay_and_hidden_ones_follow_from_visible_ones_alone(name, image_and_mask):
    image, mask = image_and_mask
    filled = FILLS[name](image, mask)
    np.testing.assert_array_equal(filled[:, ~mask], image[:, ~mask])
    other = np.where(mask, 0.0, image)
    np.testing.assert_allclose(FILLS[name](other, mask), filled)


def test_mean_fill_is_the_mean_colour(image_and_mask):
    image, mask = image_and_mask
    filled = FILLS["mean"](image, mask)
    for channel in range(3):
        assert filled[channel, mask] == pytest.approx(image[channel][~mask].mean())


def test_nearest_fill_takes_a_nearest_visible_pixel(image_and_mask):
    image, mask = image_and_mask
    filled = FILLS["nearest"](image, mask)
    visible = np.argwhere(~mask)
    for row, column in np.argwhere(mask):
        distance = ((visible - (row, column)) ** 2).sum(1)
        nearest = visible[distance == distance.min()]
        assert any((filled[:, row, column] == image[:, r, c]).all() for r, c in nearest)


def test_harmonic_fill_is_the_mean_of_its_neighbours(image_and_mask):
    image, mask = image_and_mask
    filled = FILLS["harmonic"](image, mask)
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    neighbours = convolve(np.ones(mask.shape), cross, mode="constant")
    for channel in filled:
        mean = convolve(channel, cross, mode="constant") / neighbours
        np.testing.assert_allclose(channel[mask], mean[mask], atol=1e-10)


def test_harmonic_fill_reproduces_a_plane():
    plane = np.broadcast_to(np.linspace(0, 1, 9)[None, :, None], (3, 9, 8)).copy()
    mask = np.zeros((9, 8), dtype=bool)
    mask[2:6, 3:6] = True
    np.testing.assert_allclose(FILLS["harmonic"](np.where(mask, 0.0, plane), mask), plane, atol=1e-12)
