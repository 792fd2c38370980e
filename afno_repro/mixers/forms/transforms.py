"""The AFNO layer by FFTs with a backward pass of its own, which keeps 2.3 units of the input in place of 4.

    h = relu(W1 z + b1),   s = S_lambda(W2 h + b2)            kept: z, h and where s is not zero

The gradient of a complex value is that of its real and imaginary parts. Inside the backward pass every gradient is
conjugated: z, h and the weights then enter its products as they are, and no copy of theirs is made.
Shapes: B batch, H W token grid, R M kept modes along H and W, N = R M, C channels, K blocks, D = C // K.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from afno_repro.mixers.spectral import (
    Grid,
    Modes,
    Shrinkage,
    block_matmul,
    channels_first,
    channels_last,
    irfft2,
    rfft2,
    stood_for,
)

Gradients = tuple[Tensor | None, ...]


class LeanAFNO(torch.autograd.Function):
    """x (B H W C), the parameters of AFNO, its shrinkage and modes -> mixed tokens (B H W C), nothing added.

    Where no gradient `is_needed` nothing is kept. Memory is used again: asking for new takes longer than many an
    operation on it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        shrink: Shrinkage,
        modes: Modes,
        is_needed: bool,
    ) -> Tensor:
        grid = (x.shape[1], x.shape[2])
        spectrum = rfft2(channels_first(x), modes)  # B C R M
        z = spectrum.flatten(2).unflatten(1, (w1.shape[0], -1))  # B K D N
        hidden = block_matmul(z, w1).add_(torch.view_as_complex(b1))
        torch.view_as_real(hidden).relu_()
        mixed = block_matmul(hidden, w2, None if is_needed else z).add_(torch.view_as_complex(b2))
        s = shrink(torch.view_as_real(mixed), in_place=True)  # B K D N 2
        if is_needed:
            ctx.save_for_backward(z, hidden, s == 0, w1, w2)
            ctx.modes, ctx.grid = modes, grid
        return channels_last(irfft2(mixed.view_as(spectrum), modes, grid))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        z, hidden, dead, w1, w2 = ctx.saved_tensors
        spectrum = conjugated(rfft2(channels_first(gradient), ctx.modes), ctx.grid, 1)  # B C R M
        of_output = spectrum.flatten(2).view_as(hidden)
        torch.view_as_real(of_output).masked_fill_(dead, 0)
        of_hidden = torch.view_as_complex(w2) @ of_output
        before_relu(torch.view_as_real(of_hidden), torch.view_as_real(hidden))
        of_second = of_layer(hidden, of_output)
        torch.matmul(
            torch.view_as_complex(w1), of_hidden, out=of_output
        )  # now the gradient of z, where there was memory
        of_x = irfft2(conjugated(spectrum, ctx.grid, -1), ctx.modes, ctx.grid)
        return channels_last(of_x), *of_layer(z, of_hidden), *of_second, None, None, None


def before_relu(gradient: Tensor, output: Tensor) -> Tensor:
    """The gradient of a ReLU's input from its output and the output's gradient, in place and in one pass."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)


def conjugated(z: Tensor, grid: Grid, power: int) -> Tensor:
    """z (B C R M) conjugated and times a power of how many columns each column stands for, in place."""
    factors = stood_for(z.shape[-1], grid, z) ** power
    torch.view_as_real(z).mul_(torch.stack([factors, -factors], -1))
    return z


def of_layer(z: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a block layer's weight (K D D 2) and bias (K D 1 2).

    They follow from its input and its output's conjugate gradient, both (B K D N).
    """
    weight, bias = (z @ gradient.transpose(-1, -2)).sum(0), gradient.sum((0, 3))[..., None]
    return torch.view_as_real(weight.conj().resolve_conj()), torch.view_as_real(bias.conj().resolve_conj())
