"""Heads: a backbone's feature maps -> what the task predicts. Every head starts `(dims, strides, ...)`.

Shapes: B batch, H W token grid, C channels of the last feature map.
"""

import torch
from torch import Tensor, nn


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
    """Mean over all tokens, then one linear map (A.5): -> (B, classes)."""

    def __init__(self, dims: list[int], strides: list[int], num_classes: int):
        super().__init__()
        self.project = nn.Linear(dims[-1], num_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.project(torch.mean(features[-1], dim=(1, 2)))


HEADS: dict[str, type[nn.Module]] = {"inpainting": InpaintingHead, "classification": ClassificationHead}
