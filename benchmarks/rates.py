"""How fast a device copies and multiplies: `python -m benchmarks.rates [--device auto] [--side 8192] [--mib 1024]`.

The medians of a few calls. Beside them stands what docs and estimates assume of an H100, which nobody measured with
this code; a CPU has no such column of its own, and fills no GPU's.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from afno_repro.precision import set_precision
from afno_repro.runs.devices import find_device
from afno_repro.runs.provenance import device_name
from benchmarks.side_by_side import timed, write

ASSUMED = {"copy": 2.6, "float32": 50.0, "tf32": 330.0, "bf16": 600.0, "complex64": 42.0}  # TB/s and TFLOP/s of an H100
KINDS = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "complex64": torch.complex64}
SIZES = {"cuda": (8192, 1024), "cpu": (512, 64)}
HEADER = ["what", "unit", "GPU, predicted (H100)", "GPU, measured", "CPU, measured"]


class Rates(NamedTuple):
    """Bytes a second, read and written, and real multiplications and additions a second by precision."""

    bytes_per_s: float
    flops_per_s: dict[str, float]


def rates(device: torch.device, side: int, mib: int) -> Rates:
    """Measured now: a copy of `mib` MiB, products of matrices with `side` rows."""
    one = torch.zeros(mib * 2**18, device=device)
    copied = 2 * one.nbytes / median_s(partial(torch.clone, one), device)
    products = {}
    for precision, kind in KINDS.items():
        set_precision("tf32" if precision == "tf32" else "float32", device)
        a = torch.ones(side, side, device=device, dtype=kind)
        operations = (8 if kind.is_complex else 2) * side**3
        products[precision] = operations / median_s(partial(torch.mm, a, a), device)
    return Rates(copied, products)


def median_s(call: Callable[[], Any], device: torch.device) -> float:
    """The median of five calls after one that does not count."""
    return timed({"": call}, 5, device)[""].median_s


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int)
    parser.add_argument("--mib", type=int)
    asked = parser.parse_args()
    device = torch.device(find_device(asked.device))
    side, mib = SIZES[device.type]
    found = rates(device, asked.side or side, asked.mib or mib)
    lines = []
    for what, value in {"copy": found.bytes_per_s, **found.flops_per_s}.items():
        measured = [f"{value / 1e12:.3g}", ""][:: 1 if device.type == "cuda" else -1]
        lines.append([what, "TB/s" if what == "copy" else "TFLOP/s", f"{ASSUMED[what]:g}", *measured])
    print(write("rates", device_name(device.type), "What the device copies and multiplies", HEADER, lines).read_text())


if __name__ == "__main__":
    main()
