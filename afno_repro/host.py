"""This process's share of its host: processor cores and memory, no more than its control groups let it have."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")
LIMITS = (("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))  # v2, v1


def cores() -> int:
    """Processor cores this process may use: those it may run on, and no more than its control groups' quotas."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = filter(None, map(_quota, _groups("cpu")))
    return min([allowed, *(max(1, math.ceil(quota)) for quota in quotas)])


def memory_bytes() -> tuple[int, int] | None:
    """What can still be taken of the memory, and all there is of it; None where nobody knows."""
    try:
        kib = _numbers(SYSTEM / "proc/meminfo")
        host = (1024 * kib["MemAvailable"], 1024 * kib["MemTotal"])
    except (OSError, ValueError, KeyError):
        return None
    left, total = zip(host, *filter(None, map(_memory, _groups("memory"))), strict=True)
    return max(0, min(left)), min(total)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups above this process, of either version, that may limit something.

    A container sees its own group as the root, whatever path the kernel names: all folders up to that are looked at.
    """
    groups, mounts = SYSTEM / "proc/self/cgroup", SYSTEM / "sys/fs/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = mounts / controller if controllers else mounts
        group = mount / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _quota(folder: Path) -> float | None:
    """Cores that one control group allows; None where it sets no limit."""
    try:
        if (file := folder / "cpu.max").is_file():
            limit, period = file.read_text().split()
        else:
            limit, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _memory(folder: Path) -> tuple[int, int] | None:
    """What one control group has left, and its limit; None where it sets none. What files only cache can be taken."""
    for limit, used, total in LIMITS:
        try:
            most, held = (int((folder / name).read_text()) for name in (limit, used))
            kept = _numbers(folder / "memory.stat")
            return most - held + sum(kept.get(f"{total}{kind}_file", 0) for kind in ("active", "inactive")), most
        except (OSError, ValueError):  # of another version, or `max`
            continue
    return None


def _numbers(file: Path) -> dict[str, int]:
    """The numbers of a file of the kernel's, each behind its name."""
    lines = (line.replace(":", " ").split() for line in file.read_text().splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1}
