"""Classification: name the class of an image (Section 5.4, A.5; the pretraining of A.3)."""

from typing import cast

import numpy as np
from torch import Tensor, float32, nn
from torch.nn.functional import cross_entropy

from afno_repro.data.transforms import Example, drawn_from
from afno_repro.errors import require
from afno_repro.metrics import Metrics, TopK
from afno_repro.tasks.inputs import Input, centred

Batch = tuple[Tensor, ...]  # images, classes


class Classification:
    """Cross-entropy on class scores, with label smoothing; top-1 and top-5 accuracy.

    `mixup` and `cutmix` are the parameters of their Beta distributions, 0 for none; with both, each batch takes one of
    them at random (Zhang et al. 2018, Yun et al. 2019): see `Mixing`. A batch is (images (B, 3, height, width), classes
    (B) or, where it is mixed, their shares (B, num_classes)).
    """

    best = "top1"

    def __init__(
        self, image_size: int, num_classes: int, input: Input, mixup: float, cutmix: float, label_smoothing: float
    ):
        require(
            (num_classes > 1, "num_classes", f"classification: must be at least 2, is {num_classes}"),
            (mixup >= 0, "mixup", f"classification: must be at least 0, is {mixup}"),
            (cutmix >= 0, "cutmix", f"classification: must be at least 0, is {cutmix}"),
            (0 <= label_smoothing < 1, "label_smoothing", f"classification: must lie in [0, 1), is {label_smoothing}"),
        )
        self.num_classes, self.input, self.label_smoothing = num_classes, input, label_smoothing
        self.mix = Mixing(num_classes, mixup, cutmix) if mixup or cutmix else None

    def prepare(self, example: Example, rng: np.random.Generator) -> Batch:
        """An image and its class, as one sample."""
        image, label = example
        return image, cast(Tensor, label)

    def enter(self, batch: Batch) -> Batch:
        """Images centred, classes as they are."""
        images, classes = batch
        return centred(images, self.input), classes

    def weight(self, batch: Batch) -> Tensor:
        """Terms of the batch's loss: images."""
        return batch[0].new_full((), len(batch[0]), dtype=float32)  # on the device: a copy would have the host wait

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy, summed over the batch."""
        images, classes = batch
        return cross_entropy(model(images).float(), classes, label_smoothing=self.label_smoothing, reduction="sum")

    def metrics(self) -> Metrics:
        """Top-1 and top-5 accuracy."""
        return Metrics((TopK(),), lambda model, batch: (model(batch[0]).float(), batch[1]))


class Mixing:
    """Mixup, cutmix, or one of them at random for each batch: a sample's partner is the one before it in the batch.

    So any run of a batch's samples is mixed as the whole batch is, given the one before its first.
    """

    def __init__(self, num_classes: int, mixup: float, cutmix: float):
        from torchvision.transforms import v2  # not above: most tasks mix nothing

        kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        self.mix = v2.RandomChoice([kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha > 0])

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """n + 1 samples -> all but the first mixed, their classes as shares (n, num_classes)."""
        mixed = drawn_from(rng, self.mix, *batch)
        return tuple(part[1:] for part in mixed)
