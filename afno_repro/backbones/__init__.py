"""Backbones: image -> list of feature maps (B, H, W, C), fine to coarse, with .dims and .strides."""

from torch import nn

from afno_repro.backbones.vit import ViT

BACKBONES: dict[str, type[nn.Module]] = {"vit": ViT}
