"""What runs will take, before any of them: steps, time, memory of a device and disk, also where the data are absent.

    time    what a record of the very same run on the same kind of device says, else counted operations over the speed
            of a matrix product here
    memory  weights, gradients and Adam's two moments (16 bytes a parameter), what a forward pass keeps, and as
            much as the largest operator reads and writes, whose gradients come at once (profiling/kept.py)
    disk    two checkpoints of weights and moments (12 bytes a parameter each), and the final weights

Nothing is trained or loaded for it.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from afno_repro.config import DataConfig, Machine, RunConfig
from afno_repro.data import load_data
from afno_repro.errors import AfnoError
from afno_repro.fills import FILLS
from afno_repro.precision import set_precision
from afno_repro.profiling.kept import Network, network, precision_of
from afno_repro.runs.machine import on
from afno_repro.runs.provenance import device_name
from afno_repro.runs.record import Record
from afno_repro.spec.plan import Run
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.tasks.segmentation import Segmentation
from afno_repro.threads import use_threads
from afno_repro.training.checkpoint import KEPT

FORWARD_AND_BACKWARD = 3  # a training step's work in forward passes; one more where activations are computed again
# Training and validation images as published. The paper states DatasetGAN's training images (Zhang et al. 2021); its
# test images are approximate.
PUBLISHED = {
    "imagenet": (1_281_167, 50_000),
    "cityscapes": (2975, 500),
    "camvid/val": (367, 101),
    "camvid/test": (367, 233),
    "datasetgan/face": (16, 20),
    "datasetgan/car": (16, 20),
    "datasetgan/cat": (30, 20),
}
# Height and width of images that are evaluated whole, in windows.
FRAMES = {"cityscapes": (1024, 2048), "camvid": (360, 480)}


@dataclass(frozen=True)
class Estimate:
    """What a run will take; None is unknown, or nothing. Memory is that of one device."""

    steps: int | None = None
    device_s: float | None = None  # if one device did it
    wall_s: float | None = None  # from start to end, as if sharing among devices were free
    memory_bytes: float | None = None
    disk_bytes: float | None = None
    basis: str = ""  # of the time
    published_sizes: str = ""  # what stands in for absent data

    @property
    def costs(self) -> dict[str, int | float | str | None]:
        """For an answer of the command line."""
        hours = None if self.device_s is None else self.device_s / 3600
        memory, disk = (None if size is None else size / 2**30 for size in (self.memory_bytes, self.disk_bytes))
        numbers = {
            "steps": self.steps,
            "estimate_s": self.wall_s,
            "device_hours": hours,
            "memory_gib": memory,
            "disk_gib": disk,
        }
        return {**numbers, "basis": self.basis, "published_sizes": self.published_sizes}


def estimates(runs: Iterable[Run], before: Iterable[Record], machine: Machine) -> dict[str, Estimate]:
    """By digest. A record counts for its own digest and device alone: another scale, size or length is another run."""
    device = device_name(machine.device)
    ended = [record for record in before if record.outcome == "ok"]
    taken = {r.digest: r for r in ended if {made["device"] for made in r.stretches} == {device}}
    networks: dict[str, Network] = {}
    sizes: dict[str, tuple[tuple[int, int] | None, str]] = {}
    found: dict[str, Estimate] = {}
    for run in runs:
        config, fed, at = run.config, repr(run.config.data), on(machine, run)
        model = repr((config.model, config.data.image_size, config.task, precision_of(config)))
        if config.data.name is not None and fed not in sizes:
            sizes[fed] = image_counts(config.data, machine)
        if config.model is not None and not config.counted and model not in networks:
            networks[model] = network(config)
        images, published = sizes.get(fed, (None, ""))
        estimate = replace(_estimate(config, images, networks.get(model), at), published_sizes=published)
        if (record := taken.get(run.digest)) is not None:
            estimate = replace(estimate, device_s=record.device_seconds, basis=f"as before on {device}")
        wall_s = None if estimate.device_s is None else estimate.device_s / at.devices
        found[run.digest] = replace(estimate, wall_s=wall_s)
    return found


def total(parts: list[Estimate], wall_s: float) -> Estimate:
    """The sums of what is known, the largest memory, and the time from the first start to the last end."""

    def known(key: str) -> list[float]:
        return [number for part in parts if (number := getattr(part, key)) is not None]

    return Estimate(
        sum(part.steps or 0 for part in parts),
        sum(known("device_s")),
        wall_s,
        max(known("memory_bytes"), default=None),
        sum(known("disk_bytes")),
    )


def _estimate(config: RunConfig, images: tuple[int, int] | None, net: Network | None, machine: Machine) -> Estimate:
    """All but the end-to-end time, from counts alone."""
    if config.kind == "baseline":
        seconds = None if images is None else images[1] * fill_seconds(config)
        return Estimate(device_s=seconds, basis="of a filling: that of one image on this machine, times images")
    if config.counted or net is None:
        return Estimate(device_s=0.0)
    precision = precision_of(config)
    speed = product_flops_per_s(machine.device, machine.threads, precision)
    threads = f", {machine.threads} threads" if machine.threads > 1 else ""
    basis = f"at the speed of this machine's matrix products, {speed / 1e9:.0f} GFLOP/s ({precision}{threads})"
    if config.kind == "visualize":
        return Estimate(
            device_s=config.task.options["images"] * net.flops / speed,
            memory_bytes=4 * net.params + net.largest_bytes,
            basis=basis,
        )
    if config.train is None:
        passes, batch = (
            sum(config.task.options[key] for key in ("warmup", "repeats")),
            config.task.options["batch_size"],
        )
        return Estimate(
            device_s=passes * batch * net.flops / speed,
            memory_bytes=4 * net.params + batch * net.largest_bytes,
            basis=basis,
        )
    estimate = Estimate(
        memory_bytes=memory_bytes(net, config.train.batch_size, machine), disk_bytes=disk_bytes(net.params)
    )
    if images is None:
        return replace(estimate, basis="unknown where the data are absent and no size is published")
    steps = config.train.epochs * (images[0] // config.train.batch_size)
    again = machine.activation_checkpointing and net.has_blocks
    trained = (FORWARD_AND_BACKWARD + again) * steps * config.train.batch_size
    evaluated = -(-config.train.epochs // config.train.eval_every) * images[1] * windows(config)
    return replace(estimate, steps=steps, device_s=net.flops * (trained + evaluated) / speed, basis=basis)


def image_counts(data: DataConfig, machine: Machine) -> tuple[tuple[int, int] | None, str]:
    """Training and validation images: those there, else the published ones and a word about them, else None."""
    try:
        train, validation = load_data(data, machine.data_root)
        return (len(train), len(validation)), ""
    except AfnoError:
        part = data.options.get("part", data.options.get("validation"))
        name = f"{data.name}/{part}" if part else str(data.name)
        if name not in PUBLISHED:
            return None, ""
    whole, validated = PUBLISHED[name]
    trained, about = max(1, round(whole * (data.fraction or 1.0))), "about " if data.name == "datasetgan" else ""
    return (trained, validated), f"{name}, {trained:,} images to train on and {about}{validated:,} to evaluate on"


def windows(config: RunConfig) -> int:
    """Forward passes that evaluating one image takes."""
    frame = FRAMES.get(config.data.name or "")
    if config.task.name != "segmentation" or frame is None:
        return 1
    task = Segmentation(config.data.image_size, **config.task.options)
    return math.prod(len(task.starts(max(side, task.image_size))) for side in frame)


def memory_bytes(net: Network, batch_size: int, machine: Machine) -> int:
    """Of one device in training, with its largest micro-batch."""
    share = -(-batch_size // machine.devices)
    images = min(share, machine.micro_batch or share)
    return net.training_bytes(images, machine.device, machine.activation_checkpointing)


def disk_bytes(params: int) -> int:
    """Checkpoints, which go when a run is finished, and weights, which stay."""
    return KEPT * 3 * 4 * params + 4 * params


def fill_seconds(config: RunConfig) -> float:
    """Filling and scoring one image, as a baseline does."""
    options = {key: value for key, value in config.task.options.items() if key != "fill"}
    task, side = Inpainting(config.data.image_size, **options), config.data.image_size
    rng = np.random.default_rng(0)
    image, mask = task.enter(
        task.prepare((torch.from_numpy(rng.integers(0, 256, (3, side, side), dtype=np.uint8)), None), rng)
    )
    metrics, start = task.metrics(), time.perf_counter()
    filled = FILLS[config.task.options["fill"]](image.double().numpy(), mask.numpy())
    metrics.add(*task.scored(torch.from_numpy(filled)[None].float(), (image[None], mask[None])))
    return time.perf_counter() - start


@cache
def product_flops_per_s(device: str, threads: int, precision: str) -> float:
    """The best of a few large matrix products with the threads of one run; a network is slower."""
    use_threads(threads)
    set_precision(precision, torch.device(device))
    side, best = 1024 if device == "cpu" else 8192, float("inf")
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    for _ in range(5):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
