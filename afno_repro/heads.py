"""Heads: a backbone's feature maps -> what the task predicts. Every head starts `(dims, strides, ...)`.

Shapes: B batch, H W token grid, C channels of the last feature map.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from afno_repro.errors import require
from afno_repro.initialise import initialise_linear


class InpaintingHead(nn.Module):
    """One linear map from each token to its patch of the image (A.2): -> (B, 3, height, width).

    It starts at zero, so that an untrained model predicts what the task adds back: the mean of the visible pixels.
    """

    def __init__(self, dims: list[int], strides: list[int]):
        super().__init__()
        self.project = nn.Linear(dims[-1], 3 * strides[-1] ** 2)
        self.shuffle = nn.PixelShuffle(strides[-1])
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.shuffle(self.project(features[-1]).permute(0, 3, 1, 2))


class ClassificationHead(nn.Module):
    """Mean over all tokens, then one linear map (A.5): -> (B, classes).

    `linear_std` is the deviation of its first weights, None for PyTorch's.
    """

    def __init__(self, dims: list[int], strides: list[int], num_classes: int, linear_std: float | None):
        super().__init__()
        require(
            (linear_std is None or linear_std > 0, "linear_std", f"classification: must be above 0, is {linear_std}")
        )
        self.project = nn.Linear(dims[-1], num_classes)
        initialise_linear(self, linear_std)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.project(torch.mean(features[-1], dim=(1, 2)))


class LinearSegmentationHead(nn.Module):
    """One linear map from each token of the last feature map to class scores (few-shot, A.4): -> (B, classes, H, W)."""

    def __init__(self, dims: list[int], strides: list[int], num_classes: int):
        super().__init__()
        self.project = nn.Linear(dims[-1], num_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.project(features[-1]).permute(0, 3, 1, 2)


class SegFormerHead(nn.Module):
    """SegFormer's all-MLP head (Xie et al. 2021): -> (B, classes, H, W) on the grid of the finest feature map.

    Every map is projected to `embed_dim` and resized bilinearly. A 1x1 convolution with batch norm and ReLU fuses them,
    concatenated from coarse to fine.
    """

    def __init__(self, dims: list[int], strides: list[int], embed_dim: int, dropout: float, num_classes: int):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(dim, embed_dim) for dim in dims)
        self.fuse = nn.Sequential(
            nn.Conv2d(len(dims) * embed_dim, embed_dim, kernel_size=1, bias=False), nn.BatchNorm2d(embed_dim), nn.ReLU()
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(embed_dim, num_classes, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[1:3]
        maps = [project(x).permute(0, 3, 1, 2) for project, x in zip(self.projections, features, strict=True)]
        maps = [maps[0], *(interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[1:])]
        return self.classify(self.dropout(self.fuse(torch.cat(maps[::-1], dim=1))))


HEADS: dict[str, type[nn.Module]] = {
    "inpainting": InpaintingHead,
    "classification": ClassificationHead,
    "linear_segmentation": LinearSegmentationHead,
    "segformer": SegFormerHead,
}
