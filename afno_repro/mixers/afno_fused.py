"""AFNO whose block MLP is one Triton kernel on a GPU under TF32 and bf16 (kernel.py); elsewhere it is AFNO itself.

To be asked for by its path, `name: "afno_repro.mixers.afno_fused:FusedAFNO"`: an H200 trained slower with it.
"""

from typing import Literal

import torch
from torch import Tensor

from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.forms.pair import image, scaled, spectrum
from afno_repro.mixers.forms.rule import prefers_real
from afno_repro.mixers.spectral import Modes, channels_first, channels_last


class FusedAFNO(AFNO):
    """Token mixer (B, H, W, C) -> (B, H, W, C), with AFNO's options and weights; no second derivatives on a GPU."""

    def by_transforms(self, x: Tensor, modes: Modes) -> Tensor:
        """FFTs and the kernel between them, but in a pass that is watched: B H W C -> B H W C."""
        watched = bool(self.shrink._forward_hooks)
        if watched or not prefers_real(x) or x.dtype != torch.float32:
            return super().by_transforms(x, modes)
        return by_kernel(self, x, modes, "float32")


def by_kernel(afno: AFNO, x: Tensor, modes: Modes, precision: Literal["float32", "bf16"]) -> Tensor:
    """An AFNO's mixing, its block MLP in tf32 (`float32`) or bf16 products: B H W C -> B H W C."""
    from afno_repro.mixers.forms.kernel import fused_block_mlp  # needs Triton, which no CPU's torch brings

    grid = (x.shape[1], x.shape[2])
    z = spectrum(channels_first(x), modes)  # B C R M
    w1, b1, w2, b2 = afno.weights(x)
    blocks = z.flatten(2).unflatten(1, (afno.num_blocks, -1))  # B K D N
    s = fused_block_mlp(blocks, scaled(w1, grid), b1, w2, b2, afno.shrink.lambd, precision)
    return channels_last(image(s.reshape(z.shape), modes, grid))
