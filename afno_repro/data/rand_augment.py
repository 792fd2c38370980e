"""One operation of RandAugment as torchvision has it, with the largest shift of one's own.

torchvision is imported by whoever augments so: that takes as long as importing torch.
"""

import torch
from torchvision.transforms import v2


class RandAugment(v2.RandAugment):  # type: ignore[misc]
    """One random operation on a uint8 image, at level `magnitude` of `levels` (Cubuk et al. 2020)."""

    def __init__(self, magnitude: int, levels: int, translation: float, fill: list[int] | None):
        super().__init__(1, magnitude, levels, fill=fill)
        self._AUGMENTATION_SPACE = {
            **v2.RandAugment._AUGMENTATION_SPACE,
            "TranslateX": (lambda bins, height, width: torch.linspace(0.0, translation * width, bins), True),
            "TranslateY": (lambda bins, height, width: torch.linspace(0.0, translation * height, bins), True),
        }
