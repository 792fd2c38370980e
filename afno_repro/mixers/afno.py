"""AFNO: adaptive Fourier neural operator (Section 4, Figure 3, Equations 6-8).

    z = FFT2(x),   z~ = S_lambda(W2 relu(W1 z + b1) + b2),   y = IFFT2(z~) + bias(x)

One block-diagonal MLP serves every mode, so the weights do not depend on the grid. ReLU and the shrinkage
S_lambda(v) = sign(v) max(|v| - lambda, 0) act on real and imaginary parts.
Shapes: B batch, H W token grid, R M kept modes along H and W (all: H, W // 2 + 1), N = R M, C channels, K blocks,
D = C // K.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from afno_repro.errors import require
from afno_repro.mixers.derivatives import wants_plain
from afno_repro.mixers.forms.pair import image, scaled, spectrum
from afno_repro.mixers.forms.planes import PlanarMLP
from afno_repro.mixers.forms.products import DFT, real_layer
from afno_repro.mixers.forms.real import RealMLP
from afno_repro.mixers.forms.rule import prefers_planes, prefers_products, prefers_real
from afno_repro.mixers.forms.transforms import LeanMLP, block_mlp
from afno_repro.mixers.spectral import (
    Grid,
    Modes,
    Shrinkage,
    add_bias,
    bias_layer,
    channels_first,
    channels_last,
    complex_parameter,
    float32_region,
    kept_modes,
)


class AFNO(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C) for any grid.

    `num_blocks` K divides `dim`; `sparsity_threshold` is lambda; `keep` is the fraction of modes kept per axis (below 1
    the hard thresholding of Section 5.5, the higher frequencies being removed and never computed). It is rounded to
    2 round(keep H / 2) rows, at least 2, and round(keep W / 2) + 1 columns, halves to the even number: 0.5 of a grid
    of 14 keeps 8 rows and 5 columns;
    `bias` is what is added to the mixed tokens: nothing, x itself (Figure 3) or a 1x1 convolution of x (A.2, A.5);
    `init_std` is the standard deviation of the initial weights' real and imaginary parts.
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        num_blocks: int,
        sparsity_threshold: float,
        keep: float,
        bias: Literal["none", "identity", "conv"],
        init_std: float,
    ):
        super().__init__()
        require(
            (
                num_blocks > 0 and dim % num_blocks == 0,
                "num_blocks",
                f"afno: must divide the width {dim}, is {num_blocks}",
            ),
            (sparsity_threshold >= 0, "sparsity_threshold", f"afno: must be at least 0, is {sparsity_threshold}"),
            (0 < keep <= 1, "keep", f"afno: must lie in (0, 1], is {keep}"),
            (bias in ("none", "identity", "conv"), "bias", f"afno: must be one of none, identity, conv, is {bias}"),
            (init_std > 0, "init_std", f"afno: must be above 0, is {init_std}"),
        )
        width = dim // num_blocks
        self.num_blocks, self.keep = num_blocks, keep
        self.w1, self.b1 = (
            complex_parameter(num_blocks, width, width, std=init_std),
            complex_parameter(num_blocks, width, 1, std=init_std),
        )
        self.w2, self.b2 = (
            complex_parameter(num_blocks, width, width, std=init_std),
            complex_parameter(num_blocks, width, 1, std=init_std),
        )
        self.shrink = Shrinkage(sparsity_threshold)
        self.dft = DFT(grid, kept_modes(grid, keep))
        self.bias = bias_layer(bias, dim)

    @float32_region
    def forward(self, x: Tensor) -> Tensor:  # B H W C
        modes = kept_modes((x.shape[1], x.shape[2]), self.keep)
        mix = self.by_products if prefers_products(x, modes) else self.by_transforms
        return add_bias(mix(x, modes), self.bias, x)

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W1, b1, W2, b2 in the precision of x."""
        return self.w1.to(x.dtype), self.b1.to(x.dtype), self.w2.to(x.dtype), self.b2.to(x.dtype)

    def by_transforms(self, x: Tensor, modes: Modes) -> Tensor:
        """FFTs: B H W C -> B H W C."""
        grid, width = (x.shape[1], x.shape[2]), self.w1.shape[1]
        z = spectrum(channels_first(x), modes)  # B C R M
        w1, b1, w2, b2 = self.weights(x)
        weights = scaled(w1, grid), b1, w2, b2
        if wants_plain():
            s = block_mlp(z, *weights, self.shrink)
        else:
            mlp = RealMLP if prefers_real(x) else PlanarMLP if prefers_planes(x, width) else LeanMLP
            s = mlp.apply(z, *weights, self.shrink, torch.is_grad_enabled())
        return channels_last(image(s, modes, grid))

    def by_products(self, x: Tensor, modes: Modes) -> Tensor:
        """Real matrix products throughout: B H W C -> B H W C."""
        grid, batch, width = (x.shape[1], x.shape[2]), x.shape[0], self.w1.shape[1]
        w1, b1, w2, b2 = self.weights(x)
        z = self.dft(x, modes)  # B 2 R M C
        z = z.flatten(2, 3).unflatten(-1, (self.num_blocks, width)).permute(3, 0, 2, 1, 4)  # K B N 2 D
        z = torch.relu(real_layer(z.reshape(self.num_blocks, -1, 2 * width), w1, b1))
        z = real_layer(z, w2, b2).view(self.num_blocks, batch, -1, 2, width)
        z = self.shrink(z.permute(1, 0, 4, 2, 3)).permute(0, 4, 3, 1, 2)  # as B K D N 2, then B 2 N K D
        return self.dft.inverse(z.reshape(batch, 2, -1, modes.columns, x.shape[3]), modes, grid)
