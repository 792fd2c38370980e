"""AFNO with static weights: one block-diagonal matrix per kept mode (Equations 5 and 8; Table 6's non-adaptive row).

    z = FFT2(x),   z~_mn = S_lambda(W_mn z_mn),   y = IFFT2(z~) + bias(x)

The kept modes are rows of frequency -m .. m - 1 and columns 0 .. n - 1; the other modes are removed.
Shapes: B batch, H W token grid, R M kept modes along H and W, C channels, K blocks, D = C // K.
"""

from typing import Literal

from torch import Tensor, nn

from afno_repro.errors import require
from afno_repro.mixers.forms.per_mode import mode_matmul, mode_products
from afno_repro.mixers.forms.products import DFT
from afno_repro.mixers.forms.rule import takes_no_complex
from afno_repro.mixers.spectral import (
    Grid,
    Shrinkage,
    add_bias,
    bias_layer,
    box,
    channels_first,
    channels_last,
    complex_parameter,
    float32_region,
    irfft2,
    on_parts,
    rfft2,
    rows_of,
)


class AFNOStatic(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C) for any grid; options as in AFNO, `modes` is [m, n]."""

    def __init__(
        self,
        dim: int,
        grid: Grid,
        num_blocks: int,
        sparsity_threshold: float,
        modes: list[int],
        bias: Literal["none", "identity", "conv"],
        init_std: float,
    ):
        super().__init__()
        require(
            (
                num_blocks > 0 and dim % num_blocks == 0,
                "num_blocks",
                f"afno_static: must divide the width {dim}, is {num_blocks}",
            ),
            (
                sparsity_threshold >= 0,
                "sparsity_threshold",
                f"afno_static: must be at least 0, is {sparsity_threshold}",
            ),
            (
                len(modes) == 2 and min(modes) > 0,
                "modes",
                f"afno_static: must be two whole numbers above 0, is {modes}",
            ),
            (init_std > 0, "init_std", f"afno_static: must be above 0, is {init_std}"),
        )
        width = dim // num_blocks
        self.num_blocks, self.modes = num_blocks, modes
        self.weight = complex_parameter(
            2 * modes[0], modes[1], num_blocks, width, width, std=init_std
        )  # rows 0 .. m - 1, -m .. -1
        self.shrink = Shrinkage(sparsity_threshold)
        self.dft = DFT(grid, box(grid, *modes))
        self.bias = bias_layer(bias, dim)

    @float32_region
    def forward(self, x: Tensor) -> Tensor:  # B H W C
        grid = (x.shape[1], x.shape[2])
        modes = box(grid, *self.modes)
        weight = rows_of(self.weight.to(x.dtype), modes.low, modes.high, dim=0)[:, : modes.columns]  # R M K D D
        if takes_no_complex():
            s = self.shrink(mode_products(self.dft(x, modes), weight))
            return add_bias(self.dft.inverse(s, modes, grid), self.bias, x)
        z = rfft2(channels_first(x), modes).unflatten(1, (self.num_blocks, -1))  # B K D R M
        z = on_parts(self.shrink, mode_matmul(z, weight).flatten(1, 2))
        return add_bias(channels_last(irfft2(z, modes, grid)), self.bias, x)
