"""Segmentation: name the class of every pixel (Sections 5.2, 5.3; A.3, A.4)."""

from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad

from afno_repro.data.transforms import IGNORED, Example
from afno_repro.errors import require
from afno_repro.metrics import MeanIoU, Metrics
from afno_repro.tasks.inputs import Input, centred

Batch = tuple[Tensor, ...]  # images, maps of classes


class Segmentation:
    """Cross-entropy on scores resized to the labels; mean intersection over union.

    An image larger than the training's is scored in windows of the training's size, `stride` pixels apart, whose scores
    are averaged where they overlap: a stride of the image size cuts it into whole crops. `absent` says what a class
    counts that neither labels nor predictions have. A batch is (images (B, 3, height, width), maps (B, height, width)).
    """

    best, mix = "miou", None

    def __init__(self, image_size: int, num_classes: int, input: Input, stride: int, absent: Literal["skip", "zero"]):
        require(
            (
                1 < num_classes < IGNORED,
                "num_classes",
                f"segmentation: must be at least 2 and below {IGNORED}, is {num_classes}",
            ),
            (
                0 < stride <= image_size,
                "stride",
                f"segmentation: must be at least 1 and at most the image size {image_size}, is {stride}",
            ),
        )
        self.image_size, self.num_classes, self.input, self.stride, self.absent = (
            image_size,
            num_classes,
            input,
            stride,
            absent,
        )

    def prepare(self, example: Example, rng: np.random.Generator) -> Batch:
        """An image and its map of classes, as one sample."""
        image, label = example
        return image, cast(Tensor, label)

    def enter(self, batch: Batch) -> Batch:
        """Images centred, maps as whole numbers that index."""
        images, maps = batch
        return centred(images, self.input), maps.long()

    def weight(self, batch: Batch) -> Tensor:
        """Terms of the batch's loss: labelled pixels."""
        return (batch[1] != IGNORED).sum()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy, summed over the labelled pixels of the batch."""
        images, labels = batch
        scores = interpolate(model(images).float(), size=labels.shape[1:], mode="bilinear", align_corners=False)
        return cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum")

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Class scores for every pixel of images of any size: (B, classes, height, width)."""
        height, width = images.shape[2:]
        images = pad(images, (0, max(0, self.image_size - width), 0, max(0, self.image_size - height)))
        scores = images.new_zeros(len(images), self.num_classes, *images.shape[2:])
        for top in self.starts(images.shape[2]):
            for left in self.starts(images.shape[3]):
                window = (..., slice(top, top + self.image_size), slice(left, left + self.image_size))
                found = model(images[window]).float()
                scores[window] += interpolate(
                    found, size=(self.image_size, self.image_size), mode="bilinear", align_corners=False
                )
        rows, columns = (self.covered(extent).to(scores) for extent in images.shape[2:])
        return (scores / rows[:, None] / columns)[..., :height, :width]

    def starts(self, extent: int) -> list[int]:
        """Where windows begin along an axis; the last one ends with the image."""
        last = extent - self.image_size
        return [*range(0, last, self.stride), last]

    def covered(self, extent: int) -> Tensor:
        """How many windows see each place along an axis."""
        count = torch.zeros(extent)
        for start in self.starts(extent):
            count[start : start + self.image_size] += 1
        return count

    def metrics(self) -> Metrics:
        """Mean intersection over union, and the share of right pixels."""
        iou = MeanIoU(self.num_classes, self.absent)
        return Metrics((iou,), lambda model, batch: (self.predict(model, batch[0]).argmax(1), batch[1]))
