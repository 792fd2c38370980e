"""The machine at hand, as far as runs care: its devices, how many runs go side by side, the threads of each."""

import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from afno_repro.config import Machine
from afno_repro.errors import ConfigError, DataError
from afno_repro.runs.provenance import cores
from afno_repro.runs.source import code_version
from afno_repro.runs.store import is_latency
from afno_repro.spec.plan import Run

COMPILERS = ("g++", "clang++")  # that torch.compile looks for
CHECKPOINT_EVERY_S = 600.0  # besides the one at each epoch's end


@dataclass(frozen=True)
class Asked:
    """What the command line says of the machine; `jobs` None is a sensible number."""

    device: str = "auto"  # auto, cpu or cuda
    devices: int = 1  # on each node
    nodes: int = 1
    jobs: int | None = None
    workers: int = 0
    micro_batch: int | None = None
    activation_checkpointing: bool = False
    compile: bool = False
    log: str | None = None  # tensorboard


def find_machine(asked: Asked, data_root: Path, runs_root: Path) -> Machine:
    """What runs are done with; `jobs` defaults to the CPU's cores, or to one on a GPU or several devices.

    Runs side by side share the cores out as threads. Raises ConfigError for what no machine has, DataError for a CUDA
    device that is not there, ModuleNotFoundError for a log whose package is not installed.
    """
    if asked.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {asked.device}: must be auto, cpu or cuda")
    if asked.log not in (None, "tensorboard"):
        raise ConfigError(f"--log {asked.log}: must be tensorboard; log.csv is always written")
    if asked.log is not None and find_spec("tensorboard") is None:
        raise ModuleNotFoundError(name="tensorboard")
    together = asked.devices * asked.nodes
    if together > 1 and (asked.jobs or 1) > 1:
        raise ConfigError(f"--jobs {asked.jobs}: must be 1 where {together} devices share every run")
    chosen = "cuda" if asked.device != "cpu" and cuda_exists() else "cpu"
    if asked.device == "cuda" and chosen == "cpu":
        raise DataError(
            "--device cuda: there is no CUDA device that torch can use here\n  --device cpu runs without one"
        )
    if chosen == "cuda" and asked.devices > cuda_count():
        raise DataError(f"--devices {asked.devices}: this machine has {cuda_count()} CUDA devices")
    if asked.compile and not any(map(shutil.which, COMPILERS)):
        raise DataError(
            f"--compile: needs a C++ compiler, {' or '.join(COMPILERS)}, and none is installed here\n"
            "  the same command without it needs none"
        )
    jobs = asked.jobs or (cores() if chosen == "cpu" and together == 1 else 1)
    return Machine(
        device=chosen,
        devices=together,
        micro_batch=asked.micro_batch,
        activation_checkpointing=asked.activation_checkpointing,
        compile=asked.compile,
        jobs=jobs,
        threads=max(1, cores() // max(jobs, asked.devices)),
        num_workers=asked.workers,
        data_root=data_root,
        runs_root=runs_root,
        checkpoint_every_s=CHECKPOINT_EVERY_S,
        tensorboard=asked.log is not None,
        code=code_version(runs_root),
    )


def cuda_exists() -> bool:
    """Whether torch can use an NVIDIA device; torch is asked only where there is one."""
    if not Path("/dev/nvidia0").exists():
        return False
    import torch

    return torch.cuda.is_available()


def cuda_count() -> int:
    """The CUDA devices of this machine."""
    import torch

    return torch.cuda.device_count()


def on(machine: Machine, run: Run) -> Machine:
    """The machine as a run finds it: a latency has all cores."""
    return replace(machine, threads=cores()) if is_latency(run) else machine
