"""How long runs will take: what they took before where a record says so, else counted work over the machine's own speed."""

import time
from collections.abc import Iterable

import torch

from afno_repro.config import Machine, RunConfig
from afno_repro.data import load_data
from afno_repro.errors import AfnoError
from afno_repro.models import build_model
from afno_repro.profiling.flops import CountingRule, count
from afno_repro.suite.plan import Run
from afno_repro.suite.store import Record

FORWARD_AND_BACKWARD = 3  # a training step's work in forward passes


def estimated_seconds(runs: list[Run], before: Iterable[Record], machine: Machine) -> dict[str, tuple[float | None, str]]:
    """Seconds by digest, and what the estimate rests on; None where the data are absent."""
    taken = {record.digest: record for record in before}
    speed: float | None = None
    estimates: dict[str, tuple[float | None, str]] = {}
    for run in runs:
        record = taken.get(run.digest)
        if record is not None:
            estimates[run.digest] = record.provenance["seconds"], f"as before on {record.provenance['device']}"
            continue
        work = flops(run.config, machine)
        if work is None:
            estimates[run.digest] = None, "its data are absent"
            continue
        speed = speed or flops_per_s(machine)
        estimates[run.digest] = work / speed, f"at least, at {speed / 1e9:.0f} GFLOP/s of matrix products"
    return estimates


def flops(config: RunConfig, machine: Machine) -> float | None:
    """Floating-point operations of a run's network; a baseline's and a count's are not worth counting."""
    if config.model is None or config.task.name == "count":
        return 0.0
    with torch.device("meta"):
        model = build_model(config.model, config.data.image_size)
    forward = (
        1e9 * count(model, config.data.image_size, CountingRule(attention_products=2, conv_bias=True, inner_norm=0, upsampling=0, mixer_fft=0.0)).gflops_full
    )
    if config.train is None:
        passes = config.task.options["batch_size"] * (config.task.options["warmup"] + config.task.options["repeats"])
        return float(forward * passes)
    try:
        images, _ = load_data(config.data, machine.data_root)
    except AfnoError:
        return None
    return float(FORWARD_AND_BACKWARD * forward * len(images) * config.train.epochs)


def flops_per_s(machine: Machine) -> float:
    """The speed of a large matrix product with the threads of one run."""
    torch.set_num_threads(machine.threads)
    side, best = 1024, float("inf")
    a, b = torch.randn(side, side, device=machine.device), torch.randn(side, side, device=machine.device)
    for _ in range(3):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
