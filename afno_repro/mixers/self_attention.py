"""Softmax self-attention (Equation 1, with several heads; Vaswani et al. 2017).

    Att(X) = softmax(X Wq (X Wk)^T / sqrt(D)) X Wv Wo,   D channels a head

Shapes: B batch, H W token grid, N = H W, C channels, D = C // num_heads.
"""

from torch import Tensor, nn

from afno_repro.errors import require
from afno_repro.mixers.attention import attention
from afno_repro.mixers.spectral import Grid


class SelfAttention(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C) for any grid; memory and time grow with N^2."""

    def __init__(self, dim: int, grid: Grid, num_heads: int):
        super().__init__()
        require(
            (
                num_heads > 0 and dim % num_heads == 0,
                "num_heads",
                f"self_attention: must divide the width {dim}, is {num_heads}",
            )
        )
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        qkv = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.num_heads, -1))  # B N 3 heads D
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each B heads N D
        y = attention(q, k, v)
        return self.project(y.transpose(1, 2).reshape(x.shape))
