"""Backbones: image -> list of feature maps (B, H, W, C), fine to coarse, with .dims and .strides."""

from torch import nn

from afno_repro.backbones.segformer import SegFormer
from afno_repro.backbones.trunks import MobileNetV2, ResNet, Swin
from afno_repro.backbones.vit import ViT

BACKBONES: dict[str, type[nn.Module]] = {
    "vit": ViT,
    "segformer": SegFormer,
    "swin": Swin,
    "resnet": ResNet,
    "mobilenet_v2": MobileNetV2,
}
WITHOUT_MIXER = ("swin", "resnet", "mobilenet_v2")
