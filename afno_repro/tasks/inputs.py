"""How a labelled image enters a network: uint8 (3, height, width) -> float32, centred."""

from typing import Literal

from torch import Tensor, tensor

Input = Literal["image_mean", "imagenet"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def centred(image: Tensor, how: Input) -> Tensor:
    """`image_mean`: less the image's mean colour, as for inpainting; `imagenet`: by ImageNet's mean and deviation."""
    image = image.float().div_(255)  # in place: fresh memory costs more than the arithmetic
    if how == "image_mean":
        return image.sub_(image.mean((1, 2), keepdim=True))
    return image.sub_(tensor(IMAGENET_MEAN)[:, None, None]).div_(tensor(IMAGENET_STD)[:, None, None])
