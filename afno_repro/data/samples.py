"""Which sample comes when, and with which random numbers: both follow from (seed, epoch, index) alone.

So neither the number of loader workers nor an interruption changes what a network sees.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

TRAIN, VALIDATION, ORDER = 0, 1, 2  # independent streams of random numbers
Key = tuple[int, int]  # epoch, index


class Images(Protocol):
    """A set of images; `fingerprint` names its content."""

    fingerprint: str

    def __len__(self) -> int: ...

    def image(self, index: int, rng: np.random.Generator) -> Tensor: ...


class Samples(Dataset[Any]):
    """Images made into samples by `prepare`, each with its own random generator."""

    def __init__(self, images: Images, prepare: Callable[[Tensor, np.random.Generator], Any], seed: int, stream: int):
        self.images, self.prepare, self.seed, self.stream = images, prepare, seed, stream

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        rng = np.random.default_rng([self.seed, self.stream, epoch, index])
        return self.prepare(self.images.image(index, rng), rng)


class TrainingBatches:
    """Keys of the batches from `start` steps on; each epoch is a permutation of the images, the rest dropped."""

    def __init__(self, size: int, batch_size: int, epochs: int, seed: int, start: int):
        self.size, self.batch_size, self.seed, self.start = size, batch_size, seed, start
        self.per_epoch = size // batch_size
        self.total = epochs * self.per_epoch

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        order, ordered = np.empty(0, dtype=np.int64), -1
        for step in range(self.start, self.total):
            epoch, place = divmod(step, self.per_epoch)
            if epoch != ordered:
                order, ordered = np.random.default_rng([self.seed, ORDER, epoch]).permutation(self.size), epoch
            yield [(epoch, int(i)) for i in order[place * self.batch_size : (place + 1) * self.batch_size]]


def validation_batches(size: int, batch_size: int) -> list[list[Key]]:
    """Keys of all images once, in order."""
    return [[(0, i) for i in range(start, min(start + batch_size, size))] for start in range(0, size, batch_size)]


def loader(samples: Samples, batches: TrainingBatches | list[list[Key]], num_workers: int, pin_memory: bool) -> DataLoader[Any]:
    """Batches of samples, prepared by `num_workers` other processes (0: by this one)."""
    return DataLoader(samples, batch_sampler=batches, num_workers=num_workers, generator=Generator().manual_seed(0), pin_memory=pin_memory)
