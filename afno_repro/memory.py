"""Memory: what can still be taken, the most there was, what others hold, and whether an error says there is none."""

import gc
from pathlib import Path

import torch

from afno_repro import host
from afno_repro.errors import no_memory

OWN_BYTES = 2 * 2**30  # of a GPU that a process holds besides its tensors: its context, its libraries' working space


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is the device's or the host's refusal of memory."""
    return isinstance(error, torch.OutOfMemoryError) or no_memory(error)


def available_bytes(device: torch.device, sharing: int = 1) -> int | None:
    """Memory that can still be taken, an equal part by each of those sharing it; None where nobody knows."""
    if device.type == "cuda":
        gc.collect()  # a network whose blocks are computed in another way holds itself
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return min(int(free), int(total) // sharing)
    found = host.memory_bytes()
    return None if found is None else min(found[0], found[1] // sharing)


def held_by_others_bytes(device: torch.device) -> int:
    """What other processes hold of a GPU, at least; 0 of the host's memory, which is always shared."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return max(0, int(total - free - torch.cuda.memory_reserved(device) - OWN_BYTES))


def start_peak(device: torch.device) -> int | None:
    """Forget the peak so far; returns the resident memory in KiB on a CPU, None where it cannot be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return None
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak resident memory
    except OSError:
        return None
    return _proc_kib("/proc/self/status", "VmRSS")


def peak_mib(device: torch.device) -> float | None:
    """The most memory since `start_peak`: the allocator's on a GPU, resident on a CPU; None where it cannot be read."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kib = _proc_kib("/proc/self/status", "VmHWM")
    return None if kib is None else kib / 1024


def _proc_kib(file: str, key: str) -> int | None:
    path = Path(file)
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)
