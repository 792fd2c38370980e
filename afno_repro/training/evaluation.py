"""A model's metrics over all validation images, each counted once, however many processes share them."""

import torch
from torch import nn

from afno_repro.config import Machine, RunConfig
from afno_repro.data.loader import loader
from afno_repro.data.samples import VALIDATION, Images, Key, Samples, validation_batches
from afno_repro.precision import autocast
from afno_repro.tasks import Batch, Task
from afno_repro.training import engine


def evaluate(
    model: nn.Module, task: Task, validation: Images, config: RunConfig, machine: Machine, device: torch.device
) -> dict[str, float]:
    """The task's metrics over all validation images."""
    assert config.train is not None
    metrics = task.metrics()
    prepared = to_evaluate(task, validation, config, at_a_time(config, machine))
    engine.same_buffers(model)
    model.eval()
    with torch.inference_mode(), autocast(device, config.train.precision):
        for batch in loader(*prepared, machine.num_workers, pin_memory=False):
            metrics.update(model, task.enter(tuple(part.to(device) for part in batch)))
    model.train()
    merged = task.metrics()
    for seen in engine.gathered(metrics.seen()):
        merged.merge(seen)
    return merged.compute()


def at_a_time(config: RunConfig, machine: Machine) -> int:
    """How many images a process evaluates at a time: as many as it trains on."""
    assert config.train is not None
    return machine.micro_batch or max(1, config.train.batch_size // engine.ranks())


def to_evaluate(task: Task, validation: Images, config: RunConfig, batch_size: int) -> tuple[Samples, list[list[Key]]]:
    """The validation images as a network sees them, and this process's batches of them.

    Their random numbers are fixed by the data's seed: the same for every row and seed. Images of several sizes come one
    at a time.
    """
    batch_size = batch_size if len(validation.sizes()) == 1 else 1
    samples = Samples(validation, task.prepare, config.data.seed or 0, VALIDATION)
    return samples, validation_batches(len(validation), batch_size)[engine.rank() :: engine.ranks()]


def parts_of(batch: Batch, batch_size: int, micro_batch: int | None) -> list[Batch]:
    """A process's share of a batch, cut into as many parts as all of them cut theirs into.

    Batch norm's statistics are averaged part by part, so that nobody may have one more. A part has at most
    `micro_batch` samples; where that is one and shares differ, two.
    """
    smallest, largest = batch_size // engine.ranks(), -(-batch_size // engine.ranks())
    parts = 1 if micro_batch is None else min(-(-largest // micro_batch), smallest)
    return list(zip(*(torch.tensor_split(part, parts) for part in batch), strict=True))
