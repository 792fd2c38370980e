"""The GPUs of a machine that torch can use, and which device a command takes."""

from collections.abc import Mapping
from pathlib import Path

from afno_repro.config import Machine
from afno_repro.errors import DataError
from afno_repro.host import cores
from afno_repro.runs.provenance import device_name, installed

DEV = Path("/dev")
FILES = ("nvidia[0-9]*", "dxg", "kfd")  # NVIDIA's GPUs, of which a container may have any; those of WSL 2; of ROCm


def visible(environment: Mapping[str, str]) -> str:
    """The variable that says which GPUs a process sees: ROCm heeds one of its own before CUDA's."""
    own = "HIP_VISIBLE_DEVICES"
    return own if own in environment and (DEV / "kfd").exists() else "CUDA_VISIBLE_DEVICES"


def gpu_files() -> list[Path]:
    """The device files of GPUs that this process sees."""
    return sorted(path for pattern in FILES for path in DEV.glob(pattern))


def gpu_count() -> int:
    """How many GPUs torch can use here: those left visible. It is asked only where there is a GPU's device file."""
    if not gpu_files():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def find_device(asked: str) -> str:
    """cpu, cuda or cuda:N, as asked; auto is a GPU where torch can use one.

    Raises DataError for a GPU that is not there, or not visible to this process.
    """
    kind, _, index = asked.partition(":")
    gpus = 0 if kind == "cpu" else gpu_count()
    if kind == "cuda" and not gpus:
        files = ", ".join(map(str, gpu_files()))
        useless = f"; torch {installed('torch')} cannot use {files}" if files else ""
        raise DataError(
            f"--device {asked}: there is no CUDA device that torch can use here{useless}\n"
            "  --device cpu runs without one"
        )
    if index and int(index) >= gpus:
        raise DataError(f"--device {asked}: this process sees {gpus} CUDA devices, the first is cuda:0")
    return asked if kind != "auto" else "cuda" if gpus else "cpu"


def told(machine: Machine) -> str:
    """A sentence on the devices that a command takes, and on the GPUs that it leaves."""
    if machine.jobs > 1 and machine.gpus:  # whose names are left to those that use them
        return f"on {min(machine.jobs, len(machine.gpus))} GPUs, {machine.jobs} runs side by side"
    if machine.device != "cpu":
        beside = f", {machine.jobs} runs side by side" if machine.jobs > 1 else ""
        return f"on {device_name(machine.device)} ({machine.device}, {gpu_count()} visible){beside}"
    files = ", ".join(map(str, gpu_files()))
    return f"on the CPU, {cores()} cores" + (f"; torch {installed('torch')} leaves {files} unused" if files else "")
