"""The random-walk mask of A.2: a uniform start, then steps to one of the four neighbours; visited cells are hidden.

The paper does not say what happens at the border. Here a step that would leave the grid stays put. Such a walk has
exactly the law of a free walk folded back into the grid, which needs no loop.
"""

import numpy as np
from numpy.typing import NDArray

MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])


def random_walk(height: int, width: int, steps: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask of the cells that a walk of `steps` steps visits: (height, width), true where visited."""
    start = np.array([rng.integers(height), rng.integers(width)])
    return visited(start, rng.integers(4, size=steps, dtype=np.uint8), height, width)


def visited(start: NDArray[np.int64], moves: NDArray[np.uint8], height: int, width: int) -> NDArray[np.bool_]:
    """Cells that the folded walk from `start` (row, column) visits; moves index MOVES."""
    mask = np.zeros((height, width), dtype=bool)
    axes = (np.cumsum(MOVES[moves, axis]) + start[axis] for axis in (0, 1))
    rows, columns = (fold(path, size) for path, size in zip(axes, (height, width), strict=True))
    mask[start[0], start[1]] = True
    mask[rows, columns] = True
    return mask


def fold(path: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions on the whole line folded back onto 0 .. size - 1."""
    path = path % (2 * size)
    return np.minimum(path, 2 * size - 1 - path)
