"""The machine at hand, as far as runs care: its device, how many runs go side by side, the threads of each."""

from pathlib import Path

from afno_repro.config import Machine
from afno_repro.errors import ConfigError, DataError
from afno_repro.suite.store import cores

CHECKPOINT_EVERY_S = 600.0  # besides the one at each epoch's end


def find_machine(device: str, jobs: int | None, workers: int, data_root: Path, runs_root: Path) -> Machine:
    """`device` is auto, cpu or cuda; `jobs` defaults to the CPU's cores, to 1 on a GPU, and shares the cores out as threads.

    Raises ConfigError for another device's name, DataError for a CUDA device that is not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}: must be auto, cpu or cuda")
    chosen = "cuda" if device != "cpu" and cuda_exists() else "cpu"
    if device == "cuda" and chosen == "cpu":
        raise DataError("--device cuda: there is no CUDA device that torch can use here\n  --device cpu runs without one")
    side_by_side = jobs or (cores() if chosen == "cpu" else 1)
    return Machine(chosen, side_by_side, max(1, cores() // side_by_side), workers, data_root, runs_root, CHECKPOINT_EVERY_S)


def cuda_exists() -> bool:
    """Whether torch can use an NVIDIA device; torch is asked only where there is one."""
    if not Path("/dev/nvidia0").exists():
        return False
    import torch

    return torch.cuda.is_available()
