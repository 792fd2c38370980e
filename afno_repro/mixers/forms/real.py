"""The AFNO layer by FFTs in real products, one for each layer of the MLP: TF32 units multiply real matrices alone.

    [A -B; B A] [r; s] = [A r - B s; B r + A s]        (A + iB) (r + is)

A block's columns, all modes of all images, lie side by side, so that a weight's gradient is one product as well. What
is kept for the backward pass, and how gradients are conjugated in it, is as in transforms.py.
Shapes: B batch, R M kept modes along H and W, N = R M, C channels, K blocks, D = C // K;
columns K 2D BN, real parts first.
"""

from typing import Any

import torch
from torch import Tensor

from afno_repro.mixers.forms.transforms import Gradients, again, before_relu, in_own_precision, joined
from afno_repro.mixers.spectral import Shrinkage


class RealMLP(torch.autograd.Function):
    """z (B C R M), the parameters of AFNO, its shrinkage -> s (B C R M); z is kept as it came and split again."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, shrink: Shrinkage, is_needed: bool
    ) -> Tensor:
        hidden = torch.baddbmm(column(b1), matrix(w1.transpose(1, 2)), columns(z, w1.shape[0])).relu_()
        mixed = torch.baddbmm(column(b2), matrix(w2.transpose(1, 2)), hidden)
        s = shrink(parts(mixed, z.shape[0]), in_place=True)  # B K D N 2
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
        of_output = columns(gradient.conj().resolve_conj(), w1.shape[0])
        parts(of_output, z.shape[0]).masked_fill_(dead, 0)
        of_hidden = before_relu(matrix(w2) @ of_output, hidden)
        of_z = joined(parts(matrix(w1) @ of_hidden, z.shape[0]), z)
        of_first, of_second = of_layer(columns(z, w1.shape[0]), of_hidden), of_layer(hidden, of_output)
        return of_z.conj(), *of_first, *of_second, None, None


def columns(z: Tensor, blocks: int) -> Tensor:
    """Every mode of a spectrum as a column of each block: B C R M, complex -> K 2D BN."""
    pairs = torch.view_as_real(z.flatten(2).unflatten(1, (blocks, -1)))  # B K D N 2
    return pairs.permute(1, 4, 2, 0, 3).contiguous().flatten(1, 2).flatten(2)


def parts(z: Tensor, batch: int) -> Tensor:
    """A view of columns as B K D N 2."""
    return z.unflatten(1, (2, -1)).unflatten(3, (batch, -1)).permute(3, 0, 2, 4, 1)


def matrix(weight: Tensor) -> Tensor:
    """What multiplies columns: K D' D 2 -> K 2D' 2D."""
    real, imaginary = weight.unbind(-1)
    return torch.cat([torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)], -2)


def column(bias: Tensor) -> Tensor:
    """What is added to columns: K D 1 2 -> K 2D 1."""
    return bias.permute(0, 3, 1, 2).flatten(1, 2)


def of_layer(z: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a block layer's weight (K D D' 2) and bias (K D' 1 2).

    They follow from its input and its output's conjugate gradient, both columns.
    """
    both = (z @ gradient.mT).unflatten(1, (2, -1)).unflatten(3, (2, -1))  # K 2 D 2 D'
    weight = torch.stack([both[:, 0, :, 0] - both[:, 1, :, 1], -both[:, 0, :, 1] - both[:, 1, :, 0]], -1)
    real, imaginary = gradient.sum(2).unflatten(1, (2, -1)).unbind(1)  # K D'
    return weight, torch.stack([real, -imaginary], -1).unsqueeze(2)
