"""Long-short attention: a window for what is near, a dynamic projection for what is far (Zhu et al. 2021).

    P = softmax over tokens of X Wp,   K' = LN2(P^T LN1(K)),   V' = LN2(P^T LN1(V))          (rank r a head)
    y = softmax(Q [K' | LN1(K)_window]^T / sqrt(D)) [V' | LN1(V)_window] Wo

The queries of each w x w tile see the (w + 2e)^2 keys around it, e = max(w // 2, 1); keys outside the grid are masked.
A grid that w does not divide is padded, its padding masked as keys and cropped as queries. Where a window has room for
the whole grid its keys are all tokens, those that a tile does not see masked: the same sums, of one copy.
Shapes: B batch, H W token grid, N = H W, C channels, h heads, D = C // h, R rank, w tile side, T = rows x columns
tiles, n window keys, m = w^2 queries of a tile, or T w^2 of all, where all look at the same n = N keys.
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
        far_k, far_v = self.far(x, k, v)  # B h R D
        keys, values = self.seen(far_k, self.heads(k)), self.seen(far_v, self.heads(v))  # B h (T or 1) R + n D
        outside = pad(self.outside(x), (far_k.shape[-2], 0))  # T 1 R + n or T w^2 R + N: all see what is far
        queries = self.tiles(self.heads(q)).flatten(2, 5).unflatten(2, (keys.shape[2], -1))  # B h (T or 1) m D
        scores = queries * keys.shape[-1] ** -0.5 @ keys.transpose(-1, -2)
        weights = scores.masked_fill(outside, float("-inf")).softmax(dim=-1)  # B h (T or 1) m R + n
        return self.project(self.untile(weights @ values, grid=(x.shape[1], x.shape[2])))

    def heads(self, x: Tensor) -> Tensor:
        """The heads' parts of each token: B H W C -> B h H W D."""
        return x.unflatten(-1, (self.num_heads, -1)).permute(0, 3, 1, 2, 4)

    def far(self, x: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens projected onto `rank` of them: each B h R D."""
        logits = self.dynamic(x).flatten(1, 2)  # B N hR
        p = logits.softmax(dim=1, dtype=torch.promote_types(torch.float32, logits.dtype)).to(k.dtype)
        p = p.unflatten(-1, (self.num_heads, -1)).permute(0, 2, 3, 1)  # B h R N

        def projected(tokens: Tensor) -> Tensor:
            low = p @ self.heads(tokens).flatten(2, 3)  # B h R D
            low = self.norm_projected(low.transpose(1, 2).flatten(-2))  # B R C
            return low.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        return projected(k), projected(v)

    def tiles(self, x: Tensor, before: int = 0, after: int = 0) -> Tensor:
        """Tiles of tokens, zeros around and up to whole tiles: B h H W D -> B h rows columns w w D.

        In memory tile by tile, so that what is cut out of them is copied once, by who joins it.
        """
        rows, columns = (after + -side % self.window for side in x.shape[2:4])
        x = pad(x, (0, 0, before, columns, before, rows))
        return x.unflatten(3, (-1, self.window)).unflatten(2, (-1, self.window)).transpose(3, 4).contiguous()

    def untile(self, y: Tensor, grid: Grid) -> Tensor:
        """The inverse of tiles, without margins and padding: B h (T or 1) m D -> B H W C."""
        columns = -(-grid[1] // self.window)
        y = y.flatten(2, 3).unflatten(2, (-1, columns, self.window, self.window))  # B h rows columns w w D
        y = y.permute(0, 2, 4, 3, 5, 1, 6)  # B rows w columns w h D
        return y.flatten(5, 6).flatten(3, 4).flatten(1, 2)[:, : grid[0], : grid[1]]

    def seen(self, far: Tensor, near: Tensor) -> Tensor:
        """What each tile looks at, B h R D beside its window of B h H W D: B h (T or 1) R + n D."""
        windows = self.windows(near)
        rows, columns = windows[0].shape[2:4]
        far = far[:, :, None, None].expand(-1, -1, rows, columns, -1, -1)
        return torch.cat([far, *windows], dim=-2).flatten(2, 3)

    def whole(self, x: Tensor) -> bool:
        """Whether a window has room for all tokens of x (B h H W D)."""
        return x.shape[2] * x.shape[3] <= self.side**2

    def windows(self, x: Tensor) -> list[Tensor]:
        """Keys or values that a tile may see, in parts: B h H W D -> each B h rows columns . D, or one B h 1 1 N D."""
        return [x.flatten(2, 3)[:, :, None, None]] if self.whole(x) else self.overlapping(x)

    def overlapping(self, x: Tensor) -> list[Tensor]:
        """The square around each tile in parts: B h H W D -> each B h rows columns . D, n in all.

        With a margin before the grid, squares begin where tiles do, and each part is of another tile that they span.
        """
        starts = range(0, self.side, self.window)
        tiles = self.tiles(x, self.margin, starts[-1] - self.margin)
        rows, columns = (number - len(starts) + 1 for number in tiles.shape[2:4])
        return [
            tiles[:, :, i : i + rows, j : j + columns, : self.side - row, : self.side - column].flatten(4, 5)
            for i, row in enumerate(starts)
            for j, column in enumerate(starts)
        ]

    def outside(self, x: Tensor) -> Tensor:
        """Which keys a query does not see, since they are not near its tile or not in the grid: T 1 n or T w^2 N."""
        tokens = torch.arange(1, 1 + x.shape[1] * x.shape[2], device=x.device)  # 0 is padding
        tokens = tokens.view(1, 1, *x.shape[1:3], 1)
        near = torch.cat(self.overlapping(tokens), dim=-2).flatten(1, 3)[0, :, :, 0]  # T n
        if not self.whole(tokens):
            return (near == 0)[:, None]
        return (near[:, :, None] != tokens.flatten()).all(1).repeat_interleave(self.window**2, 0)
