from collections import Counter
from itertools import product

import numpy as np
import pytest

from afno_repro.data.masks import MOVES, random_walk, visited


def literal(start, moves, height, width):
    """Step by step: a step that would leave the grid stays put."""
    mask = np.zeros((height, width), dtype=bool)
    row, column = start
    mask[row, column] = True
    for move in moves:
        down, right = MOVES[move]
        if 0 <= row + down < height and 0 <= column + right < width:
            row, column = row + down, column + right
        mask[row, column] = True
    return mask


@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 2), (1, 3), (3, 4)])
def test_the_folded_walk_has_the_law_of_a_walk_that_stays_put_at_the_border(height, width):
    folded, loop = Counter(), Counter()
    for start in product(range(height), range(width)):
        for moves in product(range(4), repeat=5):
            folded[visited(np.array(start), np.array(moves), height, width).tobytes()] += 1
            loop[literal(start, moves, height, width).tobytes()] += 1
    assert folded == loop


def test_visited_cells_are_connected():
    from scipy.ndimage import label

    for seed in range(20):
        mask = random_walk(9, 14, 60, np.random.default_rng(seed))
        assert label(mask)[1] == 1
        assert 1 <= mask.sum() <= 61


@pytest.mark.fast
def test_no_step_hides_the_start_alone():
    assert random_walk(5, 5, 0, np.random.default_rng(0)).sum() == 1


def test_the_start_is_uniform_and_the_mask_follows_from_the_generator():
    starts = sum(random_walk(2, 3, 0, np.random.default_rng(seed)).astype(int) for seed in range(3000))
    assert np.all(abs(starts - 500) < 120)
    masks = [random_walk(8, 8, 64, np.random.default_rng(7)) for _ in range(2)]
    np.testing.assert_array_equal(*masks)


def test_as_many_steps_as_tokens_hide_about_a_quarter_of_the_papers_grid():
    hidden = np.mean([random_walk(56, 56, 3136, np.random.default_rng(seed)).mean() for seed in range(200)])
    assert 0.24 < hidden < 0.28
