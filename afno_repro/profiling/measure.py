"""Latency of a forward pass on the machine at hand, and the machine's name."""

import time

import torch
from torch import nn

from afno_repro.errors import require


def latency_s(model: nn.Module, image_size: int, batch_size: int, warmup: int, repeats: int, device: torch.device) -> list[float]:
    """Seconds of each of `repeats` forward passes of one batch, after `warmup` passes that are not kept."""
    require((batch_size > 0, "batch_size", "must be at least 1"), (warmup >= 0, "warmup", "must be at least 0"), (repeats > 0, "repeats", "must be at least 1"))
    model = model.to(device).eval()
    images = torch.randn(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
    times = []
    with torch.inference_mode():
        for _ in range(warmup + repeats):
            _wait(device)
            start = time.perf_counter()
            model(images)
            _wait(device)
            times.append(time.perf_counter() - start)
    return times[warmup:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
