"""Forms that only a GPU runs: AFNO with everything between its FFTs in one kernel, and attention in bf16."""

from typing import Literal

import torch
from torch import Tensor, nn

from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.forms.kernel import fused_block_mlp
from afno_repro.mixers.forms.tiles import cut_of
from afno_repro.mixers.self_attention import SelfAttention
from afno_repro.mixers.spectral import (
    add_bias,
    channels_first,
    channels_last,
    float32_region,
    irfft2,
    kept_modes,
    rfft2,
)
from benchmarks.kernel_sizes import named


class FusedAFNO(nn.Module):
    """The same function as an AFNO, on its weights, its block MLP in tf32 or bf16 products."""

    def __init__(self, afno: AFNO, precision: Literal["float32", "bf16"]):
        super().__init__()
        self.afno, self.precision = afno, precision

    @float32_region
    def forward(self, x: Tensor) -> Tensor:  # B H W C
        """Mix tokens: B H W C -> B H W C."""
        afno, grid = self.afno, (x.shape[1], x.shape[2])
        if x.dtype == torch.float64:
            return afno(x)
        modes = kept_modes(grid, afno.keep)
        spectrum = rfft2(channels_first(x), modes)  # B C R M
        z = spectrum.flatten(2).unflatten(1, (afno.num_blocks, -1)).contiguous()  # B K D N
        z = fused_block_mlp(z, afno.w1, afno.b1, afno.w2, afno.b2, afno.shrink.lambd, self.precision)
        return add_bias(channels_last(irfft2(z.reshape(spectrum.shape), modes, grid)), afno.bias, x)


class HalfAttention(nn.Module):
    """Self-attention with its projections in bf16, on the same weights."""

    def __init__(self, attention: SelfAttention):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        """Mix tokens: B H W C -> B H W C."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.dtype == torch.float32):
            return self.attention(x)


def only_on_cuda(afno: AFNO, attention: SelfAttention) -> dict[str, nn.Module]:
    """The forms by name; the kernel's with its tiles, which decide on the last bits."""
    tiles = named(cut_of(afno.w1.shape[1]).layers)
    return {
        f"AFNO, one kernel ({tiles})": FusedAFNO(afno, "float32"),
        f"AFNO, one kernel, bf16 ({tiles})": FusedAFNO(afno, "bf16"),
        "self-attention, bf16": HalfAttention(attention),
    }
