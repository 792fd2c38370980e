"""This process's share of the machine's processor cores."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")


def cores() -> int:
    """Processor cores this process may use: those it may run on, and no more than its control groups' quotas."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *(max(1, math.ceil(quota)) for quota in _quotas())])


def _quotas() -> Iterator[float]:
    """Cores that each control group above this process, of either version, lets it have.

    A container sees its own group as the root, whatever path the kernel names: all folders up to that are looked at.
    """
    groups, mounts = SYSTEM / "proc/self/cgroup", SYSTEM / "sys/fs/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = mounts / "cpu" if controllers else mounts
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount) and (quota := _quota(folder)) is not None:
                yield quota


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
