"""ViT without a class token: one stage of mixer blocks on a grid of patches (Dosovitskiy et al. 2020; A.2, A.5)."""

from collections.abc import Callable

from torch import Tensor, nn

from afno_repro.backbones.layers import MLP, Block, PatchEmbed, Positions
from afno_repro.errors import require
from afno_repro.initialise import initialise_linear
from afno_repro.mixers.spectral import Grid


class ViT(nn.Module):
    """Image (B, 3, height, width) -> [one feature map (B, H, W, C)], for images whose sides patch_size divides.

    `mixer` makes a token mixer from a width, a grid and the stage's number, here 0. `skips` is the number of residuals
    in a block, 1 or 2. `image_size` sets the grid that positions and filters are learned on. `linear_std` is the
    deviation of linear layers' first weights, None for PyTorch's.
    """

    def __init__(
        self,
        image_size: int,
        mixer: Callable[[int, Grid, int], nn.Module],
        patch_size: int,
        embed_dim: int,
        depth: int,
        mlp_ratio: int,
        skips: int,
        linear_std: float | None,
    ):
        super().__init__()
        require(
            (
                patch_size > 0 and image_size % patch_size == 0,
                "patch_size",
                f"vit: must divide the image size {image_size}, is {patch_size}",
            ),
            (embed_dim > 0, "embed_dim", f"vit: must be at least 1, is {embed_dim}"),
            (depth > 0, "depth", f"vit: must be at least 1, is {depth}"),
            (mlp_ratio > 0, "mlp_ratio", f"vit: must be at least 1, is {mlp_ratio}"),
            (skips in (1, 2), "skips", f"vit: must be 1 or 2, is {skips}"),
            (linear_std is None or linear_std > 0, "linear_std", f"vit: must be above 0, is {linear_std}"),
        )
        grid = (image_size // patch_size, image_size // patch_size)
        self.dims, self.strides = [embed_dim], [patch_size]
        self.embed = PatchEmbed(patch_size, embed_dim)
        self.positions = Positions(embed_dim, grid)
        self.blocks = nn.Sequential(
            *(
                Block(embed_dim, mixer(embed_dim, grid, 0), MLP(embed_dim, mlp_ratio), skips, eps=1e-6, drop_path=0.0)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        initialise_linear(self, linear_std)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.blocks(self.positions(self.embed(images))))]
