"""Derivatives of what is computed by other means than differentiable operations: fused, in place, by hand.

Such code comes with the same function written `plainly`, which is differentiated wherever more than the first gradient
is asked for: by `torch.func`, in forward mode, or by a backward pass that is to be differentiated itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

Plain = Callable[..., Tensor]


def wants_plain() -> bool:
    """Whether a `torch.func` transform or forward mode is active: neither sees through hand-written passes."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def gradients(plain: Plain, inputs: tuple[Tensor, ...], gradient: Tensor) -> tuple[Tensor, ...]:
    """The gradients of plainly(*inputs), which can be differentiated again."""
    return torch.func.vjp(plain, *inputs)[1](gradient)


class Again(torch.autograd.Function):
    """y, which some inputs were mapped to, as it is; gradients go to what y was made by, which may have but the first.

    A backward pass that is to be differentiated sends them to the inputs instead, by way of `plain`.
    """

    @staticmethod
    def forward(ctx: Any, plain: Plain, y: Tensor, *inputs: Tensor) -> Tensor:
        ctx.plain = plain
        ctx.save_for_backward(*inputs)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return None, None, *gradients(ctx.plain, ctx.saved_tensors, gradient)
        return None, gradient, *(None for _ in ctx.saved_tensors)


def differentiable(fast: Plain, plain: Plain, *inputs: Tensor) -> Tensor:
    """fast(*inputs), which has a first gradient; any other derivative is that of plain(*inputs), the same function."""
    if wants_plain():
        return plain(*inputs)
    y = fast(*inputs)
    return Again.apply(plain, y, *inputs) if torch.is_grad_enabled() and not torch.compiler.is_compiling() else y
