"""Layers that backbones share: patch embedding, learned positions, the two-layer MLP, the mixer block.

Shapes: B batch, H W token grid, C channels; images are (B, 3, height, width).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from afno_repro.mixers.spectral import Grid


class PatchEmbed(nn.Module):
    """One linear map per patch_size x patch_size patch: (B, 3, height, width) -> (B, H, W, C)."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.project = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.project(images).permute(0, 2, 3, 1)


class Positions(nn.Module):
    """Adds a learned vector per token; another grid than the one learned on gets them resized bilinearly.

    They start as two-dimensional sines and cosines of geometrically spaced wavelengths (Vaswani et al. 2017).
    """

    def __init__(self, dim: int, grid: Grid):
        super().__init__()
        self.table = nn.Parameter(sines(dim, grid))  # C H W

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        table: Tensor = self.table
        if table.shape[1:] != x.shape[1:3]:
            table = interpolate(table[None], size=x.shape[1:3], mode="bilinear", align_corners=False)[0]
        return x + table.permute(1, 2, 0)


def sines(dim: int, grid: Grid) -> Tensor:
    """Sines and cosines of the row and of the column number, a quarter of the channels each: C H W."""
    quarter = -(-dim // 4)
    frequencies = 10000.0 ** -(torch.arange(quarter) / quarter)
    rows = (torch.arange(grid[0])[:, None] * frequencies)[:, None].expand(-1, grid[1], -1)  # H W C/4
    columns = (torch.arange(grid[1])[:, None] * frequencies)[None].expand(grid[0], -1, -1)
    return (
        torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=-1)[..., :dim]
        .permute(2, 0, 1)
        .contiguous()
    )


class OverlapPatchEmbed(nn.Module):
    """Strided convolution of overlapping patches, layer norm (Xie et al. 2021): (B, C', H', W') -> (B, H, W, C)."""

    def __init__(self, channels: int, dim: int, patch_size: int, stride: int):
        super().__init__()
        self.project = nn.Conv2d(channels, dim, kernel_size=patch_size, stride=stride, padding=patch_size // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.project(x).permute(0, 2, 3, 1))


class MixFFN(nn.Module):
    """Linear, 3x3 depthwise convolution, GELU, linear (Xie et al. 2021): the convolution tells tokens their place."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        self.expand, self.contract = nn.Linear(dim, ratio * dim), nn.Linear(ratio * dim, dim)
        self.depthwise = nn.Conv2d(ratio * dim, ratio * dim, kernel_size=3, padding=1, groups=ratio * dim)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        x = self.depthwise(self.expand(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.contract(self.activation(x))


class MLP(nn.Sequential):
    """Linear, GELU, linear: channel mixing, the same for every token."""

    def __init__(self, dim: int, ratio: int):
        super().__init__(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


class DropPath(nn.Module):
    """Drops whole samples in training and scales the others up: stochastic depth (Huang et al. 2016).

    The rate is a tensor, so that a compiler makes one graph for blocks of every rate.
    """

    keep: Tensor

    def __init__(self, rate: float):
        super().__init__()
        self.register_buffer("keep", torch.tensor(1 - rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        if not self.training:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) < self.keep
        return x * (kept / self.keep).to(x.dtype)


class Block(nn.Module):
    """A token mixer and an MLP behind layer norms; in training each branch is dropped with probability `drop_path`.

    With two skips x + mixer(norm x), then x + mlp(norm x); with one x + mlp(norm mixer(norm x)) (Rao et al. 2021).
    """

    def __init__(self, dim: int, mixer: nn.Module, mlp: nn.Module, skips: int, eps: float, drop_path: float):
        super().__init__()
        self.skips = skips
        self.norm1, self.mixer = nn.LayerNorm(dim, eps=eps), mixer
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=eps), mlp
        self.drop = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixer(self.norm1(x))
        if self.skips == 1:
            return x + self.drop(self.mlp(self.norm2(mixed)))
        x = x + self.drop(mixed)
        return x + self.drop(self.mlp(self.norm2(x)))


def blocks_in(model: nn.Module) -> list[Block]:
    """Every block of a network, in order."""
    return [module for module in model.modules() if isinstance(module, Block)]
