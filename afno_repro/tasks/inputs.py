"""How labelled images enter a network, on its device: uint8 (..., 3, height, width) -> float32, centred."""

from typing import Literal

from torch import Tensor, tensor

Input = Literal["image_mean", "imagenet"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def centred(images: Tensor, how: Input) -> Tensor:
    """`image_mean`: less each image's mean colour, as for inpainting; `imagenet`: by ImageNet's mean and deviation."""
    images = images.float().div_(255)  # in place: fresh memory costs more than the arithmetic
    if how == "image_mean":
        return images.sub_(images.mean((-2, -1), keepdim=True))
    mean, std = (tensor(values, device=images.device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return images.sub_(mean).div_(std)
