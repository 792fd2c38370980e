"""The transform pair as real matrix products: modes that are not kept are never computed, and compilers take it.

    U = F_W X,   Z = F_H U   (and back)          F = (cos - i sin)(2 pi m n / size) / sqrt(size), a row a kept mode

Shapes: B batch, H W token grid, R M kept modes along H and W, C channels; an axis of 2 holds real and imaginary parts.
"""

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from afno_repro.mixers.derivatives import wants_plain
from afno_repro.mixers.spectral import Grid, Modes


class Matrices(NamedTuple):
    """What a transform multiplies with, first along one axis, then along the other."""

    along_w: Tensor  # 2M W
    along_h: Tensor  # 2R 2H
    back_along_h: Tensor  # 2H 2R
    back_along_w: Tensor  # W 2M


class DFT(nn.Module):
    """The transform pair, whose matrices for one grid move with the network and into its precision.

    They are buffers that no state_dict holds. Another grid's, or another precision's, are looked up with each call.
    """

    def __init__(self, grid: Grid, modes: Modes):
        super().__init__()
        self.grid, self.modes = (grid[0], grid[1]), modes
        self.make(torch.empty(0))

    def make(self, like: Tensor) -> None:
        """Round the matrices to at least float32, from float64, on the device of a tensor."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        for name, matrix in matrices_of(self.grid, self.modes, dtype, like.device)._asdict().items():
            self.register_buffer(name, matrix, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.make(self.along_w)  # type: ignore[arg-type]  # what float32 has lost no wider type has
        return self

    def along(self, grid: Grid, modes: Modes, like: Tensor) -> Matrices:
        """The matrices of a grid in the precision of a tensor: its own, if they are asked for."""
        own = Matrices(*(getattr(self, name) for name in Matrices._fields))
        is_own = (grid, modes, like.dtype) == (self.grid, self.modes, own.along_w.dtype)
        return own if is_own else matrices_of(grid, modes, like.dtype, like.device)

    def forward(self, x: Tensor, modes: Modes) -> Tensor:
        """Orthonormal real DFT over the token grid: B H W C -> B 2 R M C."""
        along = self.along((x.shape[1], x.shape[2]), modes, x)
        u = along.along_w @ x  # B H 2M C
        z = along.along_h @ u.view(x.shape[0], 2 * x.shape[1], -1)  # B 2R MC
        return z.view(x.shape[0], 2, -1, modes.columns, x.shape[3])

    def inverse(self, z: Tensor, modes: Modes, grid: Grid) -> Tensor:
        """Inverse of forward, modes that were not kept being zero, as spectral.irfft2 has it: B 2 R M C -> B H W C."""
        along = self.along(grid, modes, z)
        u = along.back_along_h @ z.flatten(3).flatten(1, 2)  # B 2H MC
        return along.back_along_w @ u.view(z.shape[0], grid[0], 2 * modes.columns, -1)


def matrices_of(grid: Grid, modes: Modes, dtype: torch.dtype, device: torch.device) -> Matrices:
    """The matrices of a grid and its kept modes, made once; those of a compiler, a transform or a mode end with it."""
    passing = torch.compiler.is_compiling() or wants_plain() or torch._C._len_torch_dispatch_stack() > 0
    return (matrices if passing else remembered)(grid, modes, dtype, device)


def matrices(grid: Grid, modes: Modes, dtype: torch.dtype, device: torch.device) -> Matrices:
    """The matrices, rounded once from float64, which not every device has; on the meta device nothing is computed."""
    (height, width), count = grid, partial(torch.arange, device="meta" if device.type == "meta" else "cpu")
    with torch.inference_mode(False):  # they outlive the call, and training may come after it
        columns = count(modes.columns)
        rows = torch.cat([count(modes.low), count(height - modes.high, height)])
        cos_w, sin_w = waves(columns, width)  # M W
        cos_h, sin_h = waves(rows, height)  # R H
        twice = torch.where((columns == 0) | (2 * columns == width), 1.0, 2.0).double()[
            :, None
        ]  # a column stands for its conjugate, too
        along_w = torch.cat([cos_w, -sin_w])
        along_h = (
            torch.stack([torch.stack([cos_h, sin_h], -1), torch.stack([-sin_h, cos_h], -1)]).flatten(2).flatten(0, 1)
        )
        found = (along_w, along_h, along_h.T, torch.cat([twice * cos_w, -twice * sin_w]).T)
        return Matrices(*(each.to(device, dtype).contiguous() for each in found))


remembered = functools.lru_cache(maxsize=64)(matrices)


def waves(frequencies: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of each frequency at each of `size` points, orthonormal: float64, frequencies x points."""
    points = torch.arange(size, device=frequencies.device)
    angle = 2 * math.pi * (torch.outer(frequencies, points) % size).double() / size
    return angle.cos() / math.sqrt(size), angle.sin() / math.sqrt(size)


def real_matrix(weight: Tensor) -> Tensor:
    """Complex matrices (... D D' 2) as real ones (... 2D 2D') for vectors whose real parts come first."""
    real, imaginary = weight.unbind(-1)
    return torch.cat([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)], -2)


def real_layer(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One complex layer per block as real products, weight K D D' 2, bias K D' 1 2: z K N 2D -> K N 2D', real first."""
    return torch.baddbmm(bias.permute(0, 2, 3, 1).flatten(2), z, real_matrix(weight))
