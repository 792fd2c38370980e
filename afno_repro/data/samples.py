"""Which sample comes when, and with which random numbers: both follow from (seed, epoch, index) alone.

So neither the number of loader workers nor an interruption changes what a network sees.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset

from afno_repro.contents import Contents
from afno_repro.data.transforms import Example

TRAIN, VALIDATION, ORDER, MIX = 0, 1, 2, 3  # independent streams of random numbers
Key = tuple[int, int]  # epoch, index


class Images(Protocol):
    """Images with their labels; `num_classes` is None where there are no labels, `files` are those that they lie in.

    `sizes` are the heights and widths of the examples.
    """

    files: Sequence[Path]
    num_classes: int | None

    def fingerprint(self, contents: Contents) -> str:
        """SHA-256 of what images and labels are made of: each file's name and bytes."""
        ...

    def __len__(self) -> int: ...

    def sizes(self) -> set[tuple[int, int]]: ...

    def example(self, index: int, rng: np.random.Generator) -> Example: ...


def sample_rng(seed: int, stream: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample."""
    return np.random.default_rng([seed, stream, epoch, index])


def batch_rng(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step's whole batch, whoever works on its parts."""
    return np.random.default_rng([seed, MIX, step])


class Samples(Dataset[Any]):
    """Examples made into samples by `prepare`, each with its own random generator."""

    def __init__(self, images: Images, prepare: Callable[[Example, np.random.Generator], Any], seed: int, stream: int):
        self.images, self.prepare, self.seed, self.stream = images, prepare, seed, stream

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        rng = sample_rng(self.seed, self.stream, epoch, index)
        return self.prepare(self.images.example(index, rng), rng)


class TrainingBatches:
    """Keys of the batches from `start` steps on; each epoch is a permutation of the images, the rest dropped.

    Of every batch, process `rank` of `ranks` gets its share; with `before`, also the sample before it, the batch's last
    one before its first, so that each sample of a share has the one before it.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        epochs: int,
        seed: int,
        start: int,
        rank: int = 0,
        ranks: int = 1,
        before: bool = False,
    ):
        self.size, self.batch_size, self.seed, self.start = size, batch_size, seed, start
        self.share = range(rank * batch_size // ranks - before, (rank + 1) * batch_size // ranks)
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
            batch = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield [(epoch, int(batch[i])) for i in self.share]


def validation_batches(size: int, batch_size: int) -> list[list[Key]]:
    """Keys of all images once, in order."""
    return [[(0, i) for i in range(start, min(start + batch_size, size))] for start in range(0, size, batch_size)]
