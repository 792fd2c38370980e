"""GFN: global filter network (Rao et al. 2021; Table 1's depthwise global convolution).

    y = IFFT2(K * FFT2(x)),   one complex filter value per mode and channel

The filter belongs to one grid; on another it is resized bilinearly in the forward pass (A.3). No product runs over
channels, so that on a CPU the transforms stay where the tokens are, along H and W of B H W C; a GPU's would copy them
inside, each for itself, and run over B C H W.
Shapes: B batch, H W token grid, M = W // 2 + 1 modes along W, C channels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from afno_repro.errors import require
from afno_repro.mixers.derivatives import gradients, wants_plain
from afno_repro.mixers.forms.pair import image, scaled, spectrum
from afno_repro.mixers.forms.products import DFT
from afno_repro.mixers.forms.rule import takes_no_complex
from afno_repro.mixers.spectral import (
    Grid,
    all_modes,
    channels_first,
    channels_last,
    complex_parameter,
    float32_region,
    on_gpu,
)


class GFN(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C). The filter starts as `init_std` randn, in its origin 0.02."""

    def __init__(self, dim: int, grid: Grid, init_std: float):
        super().__init__()
        require((init_std > 0, "init_std", f"gfn: must be above 0, is {init_std}"))
        kernel = complex_parameter(grid[0], grid[1] // 2 + 1, dim, std=init_std)  # H M C 2
        self.filter = nn.Parameter(as_spectra_lie(kernel.detach()))
        self.dft = DFT(grid, all_modes(grid))

    @float32_region
    def forward(self, x: Tensor) -> Tensor:  # B H W C
        grid = (x.shape[1], x.shape[2])
        modes = all_modes(grid)
        kernel = self.filter_for(grid[0], modes.columns, x.dtype)
        if takes_no_complex():
            return self.dft.inverse(real_product(self.dft(x, modes), kernel), modes, grid)
        if on_gpu(x):
            z = spectrum(channels_first(x), modes)  # B C H M
            z = filtered(z, scaled(kernel, grid).permute(2, 0, 1, 3).contiguous())
            return channels_last(image(z, modes, grid))
        return image(filtered(spectrum(x, modes, dim=-3), kernel), modes, grid, dim=-3)

    def filter_for(self, height: int, modes: int, dtype: torch.dtype) -> Tensor:
        """The filter at a grid of `height` rows and `modes` columns: H M C 2."""
        kernel = self.filter.to(dtype)
        if kernel.shape[:2] == (height, modes):
            return kernel
        kernel = kernel.permute(2, 3, 0, 1)  # C 2 H M
        kernel = interpolate(kernel, size=(height, modes), mode="bilinear", align_corners=True)
        return as_spectra_lie(kernel.permute(2, 3, 0, 1))


def as_spectra_lie(kernel: Tensor) -> Tensor:
    """A filter (H M C 2) in the order in memory that a CPU's transforms give spectra: C H M 2, for products at once."""
    return kernel.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)


def filtered(z: Tensor, kernel: Tensor) -> Tensor:
    """The equation's product: spectrum z (B H M C), filter (H M C 2) -> B H M C, which may lie in z's memory.

    So for B C H M.
    """
    if wants_plain():
        return product(z, kernel)
    return Filtered.apply(z, kernel) if torch.is_grad_enabled() else z.mul_(torch.view_as_complex(kernel))


def product(z: Tensor, kernel: Tensor) -> Tensor:
    """The same for every derivative, in new memory."""
    return z * torch.view_as_complex(kernel)


def real_product(z: Tensor, kernel: Tensor) -> Tensor:
    """The same of parts that lie apart: z (B 2 H M C), filter (H M C 2) -> B 2 H M C."""
    (r, s), (a, b) = z.unbind(1), kernel.unbind(-1)
    return torch.stack([r * a - s * b, r * b + s * a], 1)


class Filtered(torch.autograd.Function):
    """The same, with z kept for the filter's gradient.

    As in forms/pair.py the gradient comes conjugated and in this layer's own memory, and goes so.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(z, kernel)
        return product(z, kernel)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        z, kernel = ctx.saved_tensors
        if torch.is_grad_enabled():
            return gradients(product, (z, kernel), gradient)
        conjugate = gradient.conj().resolve_conj()
        of_kernel = torch.view_as_real(over_images(z, conjugate).conj_physical_())
        return conjugate.mul_(torch.view_as_complex(kernel)).conj(), of_kernel


def over_images(z: Tensor, other: Tensor) -> Tensor:
    """The sum of all images' products: on a GPU in two launches, on a CPU in the memory of one image."""
    if on_gpu(z):
        return (z * other).sum(0)
    total = z[0] * other[0]
    for one, another in zip(z[1:], other[1:], strict=True):
        total.addcmul_(one, another)
    return total
