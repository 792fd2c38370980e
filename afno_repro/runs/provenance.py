"""What a number was made with: code, packages, device."""

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from afno_repro.config import Machine
from afno_repro.host import cores

PACKAGES = (
    "afno_repro",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "matplotlib",
    "pillow",
)


def provenance(device: str, machine: Machine, seconds: float, data: str | None) -> dict[str, Any]:
    """What a number was made with: code, packages, device, its share of it, threads, time, the data's fingerprint."""
    return {
        **machine.code,
        "packages": {name: installed(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": device,
        "devices": machine.devices,
        "micro_batch": machine.micro_batch,
        "fitted": machine.fitted,
        "activation_checkpointing": machine.activation_checkpointing,
        "compile": machine.compile,
        "threads": machine.threads,
        "num_workers": machine.num_workers,
        "seconds": round(seconds, 1),
        "data": data,
    }


def stretches(before: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a run was made with, oldest first; what goes on with the same is one stretch, of the seconds of both."""
    if not before or {**before[-1], "seconds": None} != {**now, "seconds": None}:
        return [*before, now]
    return [*before[:-1], {**now, "seconds": round(before[-1]["seconds"] + now["seconds"], 1)}]


@cache
def installed(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def device_name(device: str) -> str:
    """The processor's or the GPU's own name."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()} ({cores()} cores)"
