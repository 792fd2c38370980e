"""Swin, ResNet and MobileNetV2 from torchvision as lists of feature maps, for Figure 1 (Section 5.6).

torchvision is imported by whoever builds one: that takes as long as importing torch.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from afno_repro.errors import require

# Layers after which the strides are 4, 8, 16 and 32, and the widths there.
MOBILENET_V2 = [(4, 24), (7, 32), (14, 96), (18, 320)]


class Trunk(nn.Module):
    """Image (B, 3, height, width) -> four maps (B, H, W, C) at strides 4, 8, 16 and 32; has no token mixer of ours."""

    def __init__(self, stages: list[nn.Module], dims: list[int], channels_last: bool):
        super().__init__()
        self.stages, self.dims, self.strides = nn.ModuleList(stages), dims, [4, 8, 16, 32]
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> list[Tensor]:
        features, x = [], images
        for stage in self.stages:
            x = stage(x)
            features.append(x if self.channels_last else x.permute(0, 2, 3, 1))
        return features


class Swin(Trunk):
    """Swin Transformer (Liu et al. 2021b) with random weights: patches of 4 pixels, widths that double by stage.

    `window` is a window's side in tokens; grids that it does not divide are padded. Blocks are dropped at random in
    training, the last with probability `drop_path`, the first never. `final_norm` puts a layer norm behind the last
    map, as the published network has it before it pools that map.
    """

    def __init__(
        self,
        image_size: int,
        mixer: Callable[..., nn.Module],
        embed_dim: int,
        depths: list[int],
        num_heads: list[int],
        window: int,
        drop_path: float,
        final_norm: bool,
    ):
        from torchvision.models import SwinTransformer

        dims = [embed_dim * 2**stage for stage in range(4)]
        require(
            (embed_dim > 0, "embed_dim", f"swin: must be above 0, is {embed_dim}"),
            (len(depths) == 4 and min(depths) > 0, "depths", f"swin: must be four depths above 0, is {depths}"),
            (
                len(num_heads) == 4 and min(num_heads) > 0,
                "num_heads",
                f"swin: must be four numbers above 0, is {num_heads}",
            ),
            (window > 0, "window", f"swin: must be at least 1, is {window}"),
            (0 <= drop_path < 1, "drop_path", f"swin: must lie in [0, 1), is {drop_path}"),
        )
        divided = all(dim % heads == 0 for dim, heads in zip(dims, num_heads, strict=True))
        require((divided, "num_heads", f"swin: must divide the stages' widths {dims}, is {num_heads}"))
        layers = SwinTransformer(
            [4, 4], embed_dim, depths, num_heads, [window, window], stochastic_depth_prob=drop_path
        ).features
        super().__init__([layers[:2], layers[2:4], layers[4:6], layers[6:8]], dims, channels_last=True)
        self.norm = nn.LayerNorm(dims[-1], eps=1e-5) if final_norm else nn.Identity()

    def forward(self, images: Tensor) -> list[Tensor]:
        *features, last = super().forward(images)
        return [*features, self.norm(last)]


class ResNet(Trunk):
    """ResNet (He et al. 2016) with random weights."""

    def __init__(self, image_size: int, mixer: Callable[..., nn.Module], depth: Literal[50, 101]):
        from torchvision.models import resnet50, resnet101

        net = {50: resnet50, 101: resnet101}[depth](weights=None)
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
        super().__init__([stem, net.layer2, net.layer3, net.layer4], [256, 512, 1024, 2048], channels_last=False)


class MobileNetV2(Trunk):
    """MobileNetV2 (Sandler et al. 2018) with random weights, without its last 1x1 convolution."""

    def __init__(self, image_size: int, mixer: Callable[..., nn.Module]):
        from torchvision.models import mobilenet_v2

        layers = mobilenet_v2(weights=None).features
        ends = [end for end, _ in MOBILENET_V2]
        stages: list[nn.Module] = [layers[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        super().__init__(stages, [width for _, width in MOBILENET_V2], channels_last=False)
