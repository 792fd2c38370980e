"""SegFormer's encoder: four stages of mixer blocks on ever coarser grids (Xie et al. 2021; A.3)."""

from collections.abc import Callable

from torch import Tensor, nn

from afno_repro.backbones.layers import Block, MixFFN, OverlapPatchEmbed
from afno_repro.errors import require
from afno_repro.initialise import initialise_linear
from afno_repro.mixers.spectral import Grid

STRIDES = [4, 8, 16, 32]
PATCHES = [(7, 4), (3, 2), (3, 2), (3, 2)]  # size and stride of each stage's patch embedding


class SegFormer(nn.Module):
    """Image (B, 3, height, width) -> four feature maps (B, H, W, C), for images whose sides 32 divides.

    `mixer` makes a token mixer from a width, a grid and the stage's number; `learned_at` is the image size whose grids
    mixers are made for, which may differ from the image size at hand (GFN's filters are resized, A.3). In training
    branches of blocks are dropped, of the last block with probability `drop_path`, of the first never. `linear_std` is
    the deviation of linear layers' first weights, None for PyTorch's.
    """

    num_stages = 4

    def __init__(
        self,
        image_size: int,
        mixer: Callable[[int, Grid, int], nn.Module],
        embed_dims: list[int],
        depths: list[int],
        mlp_ratio: int,
        learned_at: int,
        drop_path: float,
        linear_std: float | None,
    ):
        super().__init__()
        require(
            (
                image_size % STRIDES[-1] == 0,
                "learned_at",
                f"segformer: needs an image size that {STRIDES[-1]} divides, is {image_size}",
            ),
            (
                learned_at > 0 and learned_at % STRIDES[-1] == 0,
                "learned_at",
                f"segformer: must be a multiple of {STRIDES[-1]}, is {learned_at}",
            ),
            (
                len(embed_dims) == 4 and min(embed_dims) > 0,
                "embed_dims",
                f"segformer: must be four widths above 0, is {embed_dims}",
            ),
            (len(depths) == 4 and min(depths) > 0, "depths", f"segformer: must be four depths above 0, is {depths}"),
            (mlp_ratio > 0, "mlp_ratio", f"segformer: must be at least 1, is {mlp_ratio}"),
            (linear_std is None or linear_std > 0, "linear_std", f"segformer: must be above 0, is {linear_std}"),
            (0 <= drop_path < 1, "drop_path", f"segformer: must lie in [0, 1), is {drop_path}"),
        )
        self.dims, self.strides = embed_dims, STRIDES
        self.stages = nn.ModuleList()
        rates = [drop_path * block / max(sum(depths) - 1, 1) for block in range(sum(depths))]
        for stage, (dim, depth, (size, stride)) in enumerate(zip(embed_dims, depths, PATCHES, strict=True)):
            grid = (learned_at // STRIDES[stage], learned_at // STRIDES[stage])
            embed = OverlapPatchEmbed(embed_dims[stage - 1] if stage else 3, dim, size, stride)
            before = sum(depths[:stage])
            blocks = [
                Block(dim, mixer(dim, grid, stage), MixFFN(dim, mlp_ratio), skips=2, eps=1e-6, drop_path=rate)
                for rate in rates[before : before + depth]
            ]
            self.stages.append(nn.Sequential(embed, *blocks, nn.LayerNorm(dim, eps=1e-6)))
        initialise_linear(self, linear_std)

    def forward(self, images: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for stage in self.stages:
            features.append(stage(features[-1].permute(0, 3, 1, 2) if features else images))
        return features
