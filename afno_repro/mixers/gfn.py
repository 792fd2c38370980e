"""GFN: global filter network (Rao et al. 2021; Table 1's depthwise global convolution).

    y = IFFT2(K * FFT2(x)),   one complex filter value per mode and channel

The filter belongs to one grid; on another it is resized bilinearly in the forward pass (A.3). No product runs over
channels, so that the transforms stay where the tokens are, along H and W of B H W C.
Shapes: B batch, H W token grid, M = W // 2 + 1 modes along W, C channels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import interpolate

from afno_repro.mixers.spectral import Grid, complex_parameter, float32_region, stood_for


class GFN(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C). The filter starts as 0.02 randn, as in its origin."""

    def __init__(self, dim: int, grid: Grid):
        super().__init__()
        self.filter = complex_parameter(grid[0], grid[1] // 2 + 1, dim, std=0.02)  # H M C 2

    @float32_region
    def forward(self, x: Tensor) -> Tensor:  # B H W C
        return Filtered.apply(x, self.filter_for(x.shape[1], x.shape[2] // 2 + 1), torch.is_grad_enabled())

    def filter_for(self, height: int, modes: int) -> Tensor:
        """The filter at a grid of `height` rows and `modes` columns: H M C 2."""
        if self.filter.shape[:2] == (height, modes):
            return self.filter
        kernel = self.filter.permute(2, 3, 0, 1)  # C 2 H M
        return (
            interpolate(kernel, size=(height, modes), mode="bilinear", align_corners=True)
            .permute(2, 3, 0, 1)
            .contiguous()
        )


class Filtered(torch.autograd.Function):
    """x (B H W C), filter (H M C 2) -> B H W C; the spectrum is kept where it `is_needed` for the filter's gradient.

    x's gradient is the output's, filtered by the conjugate; autograd's would take a complex transform of all modes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, is_needed: bool) -> Tensor:
        z, k = rfft2(x), torch.view_as_complex(kernel)
        if not is_needed:
            return irfft2(z.mul_(k), x.shape[2])
        ctx.save_for_backward(z, kernel)
        ctx.width = x.shape[2]
        return irfft2(z * k, ctx.width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        z, kernel = ctx.saved_tensors
        conjugate = rfft2(gradient)
        torch.view_as_real(conjugate)[..., 1].neg_()
        times = stood_for(z.shape[2], (z.shape[1], ctx.width), z)
        of_kernel = torch.view_as_real((z * conjugate).sum(0)) * torch.stack([times, -times], -1)[:, None]
        conjugate.mul_(torch.view_as_complex(kernel))
        torch.view_as_real(conjugate)[..., 1].neg_()
        return irfft2(conjugate, ctx.width), of_kernel, None


def rfft2(x: Tensor) -> Tensor:
    """Orthonormal real FFT over the token grid: B H W C -> B H M C, complex."""
    return torch.fft.rfft2(x, dim=(1, 2), norm="ortho")


def irfft2(z: Tensor, width: int) -> Tensor:
    """Its inverse, a complex FFT along H and a real one along W as in spectral.py: B H M C -> B H W C."""
    return torch.fft.irfft(torch.fft.ifft(z, dim=1, norm="ortho"), n=width, dim=2, norm="ortho")
