"""How the kernel's work is cut up: a few tiles, chosen by a block's width alone.

They decide in which order sums are made, and so the last bits: the same on every GPU. None spills, or needs more than
the 99 KiB of shared memory that a program can have on sm_89 (docs/kernel.md).
Shapes: D channels of a block, T modes of a program.
"""

from typing import NamedTuple

WIDEST = 64  # channels of a block that stay on chip
ARITHMETIC = 256  # channels above which a block is bound by arithmetic


class Tiles(NamedTuple):
    """What a program holds at a time. Kernels are compiled for tiles, not for shapes."""

    unit: int  # a block's channels are filled up with zeros to a multiple of it
    chunk: int  # hidden channels at a time; in a kernel for one layer, outputs; in a weight's gradient, both sides
    step: int  # inputs at a time; in a weight's gradient, modes
    modes: int  # T
    warps: int


class Cut(NamedTuple):
    """The tiles of both layers, and of their weights' gradients."""

    layers: Tiles
    weights: Tiles


def cut_of(width: int) -> Cut:
    """The tiles for blocks of D channels."""
    if width > ARITHMETIC:
        return Cut(Tiles(64, 64, 16, 128, 8), Tiles(64, 64, 16, 64, 4))
    if width > WIDEST:
        return Cut(Tiles(32, 32, 32, 64, 4), Tiles(32, 32, 32, 64, 4))
    unit = max(16, 1 << (width - 1).bit_length())  # D up to a power of two
    return Cut(Tiles(unit, 16, 16, unit, 4), Tiles(32, 32, 32, 64, 4))


def filled(width: int, tiles: Tiles) -> int:
    """D up to a multiple of the tiles' unit."""
    return -(-width // tiles.unit) * tiles.unit
