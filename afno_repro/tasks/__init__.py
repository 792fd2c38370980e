"""What a network is trained to do: how examples are prepared, the loss, the metrics. A spec names a key of TASKS."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from afno_repro.data.transforms import Example
from afno_repro.metrics import Metrics
from afno_repro.tasks.classification import Classification
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.tasks.segmentation import Segmentation

Batch = tuple[Tensor, ...]
Mix = Callable[[Batch, np.random.Generator], Batch]


class Task(Protocol):
    """One task; a step's loss is the sum of `loss` over all processes divided by the sum of `weight`."""

    best: str  # the metric by which the best evaluation is known

    @property
    def mix(self) -> Mix | None: ...  # mixes each sample with the one before it

    def prepare(self, example: Example, rng: np.random.Generator) -> Batch:
        """A sample as it travels to the device: images in bytes."""
        ...

    def enter(self, batch: Batch) -> Batch:
        """A batch as the network takes it, where it has arrived."""
        ...

    def weight(self, batch: Batch) -> Tensor: ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor: ...

    def metrics(self) -> Metrics: ...


TASKS: dict[str, Callable[..., Task]] = {
    "inpainting": Inpainting,
    "classification": Classification,
    "segmentation": Segmentation,
}
