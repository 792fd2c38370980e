"""A model's metrics over all validation images, each counted once, however many processes share them."""

from typing import Any

import torch
from torch import nn

from afno_repro.config import Machine, RunConfig
from afno_repro.data.loader import loader
from afno_repro.data.samples import VALIDATION, Images, Samples, validation_batches
from afno_repro.precision import autocast
from afno_repro.tasks import Batch, Task
from afno_repro.training import engine


def evaluate(
    model: nn.Module, task: Task, validation: Images, config: RunConfig, machine: Machine, device: torch.device
) -> dict[str, float]:
    """The task's metrics over all validation images."""
    assert config.train is not None
    metrics = task.metrics()
    size = machine.micro_batch or max(1, config.train.batch_size // engine.ranks())
    engine.same_buffers(model)
    model.eval()
    with torch.inference_mode(), autocast(device, config.train.precision):
        for batch in validation_loader(task, validation, config, size, machine.num_workers):
            metrics.update(model, task.enter(tuple(part.to(device) for part in batch)))
    model.train()
    merged = task.metrics()
    for seen in engine.gathered(metrics.seen()):
        merged.merge(seen)
    return merged.compute()


def validation_loader(task: Task, validation: Images, config: RunConfig, batch_size: int, num_workers: int) -> Any:
    """This process's batches of the validation images, prepared.

    Their random numbers are fixed by the data's seed: the same for every row and seed. Images of several sizes come one
    at a time.
    """
    batch_size = batch_size if len(validation.sizes()) == 1 else 1
    samples = Samples(validation, task.prepare, config.data.seed or 0, VALIDATION)
    mine = validation_batches(len(validation), batch_size)[engine.rank() :: engine.ranks()]
    return loader(samples, mine, num_workers, pin_memory=False)


def parts_of(batch: Batch, micro_batch: int | None) -> list[Batch]:
    """A batch cut into parts of at most `micro_batch` samples."""
    if micro_batch is None:
        return [batch]
    return list(zip(*(torch.split(part, micro_batch) for part in batch), strict=True))
