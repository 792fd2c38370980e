"""FNO: Fourier neural operator (Section 3.2, Definition 4; Li et al. 2020; Table 1's global convolution).

    z = FFT2(x),   z~_mn = W_mn z_mn,   y = IFFT2(z~)

One full complex matrix per kept mode: rows of frequency -m .. m - 1, columns 0 .. n - 1; the other modes are removed.
Shapes: B batch, H W token grid, R M kept modes along H and W, C channels.
"""

from torch import Tensor, nn

from afno_repro.errors import require
from afno_repro.mixers.forms.per_mode import mode_matmul, mode_products
from afno_repro.mixers.forms.products import DFT
from afno_repro.mixers.forms.rule import takes_no_complex
from afno_repro.mixers.spectral import (
    Grid,
    box,
    channels_first,
    channels_last,
    complex_parameter,
    float32_region,
    irfft2,
    rfft2,
    rows_of,
)


class FNO(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C) for any grid; `modes` is [m, n], at most what `grid` has.

    `init_std` is the standard deviation of the initial matrices' real and imaginary parts.
    """

    def __init__(self, dim: int, grid: Grid, modes: list[int], init_std: float):
        super().__init__()
        require(
            (len(modes) == 2 and min(modes) > 0, "modes", f"fno: must be two whole numbers above 0, is {modes}"),
            (init_std > 0, "init_std", f"fno: must be above 0, is {init_std}"),
        )
        self.modes = modes
        self.weight = complex_parameter(2 * modes[0], modes[1], dim, dim, std=init_std)  # rows 0 .. m - 1, -m .. -1
        self.dft = DFT(grid, box(grid, *modes))

    @float32_region
    def forward(self, x: Tensor) -> Tensor:  # B H W C
        grid = (x.shape[1], x.shape[2])
        modes = box(grid, *self.modes)
        weight = rows_of(self.weight.to(x.dtype), modes.low, modes.high, dim=0)[:, : modes.columns]  # R M C C
        if takes_no_complex():
            return self.dft.inverse(mode_products(self.dft(x, modes), weight.unsqueeze(2)), modes, grid)
        z = rfft2(channels_first(x), modes)  # B C R M
        z = mode_matmul(z.unsqueeze(1), weight.unsqueeze(2)).squeeze(1)
        return channels_last(irfft2(z, modes, grid))
