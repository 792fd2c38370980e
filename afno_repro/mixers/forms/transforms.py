"""The AFNO layer by FFTs with a backward pass of its own, which keeps 2.3 units of the input in place of 4.

    h = relu(W1 z + b1),   s = S_lambda(W2 h + b2)            kept: z, h and where s is not zero

As in pair.py gradients come and go conjugated: z, h and the weights enter their products as they are, and no copy of
theirs is made.
Shapes: B batch, R M kept modes along H and W, N = R M, C channels, K blocks, D = C // K.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from afno_repro.mixers.derivatives import gradients
from afno_repro.mixers.spectral import Shrinkage, block_matmul, on_parts

Gradients = tuple[Tensor | None, ...]


def block_mlp(z: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, shrink: Shrinkage) -> Tensor:
    """The equation as it stands, for every derivative: z B C R M -> s B C R M."""
    blocks = z.flatten(2).unflatten(1, (w1.shape[0], -1))  # B K D N
    hidden = on_parts(torch.relu, block_matmul(blocks, w1) + torch.view_as_complex(b1))
    mixed = block_matmul(hidden, w2) + torch.view_as_complex(b2)
    return on_parts(shrink, mixed).reshape(z.shape)


class LeanMLP(torch.autograd.Function):
    """z (B C R M), the parameters of AFNO, its shrinkage -> s (B C R M).

    Where no gradient `is_needed` nothing is kept, and z's memory is used again: asking for new takes longer than many
    an operation on it.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, shrink: Shrinkage, is_needed: bool
    ) -> Tensor:
        blocks = z.flatten(2).unflatten(1, (w1.shape[0], -1))  # B K D N
        hidden = block_matmul(blocks, w1).add_(torch.view_as_complex(b1))
        torch.view_as_real(hidden).relu_()
        mixed = block_matmul(hidden, w2, None if is_needed else blocks).add_(torch.view_as_complex(b2))
        s = shrink(torch.view_as_real(mixed), in_place=True)  # B K D N 2
        if is_needed:
            ctx.save_for_backward(z, hidden, s == 0, w1, b1, w2, b2)
            ctx.shrink = shrink
        return mixed.view(z.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        z, hidden, dead, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            return again(z, weights, ctx.shrink, gradient)
        w1, _, w2, _ = weights
        of_output = gradient.conj().resolve_conj().flatten(2).view_as(hidden)
        torch.view_as_real(of_output).masked_fill_(dead, 0)
        of_hidden = torch.view_as_complex(w2) @ of_output
        before_relu(torch.view_as_real(of_hidden), torch.view_as_real(hidden))
        of_second = of_layer(hidden, of_output)
        of_z = torch.matmul(torch.view_as_complex(w1), of_hidden, out=of_output)  # there was memory
        of_first = of_layer(z.flatten(2).view_as(hidden), of_hidden)
        return of_z.view(z.shape).conj(), *of_first, *of_second, None, None


def in_own_precision(backward: Callable[[Any, Tensor], Gradients]) -> Callable[[Any, Tensor], Gradients]:
    """A backward pass as the forward one is: outside autocast, even where it is called inside."""

    @wraps(backward)
    def alone(ctx: Any, gradient: Tensor) -> Gradients:
        if gradient.device.type == "meta":  # which has no autocast
            return backward(ctx, gradient)
        with torch.autocast(gradient.device.type, enabled=False):
            return backward(ctx, gradient)

    return alone


def again(z: Tensor, weights: list[Tensor], shrink: Shrinkage, gradient: Tensor) -> Gradients:
    """A backward pass that can be differentiated."""
    return *gradients(partial(block_mlp, shrink=shrink), (z, *weights), gradient), None, None


def before_relu(gradient: Tensor, output: Tensor) -> Tensor:
    """The gradient of a ReLU's input from its output and the output's gradient, in place and in one pass."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)


def joined(parts: Tensor, like: Tensor) -> Tensor:
    """Both parts of each value, side by side (B K D N 2), as a spectrum `like` another: B C R M."""
    return torch.view_as_complex(parts.contiguous()).view(like.shape)


def of_layer(z: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a block layer's weight (K D D 2) and bias (K D 1 2).

    They follow from its input and its output's conjugate gradient, both (B K D N).
    """
    weight, bias = (z @ gradient.transpose(-1, -2)).sum(0), gradient.sum((0, 3))[..., None]
    return torch.view_as_real(weight.conj().resolve_conj()), torch.view_as_real(bias.conj().resolve_conj())
