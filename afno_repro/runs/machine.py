"""The machine at hand, as far as runs care: its devices, how many runs go side by side, the threads of each."""

import re
import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from afno_repro.config import Machine
from afno_repro.errors import ConfigError, DataError
from afno_repro.host import cores
from afno_repro.runs.devices import find_device, gpu_count
from afno_repro.runs.source import code_version
from afno_repro.runs.store import is_latency
from afno_repro.spec.plan import Run
from afno_repro.spec.resolve import TRAINED

COMPILERS = ("g++", "clang++")  # that torch.compile looks for
CHECKPOINT_EVERY_S = 600.0


@dataclass(frozen=True)
class Asked:
    """What the command line says of the machine; `jobs` None is a sensible number."""

    device: str = "auto"  # auto, cpu, cuda or cuda:N
    devices: int = 1  # on each node
    nodes: int = 1
    jobs: int | None = None
    per_gpu: int = 1  # runs side by side on each GPU, where `jobs` is not said
    workers: int | None = None  # None: a GPU's share of the cores, 0 on a CPU
    micro_batch: int | None = None
    activation_checkpointing: bool = False
    compile: bool = False
    log: str | None = None  # tensorboard
    worker: bool = False  # whether what other commands hold is waited for, as long as it takes
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    visible: str = ""  # the GPUs that this process may use, as its environment names them; empty: all
    placed: bool = False  # a scheduler started this process, and may show it its own GPU alone


def find_machine(asked: Asked, data_root: Path, runs_root: Path) -> Machine:
    """What runs are done with; `jobs` defaults to the CPU's cores, or to `per_gpu` for each GPU with runs of its own.

    Runs side by side share the cores out as threads. Raises ConfigError for what no machine has, DataError for a CUDA
    device that is not there, ModuleNotFoundError for a log whose package is not installed.
    """
    if asked.log not in (None, "tensorboard"):
        raise ConfigError(f"--log {asked.log}: must be tensorboard; log.csv is always written")
    if asked.log is not None and find_spec("tensorboard") is None:
        raise ModuleNotFoundError(name="tensorboard")
    if not re.fullmatch("auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?", asked.device):
        raise ConfigError(f"--device {asked.device}: must be auto, cpu, cuda or one of several GPUs, as in cuda:1")
    together = asked.devices * asked.nodes
    if together > 1 and (asked.jobs or 1) > 1:
        raise ConfigError(f"--jobs {asked.jobs}: must be 1 where {together} devices share every run")
    if together > 1 and ":" in asked.device:
        raise ConfigError(f"--device {asked.device}: must be cuda where {together} devices share every run")
    chosen = find_device(asked.device)
    gpus = 0 if chosen == "cpu" else gpu_count()
    if gpus and asked.devices > gpus and not (asked.placed and gpus == 1):  # it may have been given one of its own
        raise DataError(f"--devices {asked.devices}: this process sees {gpus} CUDA devices")
    if asked.compile and not any(map(shutil.which, COMPILERS)):
        raise DataError(
            f"--compile: needs a C++ compiler, {' or '.join(COMPILERS)}, and none is installed here\n"
            "  the same command without it needs none"
        )
    names = tuple(asked.visible.split(",") if asked.visible else map(str, range(gpus)))
    names = names if gpus and all(name.startswith("MIG") for name in names) else names[:gpus]  # of those one is seen
    spread = names if chosen == "cuda" and together == 1 else ()
    jobs = asked.jobs or (1 if together > 1 else max(1, len(spread)) * asked.per_gpu if gpus else cores())
    workers = asked.workers
    if workers is None:
        sharing = jobs if asked.placed else max(gpus, jobs, asked.devices)  # the cores that this process has
        workers = max(1, cores() // sharing) if gpus else 0
    return Machine(
        device=chosen,
        devices=together,
        micro_batch=asked.micro_batch,
        fitted=False,
        activation_checkpointing=asked.activation_checkpointing,
        compile=asked.compile,
        jobs=jobs,
        gpus=spread,
        threads=max(1, cores() // max(jobs, asked.devices)),
        num_workers=workers,
        data_root=data_root,
        runs_root=runs_root,
        tensorboard=asked.log is not None,
        worker=asked.worker,
        checkpoint_every_s=asked.checkpoint_every_s,
        code=code_version(),
    )


def on(machine: Machine, run: Run) -> Machine:
    """The machine as a run finds it: devices train together and do nothing else together; a latency has all cores."""
    machine = machine if run.config.kind in TRAINED else replace(machine, devices=1)
    return replace(machine, threads=cores()) if is_latency(run) else machine
