"""The AFNO layer by FFTs for wide blocks: real and imaginary parts lie apart; a complex product is three real ones.

    (A + iB)(r + is) = (k - (A + B) s) + i (k + (B - A) r),   k = A (r + s)     (Gauss; Knuth, TAOCP 2, 4.6.4)

A quarter of the multiplications goes, for a few sums: it pays where products take most of the time. What is kept for
the backward pass, and how gradients are conjugated in it, is as in transforms.py.
Shapes: B batch, R M kept modes along H and W, N = R M, C channels, K blocks, D = C // K;
spectra 2 B K D N.
"""

from typing import Any

import torch
from torch import Tensor

from afno_repro.mixers.forms.transforms import Gradients, again, before_relu, in_own_precision, joined
from afno_repro.mixers.spectral import Shrinkage


class PlanarMLP(torch.autograd.Function):
    """z (B C R M), the parameters of AFNO, its shrinkage -> s (B C R M); z is kept as it came and split again."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, shrink: Shrinkage, is_needed: bool
    ) -> Tensor:
        hidden = product(w1.transpose(1, 2), split(z, w1.shape[0])).add_(per_channel(b1)).relu_()
        s = product(w2.transpose(1, 2), hidden).add_(per_channel(b2))
        s = shrink(s.permute(1, 2, 3, 4, 0))  # B K D N 2
        if is_needed:
            ctx.save_for_backward(z, hidden, s == 0, w1, b1, w2, b2)
            ctx.shrink = shrink
        return joined(s, z)

    @staticmethod
    @in_own_precision
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        z, hidden, dead, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            return again(z, weights, ctx.shrink, gradient)
        w1, _, w2, _ = weights
        of_output = split(gradient.conj().resolve_conj(), w1.shape[0])
        of_output.masked_fill_(dead.permute(4, 0, 1, 2, 3), 0)
        of_hidden = before_relu(product(w2, of_output), hidden)
        of_z = joined(product(w1, of_hidden).permute(1, 2, 3, 4, 0), z)
        of_first, of_second = of_layer(split(z, w1.shape[0]), of_hidden), of_layer(hidden, of_output)
        return of_z.conj(), *of_first, *of_second, None, None


def split(z: Tensor, blocks: int) -> Tensor:
    """Both parts of a spectrum, one after the other: B C R M, complex -> 2 B K D N."""
    return torch.view_as_real(z.flatten(2).unflatten(1, (blocks, -1))).permute(4, 0, 1, 2, 3).contiguous()


def per_channel(bias: Tensor) -> Tensor:
    """K D 1 2 -> 2 1 K D 1."""
    return bias.permute(3, 0, 1, 2).unsqueeze(1)


def product(weight: Tensor, z: Tensor) -> Tensor:
    """One complex matrix per block: weight K D' D 2, z 2 B K D N -> 2 B K D' N."""
    real, imaginary = weight.unbind(-1)
    common = real @ (z[0] + z[1])
    return torch.stack([common - (real + imaginary) @ z[1], common + (imaginary - real) @ z[0]])


def of_layer(z: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a block layer's weight (K D D 2) and bias (K D 1 2).

    They follow from its input and its output's conjugate gradient, both (2 B K D N).
    """
    real, imaginary = gradient
    common = (z[0] + z[1]) @ real.mT
    weight = torch.stack([common - z[1] @ (real + imaginary).mT, -common - z[0] @ (imaginary - real).mT], -1).sum(0)
    bias = gradient.sum((1, 4))  # 2 K D
    return weight, torch.stack([bias[0], -bias[1]], -1).unsqueeze(2)
