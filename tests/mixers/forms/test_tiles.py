"""How the kernel's work is cut up, for every width that a block may have."""

import pytest

from afno_repro.mixers.forms.tiles import WIDEST, cut_of, filled

WIDTHS = range(1, 1025)


def test_tiles_are_few():
    assert len({cut_of(width) for width in WIDTHS}) <= 6


@pytest.mark.parametrize("width", [1, 16, 17, 24, 64, 65, 88, 96, 208, 256, 257, 750])
def test_tiles_cover_a_block_without_a_tile_of_zeros(width):
    layers = cut_of(width).layers
    whole = filled(width, layers)
    assert width <= whole < max(width + layers.unit, 2 * width + 16)
    assert whole % layers.chunk == whole % layers.step == 0
    assert width > WIDEST or whole == layers.unit  # a program holds all outputs of such a block


def test_tensor_cores_take_what_tiles_hold():
    """Products of 16 rows, columns and inputs, on powers of two."""
    for width in WIDTHS:
        for tiles in cut_of(width):
            for size in (tiles.unit, tiles.chunk, tiles.step, tiles.modes):
                assert size >= 16
                assert size & (size - 1) == 0
