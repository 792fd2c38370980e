"""Swin, ResNet and MobileNetV2 from torchvision as lists of feature maps, for Figure 1 (Section 5.6)."""

from collections.abc import Callable
from typing import Literal

import torchvision.models as tv
from torch import Tensor, nn

# Layers after which the strides are 4, 8, 16 and 32, and the widths there.
SWIN = {"tiny": (tv.swin_t, 96), "small": (tv.swin_s, 96), "base": (tv.swin_b, 128)}
MOBILENET_V2 = [(4, 24), (7, 32), (14, 96), (18, 320)]


class Trunk(nn.Module):
    """Image (B, 3, height, width) -> four feature maps (B, H, W, C) at strides 4, 8, 16 and 32; has no token mixer of ours."""

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
    """Swin Transformer (Liu et al. 2021b) with random weights."""

    def __init__(self, image_size: int, mixer: Callable[..., nn.Module], size: Literal["tiny", "small", "base"]):
        build, width = SWIN[size]
        layers = build(weights=None).features
        super().__init__([layers[:2], layers[2:4], layers[4:6], layers[6:8]], [width * 2**i for i in range(4)], channels_last=True)


class ResNet(Trunk):
    """ResNet (He et al. 2016) with random weights."""

    def __init__(self, image_size: int, mixer: Callable[..., nn.Module], depth: Literal[50, 101]):
        net = {50: tv.resnet50, 101: tv.resnet101}[depth](weights=None)
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
        super().__init__([stem, net.layer2, net.layer3, net.layer4], [256, 512, 1024, 2048], channels_last=False)


class MobileNetV2(Trunk):
    """MobileNetV2 (Sandler et al. 2018) with random weights, without its last 1x1 convolution."""

    def __init__(self, image_size: int, mixer: Callable[..., nn.Module]):
        layers = tv.mobilenet_v2(weights=None).features
        ends = [end for end, _ in MOBILENET_V2]
        stages: list[nn.Module] = [layers[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        super().__init__(stages, [width for _, width in MOBILENET_V2], channels_last=False)
