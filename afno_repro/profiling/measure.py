"""Latency and memory of a model on the machine at hand."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from afno_repro.errors import require
from afno_repro.memory import peak_mib, start_peak
from afno_repro.precision import autocast, set_precision


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
    images = torch.randn(how.batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(
        device
    )
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


@dataclass(frozen=True)
class Measurement:
    """What running a model took: median and sample standard deviation of one pass in seconds, peak memory in MiB.

    Peak memory is the allocator's peak on CUDA and the growth of the process's peak resident memory on a CPU; None
    where it cannot be read.
    """

    latency_s: float
    latency_spread_s: float | None
    peak_memory_mib: float | None


def measure(
    model: nn.Module, images: torch.Tensor, backward: bool, precision: str, budget_s: float, most: int
) -> Measurement:
    """Run as many passes as fit into budget_s, at most `most`; the first warms up, unless it is the only one."""
    device = images.device
    set_precision(precision, device)
    model = model.to(device).train(backward)
    times: list[float] = []
    before = start_peak(device)
    while not times or (len(times) < most and sum(times) + max(times) <= budget_s):
        _wait(device)
        start = time.perf_counter()
        with torch.set_grad_enabled(backward), autocast(device, precision):
            output = model(images)
        if backward:
            model.zero_grad(set_to_none=True)
            output.float().square().mean().backward()
        _wait(device)
        times.append(time.perf_counter() - start)
    kept = times[1:] or times
    peak = peak_mib(device)
    if device.type == "cpu" and peak is not None:
        peak = None if before is None else peak - before / 1024
    return Measurement(statistics.median(kept), statistics.stdev(kept) if len(kept) > 1 else None, peak)
