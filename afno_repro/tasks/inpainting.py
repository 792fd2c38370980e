"""Inpainting: predict the pixels that a random walk hides (Section 5.1, A.2)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afno_repro.data.masks import random_walk
from afno_repro.data.transforms import Example
from afno_repro.errors import require
from afno_repro.metrics import PSNR, SSIM, Metrics

Batch = tuple[Tensor, ...]  # images, masks


class Inpainting:
    """Predict hidden pixels from visible ones.

    `walk` says on which grid the walk runs and how long: `{grid: tokens, patch_size: 4, steps: 3136}` hides whole
    patches, `{grid: pixels, steps: 3136}` single pixels. The network sees the image centred on the mean of its visible
    pixels, the hidden ones at zero; the mean is added to what it predicts. The loss is the mean squared error of the
    hidden pixels; metrics look at the image whose visible pixels are kept and whose hidden ones are predicted.
    A batch is (images (B, 3, height, width) in [0, 1], masks (B, height, width), true where hidden).
    """

    best, mix = "psnr", None

    def __init__(self, image_size: int, walk: dict[str, Any]):
        grid, patch, steps = walk.get("grid"), walk.get("patch_size", 1), walk.get("steps")
        keys = {"grid", "steps"} | ({"patch_size"} if grid == "tokens" else set())
        require(
            (grid in ("tokens", "pixels"), "walk", f"inpainting: grid must be tokens or pixels, is {grid!r}"),
            (
                set(walk) == keys,
                "walk",
                f"inpainting: the walk's keys are {', '.join(sorted(keys))}, got {', '.join(sorted(walk))}",
            ),
            (
                isinstance(steps, int) and steps >= 0,
                "walk",
                f"inpainting: steps must be a whole number of at least 0, is {steps!r}",
            ),
        )
        require(
            (
                isinstance(patch, int) and patch > 0 and image_size % patch == 0,
                "walk",
                f"inpainting: patch_size must divide {image_size}, is {patch!r}",
            ),
            (image_size >= 11, "walk", f"inpainting: SSIM needs images of at least 11 pixels a side, got {image_size}"),
        )
        self.patch, self.cells, self.steps = int(patch), image_size // patch, int(walk["steps"])

    def prepare(self, example: Example, rng: np.random.Generator) -> Batch:
        """An image and a fresh mask, as one sample."""
        image, _ = example
        mask = torch.from_numpy(random_walk(self.cells, self.cells, self.steps, rng))
        return image, mask.repeat_interleave(self.patch, 0).repeat_interleave(self.patch, 1)

    def enter(self, batch: Batch) -> Batch:
        """Images in [0, 1], masks as they are."""
        images, masks = batch
        return images.float().div_(255), masks

    def weight(self, batch: Batch) -> Tensor:
        """Terms of the batch's loss: hidden values."""
        images, masks = batch
        return masks.sum() * images.shape[1]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Squared error, summed over the hidden pixels of the batch."""
        images, masks = batch
        return ((self.predict(model, images, masks) - images).square() * masks[:, None]).sum()

    def predict(self, model: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
        """The network's prediction for every pixel, not clipped: (B, 3, height, width)."""
        visible = ~masks[:, None]
        mean = (images * visible).sum((2, 3), keepdim=True) / visible.sum((2, 3), keepdim=True).clamp(min=1)
        prediction: Tensor = model((images - mean) * visible)
        return prediction.float() + mean

    def reconstruct(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Visible pixels as they are, hidden ones predicted and clipped to [0, 1]."""
        images, masks = batch
        return torch.where(masks[:, None], prediction.clamp(0, 1), images)

    def metrics(self) -> Metrics:
        """PSNR and SSIM of reconstructions, over the whole image and over the hidden pixels."""
        return Metrics((PSNR(), SSIM()), lambda model, batch: self.scored(self.predict(model, *batch), batch))

    def scored(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """What the metrics compare: the reconstruction, the image, and where it was hidden."""
        return self.reconstruct(prediction, batch), *batch
