"""What the Fourier mixers share: the transform pair, complex parameters, the block product, the float32 region.

Shapes: B batch, H W token grid, M = W // 2 + 1 modes along W, C channels, K blocks, D = C // K. Spectra are
channels-first, where the FFT runs over contiguous memory.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from afno_repro.mixers.derivatives import wants_plain

Grid = tuple[int, int]
Mixer = TypeVar("Mixer", bound=nn.Module)


class Modes(NamedTuple):
    """A box of low frequencies: rows 0 .. low - 1 and -high .. -1, columns 0 .. columns - 1 of the half axis."""

    low: int
    high: int
    columns: int


def all_modes(grid: Grid) -> Modes:
    """Every mode that a grid has."""
    return Modes(-(-grid[0] // 2), grid[0] // 2, grid[1] // 2 + 1)


def box(grid: Grid, rows: int, columns: int) -> Modes:
    """Rows of frequency -rows .. rows - 1 and the first `columns` columns, as far as the grid has them."""
    low, high, width = all_modes(grid)
    return Modes(min(rows, low), min(rows, high), min(columns, width))


def kept_modes(grid: Grid, keep: float) -> Modes:
    """The fraction `keep` of the modes of each axis, the low ones: 0.5 keeps a quarter of them, 1 everything.

    Along H frequencies -m .. m - 1 stay, along W 0 .. n: m = round(keep H / 2), at least 1, and n = round(keep W / 2).
    Halves go to the even number: 0.5 of 14 rows keeps 8, of 10 rows 4.
    """
    if keep == 1:
        return all_modes(grid)
    return box(grid, max(1, round(keep * grid[0] / 2)), round(keep * grid[1] / 2) + 1)


def on_gpu(x: Tensor) -> bool:
    """Whether a tensor lies on a GPU, where other forms are fast; costs are counted on the meta device as on a CPU."""
    return x.device.type not in ("cpu", "meta")


def rfft2(x: Tensor, modes: Modes, dim: int = -2, norm: Literal["ortho", "backward"] = "ortho") -> Tensor:
    """Real FFT over the token grid: B C H W -> B C R M, complex, for the R rows and M columns of `modes`.

    `dim` is the axis of H, counted from the last; W follows. Columns that are not kept are left out before the
    transform along H. It is orthonormal unless `norm` is backward: then it is sqrt(H W) times as large.
    """
    if modes == all_modes((x.shape[dim], x.shape[dim + 1])):
        return torch.fft.rfft2(x, dim=(dim, dim + 1), norm=norm)
    z = torch.fft.rfft(x, dim=dim + 1, norm=norm).narrow(dim + 1, 0, modes.columns)
    return rows_of(torch.fft.fft(z, dim=dim, norm=norm), modes.low, modes.high, dim=dim)


def rows_of(z: Tensor, low: int, high: int, dim: int) -> Tensor:
    """The first `low` and the last `high` entries of an axis."""
    first, _, last = z.split([low, z.shape[dim] - low - high, high], dim)
    return torch.cat([first, last], dim)


def irfft2(z: Tensor, modes: Modes, grid: Grid, dim: int = -2) -> Tensor:
    """Inverse of the orthonormal rfft2, modes that were not kept being zero: B C R M -> B C H W.

    After a nonlinearity the columns of frequency 0 and W / 2 are not Hermitian any more, and libraries disagree on a
    two-dimensional inverse real FFT of such a spectrum. Two transforms mean the same everywhere, and so does one of a
    spectrum that was made Hermitian; on a CPU two are faster.
    """
    if z.shape[dim] < grid[0]:
        first, last = z.split([modes.low, modes.high], dim)
        gap = first.new_zeros(
            [grid[0] - z.shape[dim] if i == z.dim() + dim else size for i, size in enumerate(z.shape)]
        )
        z = torch.cat([first, gap, last], dim=dim)
    return (in_one if on_gpu(z) else in_two)(z, grid, dim)


def in_two(z: Tensor, grid: Grid, dim: int) -> Tensor:
    """A complex inverse FFT along H, then a real one along W, which ignores imaginary parts of columns 0 and W / 2."""
    return torch.fft.irfft(torch.fft.ifft(z, dim=dim, norm="ortho"), n=grid[1], dim=dim + 1, norm="ortho")


def in_one(z: Tensor, grid: Grid, dim: int) -> Tensor:
    """One two-dimensional inverse real FFT, columns 0 and W / 2 made Hermitian.

    Each entry of theirs is averaged with the conjugate of its mirror along H, the entry of the negative frequency. They
    need a copy, which takes the transform's scale as well.
    """
    both: tuple[Any, ...] = (..., own_conjugates(grid), *[slice(None)] * (-dim - 2))
    z = z * (grid[0] * grid[1]) ** -0.5
    z[both] = (z[both] + z[both].flip(dim).roll(1, dim).conj()) / 2
    return torch.fft.irfft2(z, s=grid, dim=(dim, dim + 1), norm="forward")  # sums alone


def own_conjugates(grid: Grid) -> slice:
    """The columns that stand for themselves alone, being real along W: 0 and, where W is even, W / 2."""
    return slice(None, None, grid[1] if grid[1] % 2 else grid[1] // 2)


def channels_first(x: Tensor) -> Tensor:
    """B H W C -> B C H W, contiguous, where FFTs run over neighbours."""
    return transposed(x.flatten(1, 2)).unflatten(2, x.shape[1:3])


def channels_last(x: Tensor) -> Tensor:
    """B C H W -> B H W C, contiguous."""
    return transposed(x.flatten(2)).unflatten(1, x.shape[2:])


def transposed(x: Tensor) -> Tensor:
    """B m n -> B n m, contiguous."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or wants_plain():
        return x.transpose(1, 2).contiguous()
    return Transposed.apply(x)


