"""What a trained network does, on a few validation images: inpainting triptychs and segmentation overlays."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afno_repro.data.samples import VALIDATION, sample_rng
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.tasks.segmentation import Segmentation
from afno_repro.visualize.pictures import Pictures


class Triptychs:
    """Masked, reconstructed and true images: `masked`, `rebuilt` and `true`, uint8 (images, height, width, 3)."""

    def __init__(self, image_size: int, walk: dict[str, Any]):
        self.task = Inpainting(image_size, walk)

    def check(self, model: nn.Module) -> None:
        """Every network of its task can be shown."""

    @torch.inference_mode()
    def compute(self, model: nn.Module, images: list[Tensor], labels: list[Tensor | None]) -> Pictures:
        """Hide a part of every image and reconstruct it."""
        samples = [self.task.prepare((image, None), sample_rng(0, VALIDATION, 0, i)) for i, image in enumerate(images)]
        device = next(model.parameters()).device
        batch = self.task.enter(tuple(torch.stack(parts).to(device) for parts in zip(*samples, strict=True)))
        rebuilt = self.task.reconstruct(self.task.predict(model, *batch), batch)
        true, hidden = batch[0], batch[1][:, None]
        arrays = {"masked": torch.where(hidden, 0.5, true), "rebuilt": rebuilt, "true": true}
        return Pictures({}, {}, {name: as_pixels(value) for name, value in arrays.items()})


class Overlays:
    """Images, true and predicted maps, all uint8.

    Arrays: `true` (images, height, width, 3), `label` and `prediction` (images, height, width).
    """

    def __init__(self, image_size: int, num_classes: int, input: str, stride: int, absent: str):
        self.task = Segmentation(image_size, num_classes, input, stride, absent)  # type: ignore[arg-type]

    def check(self, model: nn.Module) -> None:
        """Every network of its task can be shown."""

    @torch.inference_mode()
    def compute(self, model: nn.Module, images: list[Tensor], labels: list[Tensor | None]) -> Pictures:
        """Segment every image."""
        device = next(model.parameters()).device
        samples = [
            self.task.prepare((image, label), np.random.default_rng(0))
            for image, label in zip(images, labels, strict=True)
        ]
        entered = [self.task.enter((image[None].to(device), label)) for image, label in samples]
        found = [self.task.predict(model, image).argmax(1)[0].cpu() for image, _ in entered]
        arrays = {
            "true": np.stack([image.permute(1, 2, 0).numpy() for image in images]),
            "label": np.stack([label.numpy().astype(np.uint8) for _, label in samples]),
            "prediction": np.stack([each.numpy().astype(np.uint8) for each in found]),
        }
        return Pictures({}, {}, arrays)


def as_pixels(images: Tensor) -> "np.ndarray[Any, Any]":
    """(B, 3, height, width) in [0, 1] as uint8 (B, height, width, 3)."""
    pixels: np.ndarray[Any, Any] = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels
