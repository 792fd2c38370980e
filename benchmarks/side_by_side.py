"""Variants timed side by side: in one process, in an order that rotates every round; ratios within a round count."""

import csv
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

RESULTS = Path(os.environ.get("AFNO_BENCHMARKS", Path(__file__).parent / "results"))
FLUSH_MIB = 256  # more than any L2 cache
NO_TIME = "no time"
Case = TypeVar("Case")


class Timing(NamedTuple):
    """Median seconds of a variant, and how many times faster than the reference it is.

    The latter as the median over rounds, and the 10th and 90th percentile.
    """

    median_s: float
    ratio: float
    low: float
    high: float


def paced(cases: Iterable[Case], seconds: float) -> Iterator[tuple[Case, bool]]:
    """Case after case, each with whether as much time as the longest one took is left of so many seconds."""
    ends, longest = time.monotonic() + seconds, 0.0
    for case in cases:
        began = time.monotonic()
        yield case, began + longest <= ends
        longest = max(longest, time.monotonic() - began)


def timed(variants: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, Timing]:
    """Time all variants `rounds` times after one round that does not count; the first one is the reference."""
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            took = once(variants[name], device)
            if i:
                seconds[name].append(took)
    reference = seconds[names[0]]
    return {name: _timing(reference, each) for name, each in seconds.items()}


def _timing(reference: Sequence[float], seconds: Sequence[float]) -> Timing:
    ratios = sorted(one / other for one, other in zip(reference, seconds, strict=True))
    low, high = (ratios[round(share * (len(ratios) - 1))] for share in (0.1, 0.9))
    return Timing(statistics.median(seconds), statistics.median(ratios), low, high)


def once(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call; on CUDA by events, its caches emptied before."""
    if device.type != "cuda":
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    torch.empty(FLUSH_MIB * 2**20, dtype=torch.uint8, device=device).zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def write(name: str, device_name: str, title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> Path:
    """One benchmark's table as CSV and Markdown below benchmarks/results/DEVICE/; returns the Markdown file."""
    folder = RESULTS / "".join(c if c.isalnum() else "-" for c in device_name).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])
    rows = [header, ["---", *("---:" for _ in header[1:])], *lines]
    made = f"{device_name}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)"
    text = f"# {title}\n\n{made}.\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    (folder / f"{name}.md").write_text(text)
    return folder / f"{name}.md"
