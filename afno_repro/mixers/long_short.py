"""Long-short attention: a window for what is near, a dynamic projection for what is far (Zhu et al. 2021).

    P = softmax over tokens of X Wp,   K' = LN2(P^T LN1(K)),   V' = LN2(P^T LN1(V))          (rank r a head)
    y = softmax([Q K'^T | Q K_window^T] / sqrt(D)) [V' | V_window] Wo

The queries of each w x w tile see the (w + 2e)^2 keys around it, e = max(w // 2, 1); keys outside the grid are masked.
A grid that w does not divide is padded, its padding masked as keys and cropped as queries. Where a window has room for
the whole grid its keys are all tokens, those that a tile does not see masked: the same sums, and nothing to copy.
Shapes: B batch, H W token grid, N = H W, C channels, h heads, D = C // h, R rank, T tiles, w tile side, n window keys.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from afno_repro.errors import require
from afno_repro.mixers.spectral import Grid


class LongShort(nn.Module):
    """Token mixer (B, H, W, C) -> (B, H, W, C) for any grid; `window` is w, `rank` is R per head."""

    def __init__(self, dim: int, grid: Grid, num_heads: int, window: int, rank: int):
        super().__init__()
        require(
            (
                num_heads > 0 and dim % num_heads == 0,
                "num_heads",
                f"long_short: must divide the width {dim}, is {num_heads}",
            ),
            (window > 0, "window", f"long_short: must be at least 1, is {window}"),
            (rank > 0, "rank", f"long_short: must be at least 1, is {rank}"),
        )
        self.num_heads, self.window, self.margin = num_heads, window, max(window // 2, 1)
        self.side = window + 2 * self.margin
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.dynamic = nn.Linear(dim, num_heads * rank)
        self.norm_tokens, self.norm_projected = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # each B H W C
        k, v = self.norm_tokens(k), self.norm_tokens(v)
        far_k, far_v = self.far(x, k, v)  # B h 1 R D
        near_k, near_v, outside = self.windows(k), self.windows(v), self.outside(x)  # B h (T or 1) n D, T n
        queries = self.tiles(q) * (q.shape[-1] // self.num_heads) ** -0.5  # B h T w^2 D
        far_scores = queries @ far_k.transpose(-1, -2)  # B h T w^2 R
        near_scores = (queries @ near_k.transpose(-1, -2)).masked_fill(outside[:, None], float("-inf"))
        weights = torch.cat([far_scores, near_scores], dim=-1).softmax(dim=-1)
        far, near = weights.split([far_k.shape[-2], near_k.shape[-2]], dim=-1)
        return self.project(self.untile(far @ far_v + near @ near_v, grid=(x.shape[1], x.shape[2])))

    def far(self, x: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens projected onto `rank` of them: each B h 1 R D."""
        logits = self.dynamic(x).flatten(1, 2)  # B N hR
        p = logits.softmax(dim=1, dtype=torch.promote_types(torch.float32, logits.dtype)).to(k.dtype)
        p = p.unflatten(-1, (self.num_heads, -1)).permute(0, 2, 3, 1)  # B h R N

        def projected(tokens: Tensor) -> Tensor:
            low = p @ tokens.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # B h R D
            low = self.norm_projected(low.transpose(1, 2).flatten(-2))  # B R C
            return low.unflatten(-1, (self.num_heads, -1)).transpose(1, 2).unsqueeze(2)

        return projected(k), projected(v)

    def padding(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns that fill the grid of x (B H W C) up to whole tiles."""
        return -x.shape[1] % self.window, -x.shape[2] % self.window

    def tiles(self, x: Tensor) -> Tensor:
        """Tiles of tokens, padded with zeros: B H W C -> B h T w^2 D."""
        rows, columns = self.padding(x)
        x = pad(x, (0, 0, 0, columns, 0, rows))
        x = x.unflatten(2, (-1, self.window)).unflatten(1, (-1, self.window)).transpose(2, 3)  # B rows columns w w C
        return x.flatten(3, 4).flatten(1, 2).unflatten(-1, (self.num_heads, -1)).permute(0, 3, 1, 2, 4)

    def untile(self, y: Tensor, grid: Grid) -> Tensor:
        """The inverse of tiles, without the padding: B h T w^2 D -> B H W C."""
        y = y.permute(0, 2, 3, 1, 4).flatten(-2)  # B T w^2 C
        y = y.unflatten(2, (self.window, self.window)).unflatten(1, (-(-grid[0] // self.window), -1))
        return y.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, : grid[0], : grid[1]]

    def overlapping(self, x: Tensor) -> Tensor:
        """The square of tokens around each tile: B H W C -> B T n C."""
        rows, columns = self.padding(x)
        x = pad(x, (0, 0, self.margin, self.margin + columns, self.margin, self.margin + rows))
        x = x.unfold(1, self.side, self.window).unfold(2, self.side, self.window)  # B rows columns C side side
        return x.flatten(4).flatten(1, 2).transpose(-1, -2)

    def whole(self, x: Tensor) -> bool:
        """Whether a window has room for all tokens of x (B H W C)."""
        return x.shape[1] * x.shape[2] <= self.side**2

    def windows(self, x: Tensor) -> Tensor:
        """Keys or values that each tile may see: B H W C -> B h T n D, or all of them, B h 1 N D."""
        keys = x.flatten(1, 2).unsqueeze(1) if self.whole(x) else self.overlapping(x)
        return keys.unflatten(-1, (self.num_heads, -1)).permute(0, 3, 1, 2, 4)

    def outside(self, x: Tensor) -> Tensor:
        """Which of those keys a tile does not see, since they are not near it or not in the grid: T n or T N."""
        tokens = torch.arange(1.0, 1 + x.shape[1] * x.shape[2], device=x.device)  # 0 is padding
        near = self.overlapping(tokens.view(1, *x.shape[1:3], 1))[0, :, :, 0]  # T n
        return (near[:, :, None] != tokens).all(1) if self.whole(x) else near == 0
