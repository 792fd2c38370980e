"""The transform pair with gradients that are one real transform each; autograd's would take complex ones of all modes.

Up to how many columns one stands for, each is the other's gradient. The gradient of a complex value is that of its real
and imaginary parts. Between the two, a spectrum's gradient is handed on conjugated (lazily: as a view that undoes it)
in memory that nobody else reads: what lies in between then multiplies with spectra and weights as they are, in place.
On a GPU the forward transform is left without its scale, which would be a pass of its own through memory there:
whatever multiplies the spectrum next takes it (`scaled`), as the factors of a gradient do.
Shapes as in spectral.py: B C R M, or other axes with H at `dim`.
"""

from typing import Any

import torch
from torch import Tensor

from afno_repro.mixers.derivatives import wants_plain
from afno_repro.mixers.spectral import Grid, Modes, irfft2, on_gpu, own_conjugates, rfft2


def unit(x: Tensor, grid: Grid) -> float:
    """What a spectrum on the device of x has to be multiplied with to be that of an orthonormal transform."""
    return (grid[0] * grid[1]) ** -0.5 if on_gpu(x) else 1.0


def scaled(weight: Tensor, grid: Grid) -> Tensor:
    """A weight that multiplies a spectrum as it comes, for the one that would multiply an orthonormal transform's."""
    return weight * unit(weight, grid) if on_gpu(weight) else weight


def spectrum(x: Tensor, modes: Modes, dim: int = -2) -> Tensor:
    """spectral.rfft2, on a GPU without its scale: B C H W -> B C R M."""
    return forwards(x, modes, dim) if needs_no_rule() else Spectrum.apply(x, modes, dim)


def forwards(x: Tensor, modes: Modes, dim: int) -> Tensor:
    """The same for every derivative."""
    return rfft2(x, modes, dim, "backward" if on_gpu(x) else "ortho")


def image(z: Tensor, modes: Modes, grid: Grid, dim: int = -2) -> Tensor:
    """spectral.irfft2: B C R M -> B C H W."""
    return irfft2(z, modes, grid, dim) if needs_no_rule() else Image.apply(z, modes, grid, dim)


def needs_no_rule() -> bool:
    """Whether nobody differentiates, or by other means than the gradients here."""
    return wants_plain() or not torch.is_grad_enabled()


class Spectrum(torch.autograd.Function):
    """The function `spectrum`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, modes: Modes, dim: int) -> Tensor:
        ctx.modes, ctx.grid, ctx.dim = modes, (x.shape[dim], x.shape[dim + 1]), dim
        return forwards(x, modes, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        z = conjugated(gradient.conj().resolve_conj(), ctx.grid, ctx.dim, 0.5, 1 / unit(gradient, ctx.grid))
        return image(z, ctx.modes, ctx.grid, ctx.dim), None, None


class Image(torch.autograd.Function):
    """The function `image`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, modes: Modes, grid: Grid, dim: int) -> Tensor:
        ctx.modes, ctx.grid, ctx.dim = modes, grid, dim
        return irfft2(z, modes, grid, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        z = conjugated(spectrum(gradient, ctx.modes, ctx.dim), ctx.grid, ctx.dim, 2, unit(gradient, ctx.grid))
        return z.conj(), None, None, None


def conjugated(z: Tensor, grid: Grid, dim: int, factor: float, scale: float) -> Tensor:
    """z conjugated and scaled, columns that stand for two times a factor, in place unless autograd looks."""
    factors = z.new_full((z.shape[dim + 1], *[1] * (-dim - 2)), complex(factor * scale, -factor * scale))
    factors[own_conjugates(grid)].fill_(complex(scale, -scale))
    parts, factors = torch.view_as_real(z), torch.view_as_real(factors)
    return torch.view_as_complex(parts * factors if torch.is_grad_enabled() else parts.mul_(factors))
