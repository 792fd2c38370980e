"""Latency of a forward pass on the machine at hand."""

import time
from dataclasses import dataclass

import torch
from torch import nn

from afno_repro.errors import require


@dataclass(frozen=True)
class Latency:
    """How latency is measured: `repeats` forward passes of one batch, after `warmup` passes that are not kept."""

    batch_size: int
    warmup: int
    repeats: int

    def __post_init__(self) -> None:
        require(
            (self.batch_size > 0, "batch_size", "latency: must be at least 1"),
            (self.warmup >= 0, "warmup", "latency: must be at least 0"),
            (self.repeats > 0, "repeats", "latency: must be at least 1"),
        )


def latencies_s(model: nn.Module, image_size: int, how: Latency, device: torch.device) -> list[float]:
    """Seconds of each forward pass."""
    model = model.to(device).eval()
    images = torch.randn(how.batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
    times = []
    with torch.inference_mode():
        for _ in range(how.warmup + how.repeats):
            _wait(device)
            start = time.perf_counter()
            model(images)
            _wait(device)
            times.append(time.perf_counter() - start)
    return times[how.warmup :]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
