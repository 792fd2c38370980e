"""Forms that only a GPU runs: AFNO with everything between its FFTs in one kernel, and attention in bf16."""

from typing import Literal

import torch
from torch import Tensor, nn

from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.afno_fused import by_kernel
from afno_repro.mixers.forms.tiles import cut_of
from afno_repro.mixers.self_attention import SelfAttention
from afno_repro.mixers.spectral import add_bias, float32_region, kept_modes
from benchmarks.kernel_sizes import named


class FusedAFNO(nn.Module):
    """The same function as an AFNO, on its weights, its block MLP in tf32 or bf16 products."""

    def __init__(self, afno: AFNO, precision: Literal["float32", "bf16"]):
        super().__init__()
        self.afno, self.precision = afno, precision

    @float32_region
    def forward(self, x: Tensor) -> Tensor:  # B H W C
        """Mix tokens: B H W C -> B H W C."""
        if x.dtype == torch.float64:
            return self.afno(x)
        modes = kept_modes((x.shape[1], x.shape[2]), self.afno.keep)
        return add_bias(by_kernel(self.afno, x, modes, self.precision), self.afno.bias, x)


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
