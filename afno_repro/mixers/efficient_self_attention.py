"""Efficient self-attention: softmax attention on spatially reduced keys and values (Wang et al. 2021; Xie et al. 2021).

    X' = LayerNorm(Conv_R(X)),   Att(X) = softmax(X Wq (X' Wk)^T / sqrt(D)) X' Wv Wo

The convolution has kernel and stride R, so there are N / R^2 keys; R = 1 is plain self-attention.
Shapes: B batch, H W token grid, N = H W, C channels, D = C // num_heads.
"""

from torch import Tensor, nn
from torch.nn.functional import pad

from afno_repro.errors import require
from afno_repro.mixers.attention import attention
from afno_repro.mixers.spectral import Grid


class EfficientSelfAttention(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C) for any grid; `reduction` is R.

    Rows and columns beyond a multiple of R give no keys; a grid smaller than R is padded with zeros.
    """

    def __init__(self, dim: int, grid: Grid, num_heads: int, reduction: int):
        super().__init__()
        require(
            (
                num_heads > 0 and dim % num_heads == 0,
                "num_heads",
                f"efficient_self_attention: must divide the width {dim}, is {num_heads}",
            ),
            (reduction > 0, "reduction", f"efficient_self_attention: must be at least 1, is {reduction}"),
        )
        self.num_heads, self.reduction = num_heads, reduction
        self.q, self.kv, self.project = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        if reduction > 1:
            self.reduce, self.norm = (
                nn.Conv2d(dim, dim, kernel_size=reduction, stride=reduction),
                nn.LayerNorm(dim, eps=1e-5),
            )

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        q = self.q(x).flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # B heads N D
        kv = self.kv(self.reduced(x)).unflatten(-1, (2, self.num_heads, -1))  # B N' 2 heads D
        k, v = kv.permute(2, 0, 3, 1, 4)
        y = attention(q, k, v)
        return self.project(y.transpose(1, 2).reshape(x.shape))

    def reduced(self, x: Tensor) -> Tensor:
        """The tokens that become keys and values: B H W C -> B N' C."""
        if self.reduction == 1:
            return x.flatten(1, 2)
        x = x.permute(0, 3, 1, 2)
        x = pad(x, (0, max(self.reduction - x.shape[3], 0), 0, max(self.reduction - x.shape[2], 0)))
        return self.norm(self.reduce(x).flatten(2).transpose(1, 2))
