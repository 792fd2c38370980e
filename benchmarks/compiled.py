"""Training steps through torch.compile: `python -m benchmarks.compiled [--rows afno] [--precision bf16]`.

Rows of Table 2 at `--scale` as `--compile` trains them, beside the same uncompiled: `ratio` above 1 is the compiled
step's. AFNO takes its matrix products under a compiler. The table is written after every row. `--backend eager` traces
graphs and compiles none, for a CPU in a hurry.
"""

import argparse
import time

import torch
from torch import nn

from afno_repro.runs.devices import find_device
from afno_repro.runs.provenance import device_name
from benchmarks.side_by_side import timed, write
from benchmarks.steps import PRECISIONS, configs, step_of

HEADER = ["row", "precision", "images", "s to compile", "images/s", "images/s, compiled", "ratio", "10-90%"]


def main() -> None:
    """Measure row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--rows", nargs="+", default=["afno"])
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS)
    parser.add_argument("--backend", default="inductor", choices=["inductor", "eager"])
    parser.add_argument("--images", type=int, default=16, help="at a time")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    device, lines = torch.device(find_device(asked.device)), list[list[str]]()
    title = f"Steps of Table 2 through torch.compile ({asked.backend}) at {asked.scale} scale"

    def compiled_as_trained(model: nn.Module) -> None:  # training/engine.py
        model.get_submodule("backbone").compile(dynamic=False, backend=asked.backend)

    for row in asked.rows:
        given = configs("table2", asked.scale)[row], asked.precision, asked.images, device
        started = time.perf_counter()
        compiled = step_of(*given, compiled_as_trained)
        took = time.perf_counter() - started
        found = timed({"": step_of(*given), "compiled": compiled}, asked.rounds, device)
        rates = [f"{asked.images / each.median_s:.1f}" for each in found.values()]
        ratio = found["compiled"]
        cells = [f"{took:.0f}", *rates, f"{ratio.ratio:.2f}", f"{ratio.low:.2f}-{ratio.high:.2f}"]
        lines.append([row, asked.precision, str(asked.images), *cells])
        print(write("compiled", device_name(device.type), title, HEADER, lines), row, flush=True)


if __name__ == "__main__":
    main()
