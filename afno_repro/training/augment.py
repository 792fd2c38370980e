"""From an example to a training sample: the augmentation that a recipe names, then the task's preparation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from afno_repro.config import TrainConfig
from afno_repro.data.transforms import AUGMENTS, Example
from afno_repro.tasks import Task


def augmented(recipe: TrainConfig, image_size: int, task: Task) -> Callable[[Example, np.random.Generator], Any]:
    """The augmentation that the recipe names, then the task's preparation."""
    options = {key: value for key, value in recipe.augment.items() if key != "name"}
    return _Prepared(recipe.augment["name"], options, image_size, task)


@dataclass(frozen=True)
class _Prepared:
    """A picklable composition of augmentation and preparation, for the loader's workers."""

    augment: str
    options: dict[str, Any]
    image_size: int
    task: Task

    def __call__(self, example: Example, rng: np.random.Generator) -> Any:
        return self.task.prepare(AUGMENTS[self.augment](example, self.image_size, rng, **self.options), rng)
