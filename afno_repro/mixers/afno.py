"""AFNO: adaptive Fourier neural operator (Section 4, Figure 3, Equations 6-8).

    z = FFT2(x),   z~ = S_lambda(W2 relu(W1 z + b1) + b2),   y = IFFT2(z~) + bias(x)

One block-diagonal MLP serves every mode, so the weights do not depend on the grid. ReLU and the shrinkage
S_lambda(v) = sign(v) max(|v| - lambda, 0) act on real and imaginary parts.
Shapes: B batch, H W token grid, R M kept modes along H and W (all: H, W // 2 + 1), N = R M, C channels, K blocks, D = C // K.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from afno_repro.errors import require
from afno_repro.mixers.spectral import Grid, bias_layer, block_matmul, complex_parameter, float32_region, irfft2, kept_modes, on_parts, rfft2


class AFNO(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C) for any grid.

    `num_blocks` K divides `dim`; `sparsity_threshold` is lambda; `keep` is the fraction of modes kept per axis (below 1
    the hard thresholding of Section 5.5, the higher frequencies being removed and never computed);
    `bias` is what is added to the mixed tokens: nothing, x itself (Figure 3) or a 1x1 convolution of x (A.2, A.5);
    `init_std` is the standard deviation of the initial weights' real and imaginary parts.
    """

    def __init__(
        self, dim: int, grid: Grid, num_blocks: int, sparsity_threshold: float, keep: float, bias: Literal["none", "identity", "conv"], init_std: float
    ):
        super().__init__()
        require(
            (num_blocks > 0 and dim % num_blocks == 0, "num_blocks", f"afno: must divide the width {dim}, is {num_blocks}"),
            (sparsity_threshold >= 0, "sparsity_threshold", f"afno: must be at least 0, is {sparsity_threshold}"),
            (0 < keep <= 1, "keep", f"afno: must lie in (0, 1], is {keep}"),
            (bias in ("none", "identity", "conv"), "bias", f"afno: must be one of none, identity, conv, is {bias}"),
            (init_std > 0, "init_std", f"afno: must be above 0, is {init_std}"),
        )
        width = dim // num_blocks
        self.num_blocks, self.keep = num_blocks, keep
        self.w1, self.b1 = complex_parameter(num_blocks, width, width, std=init_std), complex_parameter(num_blocks, width, 1, std=init_std)
        self.w2, self.b2 = complex_parameter(num_blocks, width, width, std=init_std), complex_parameter(num_blocks, width, 1, std=init_std)
        self.shrink = nn.Softshrink(sparsity_threshold)
        self.bias = bias_layer(bias, dim)

    @float32_region
    def forward(self, x: Tensor) -> Tensor:  # B H W C
        x = x.permute(0, 3, 1, 2).contiguous()  # B C H W
        grid = (x.shape[2], x.shape[3])
        modes = kept_modes(grid, self.keep)
        z = rfft2(x, modes)  # B C R M
        y = irfft2(self.block_mlp(z.flatten(2)).view_as(z), modes, grid)
        if self.bias is not None:
            y = y + self.bias(x.flatten(2)).view_as(x)
        return y.permute(0, 2, 3, 1)

    def block_mlp(self, z: Tensor) -> Tensor:
        """Two block-diagonal complex layers and the shrinkage, mode by mode: B C N -> B C N."""
        z = z.unflatten(1, (self.num_blocks, -1))  # B K D N
        z = on_parts(torch.relu, block_matmul(z, self.w1) + torch.view_as_complex(self.b1))
        z = block_matmul(z, self.w2) + torch.view_as_complex(self.b2)
        return on_parts(self.shrink, z)