class Transposed(torch.autograd.Function):
    """B m n -> B n m, contiguous: image by image, since on a CPU PyTorch transposes a batch far more slowly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
        for one, other in zip(x, y, strict=True):
            other.copy_(one.t())
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return transposed(gradient)


def complex_parameter(*shape: int, std: float) -> nn.Parameter:
    """Complex normal values as a real tensor with a trailing 2 (complex parameters trouble DDP and optimisers)."""
    return nn.Parameter(torch.randn(*shape, 2) * std)


def block_matmul(z: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """One matrix per block, the same for every mode: z (B K D N), weight (K D D', real view) -> B K D' N.

    The result lies in `out`'s memory where that is given.
    """
    return torch.matmul(torch.view_as_complex(weight).transpose(-1, -2), z, out=out)


class Shrinkage(nn.Softshrink):
    """S_lambda(v) = sign(v) max(|v| - lambda, 0) of real values; in place where autograd need not follow."""

    def forward(self, v: Tensor, in_place: bool = False) -> Tensor:
        return torch.ops.aten.softshrink.out(v, self.lambd, out=v) if in_place else super().forward(v)


def bias_layer(bias: str, dim: int) -> nn.Module | None:
    """What is added to the mixed tokens (B C N): nothing, the tokens (Figure 3) or a 1x1 convolution of them (A.2)."""
    if bias == "conv":
        return nn.Conv1d(dim, dim, kernel_size=1)
    return nn.Identity() if bias == "identity" else None


def add_bias(y: Tensor, bias: nn.Module | None, x: Tensor) -> Tensor:
    """The mixed tokens y and what is added to them, both from tokens x: B H W C."""
    if bias is None:
        return y
    tokens = x.flatten(1, 2).transpose(1, 2)  # B C N
    wide = {name: each.to(x.dtype) for name, each in bias.named_parameters() if each.dtype != x.dtype}
    added = functional_call(bias, wide, tokens) if wide else bias(tokens)
    return y + added.transpose(1, 2).reshape(x.shape)


def on_parts(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Apply a real function to the real and to the imaginary part of z."""
    return torch.view_as_complex(function(torch.view_as_real(z)))


def float32_region(forward: Callable[[Mixer, Tensor], Tensor]) -> Callable[[Mixer, Tensor], Tensor]:
    """Run a forward pass in at least float32 whatever autocast says: not every device has half-precision FFTs.

    Weights are widened where they are used. Libraries have no transforms of nothing: an empty batch goes with a blank
    image.
    """

    @functools.wraps(forward)
    def run(self: Mixer, x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            return run(self, torch.cat([x, x.new_zeros(1, *x.shape[1:])]))[:0]
        if x.device.type == "meta":  # which has no autocast
            return forward(self, x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            return forward(self, wide).to(x.dtype)

    return run
