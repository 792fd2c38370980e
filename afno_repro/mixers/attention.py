"""Softmax attention: softmax(Q K^T / sqrt(D)) V, fused where PyTorch has it so, with all its derivatives.

Shapes: B batch, h heads, N queries, N' keys, D channels of a head.
"""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from afno_repro.mixers.derivatives import differentiable


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q B h N D, k and v B h N' D -> B h N D."""
    return differentiable(scaled_dot_product_attention, plain_attention, q, k, v)


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The equation as it stands: fused attention has no second derivatives."""
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
