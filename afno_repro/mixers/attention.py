"""Softmax attention: softmax(Q K^T / sqrt(D)) V, fused where PyTorch has it so, with all its derivatives.

Shapes: B batch, h heads, N queries, N' keys, D channels of a head.
"""

from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from afno_repro.mixers.derivatives import differentiable

MULTIPLE = 8  # channels of a head, of which a GPU has fused attention in every precision


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q B h N D, k and v B h N' D -> B h N D."""
    return differentiable(fused_attention, plain_attention, q, k, v)


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same; on a GPU heads of any width are fused, with channels of zeros, which add nothing to a product."""
    dim, lacking = q.shape[-1], -q.shape[-1] % MULTIPLE
    if not (lacking and q.is_cuda):
        return scaled_dot_product_attention(q, k, v)
    q, k, v = (pad(each, (0, lacking)) for each in (q, k, v))
    return scaled_dot_product_attention(q, k, v, scale=dim**-0.5)[..., :dim]


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The equation as it stands: fused attention has no second derivatives."""
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
