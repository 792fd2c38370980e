"""GFN: global filter network (Rao et al. 2021; Table 1's depthwise global convolution).

    y = IFFT2(K * FFT2(x)),   one complex filter value per mode and channel

The filter belongs to one grid; on another it is resized bilinearly in the forward pass (A.3).
Shapes: B batch, H W token grid, M = W // 2 + 1 modes along W, C channels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from afno_repro.mixers.spectral import Grid, all_modes, channels_first, channels_last, complex_parameter, float32_region, irfft2, rfft2


class GFN(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C). The filter starts as 0.02 randn, as in its origin."""

    def __init__(self, dim: int, grid: Grid):
        super().__init__()
        self.filter = complex_parameter(grid[0], grid[1] // 2 + 1, dim, std=0.02)  # H M C 2

    @float32_region
    def forward(self, x: Tensor) -> Tensor:  # B H W C
        grid = (x.shape[1], x.shape[2])
        modes = all_modes(grid)
        z = rfft2(channels_first(x), modes)  # B C H M
        return channels_last(irfft2(z * self.filter_for(z.shape[2], z.shape[3]), modes, grid))

    def filter_for(self, height: int, modes: int) -> Tensor:
        """The filter at a grid of `height` rows and `modes` columns: C H M, complex."""
        kernel = self.filter.permute(2, 3, 0, 1)  # C 2 H M
        if kernel.shape[2:] != (height, modes):
            kernel = interpolate(kernel, size=(height, modes), mode="bilinear", align_corners=True)
        return torch.complex(kernel[:, 0], kernel[:, 1])
