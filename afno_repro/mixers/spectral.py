"""What the Fourier mixers share: the transform pair, complex parameters, the block product, the float32 region.

Shapes: B batch, H W token grid, M = W // 2 + 1 modes along W, C channels, K blocks, D = C // K. Spectra are
channels-first, where the FFT runs over contiguous memory.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Grid = tuple[int, int]
Mixer = TypeVar("Mixer", bound=nn.Module)


def rfft2(x: Tensor) -> Tensor:
    """Orthonormal real FFT over the token grid: B C H W -> B C H M, complex."""
    return torch.fft.rfft2(x, norm="ortho")


def irfft2(z: Tensor, grid: Grid) -> Tensor:
    """Inverse of rfft2: B C H M -> B C H W.

    After a nonlinearity the columns of frequency 0 and W / 2 are not Hermitian any more, and libraries disagree on a
    two-dimensional inverse real FFT of such a spectrum. A complex FFT along H, then a real one along W, means the
    same everywhere: the real one ignores the imaginary parts of both columns.
    """
    return torch.fft.irfft(torch.fft.ifft(z, dim=-2, norm="ortho"), n=grid[1], dim=-1, norm="ortho")


def complex_parameter(*shape: int, std: float) -> nn.Parameter:
    """Complex normal values stored as a real tensor with a trailing 2 (complex parameters trouble DDP and optimisers)."""
    return nn.Parameter(torch.randn(*shape, 2) * std)


def block_matmul(z: Tensor, weight: Tensor) -> Tensor:
    """One matrix per block, the same for every mode: z (B K D N), weight (K D D', real view) -> B K D' N."""
    return torch.view_as_complex(weight).transpose(-1, -2) @ z


def on_parts(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Apply a real function to the real and to the imaginary part of z."""
    return torch.view_as_complex(function(torch.view_as_real(z)))


def float32_region(forward: Callable[[Mixer, Tensor], Tensor]) -> Callable[[Mixer, Tensor], Tensor]:
    """Run a forward pass in at least float32 whatever autocast says: half-precision FFTs do not exist on every device."""

    @functools.wraps(forward)
    def run(self: Mixer, x: Tensor) -> Tensor:
        if not torch.amp.is_autocast_available(x.device.type):  # the meta device
            return forward(self, x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            return forward(self, wide).to(x.dtype)

    return run
