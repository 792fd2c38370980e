"""Training steps through torch.compile: `python -m benchmarks.compiled [--rows afno] [--precision bf16]`.

Rows of Tables 2 and 4 at `--scale` as `--compile` trains them, beside the same uncompiled: `ratio` above 1 is the
compiled step's. AFNO takes its matrix products under a compiler. The table is written after every row; rows that are
not begun within `--seconds` are left out. Compiling takes a row a minute and more, so that `--side-by-side` compiles
all of them first, each in a process of its own, and measures nothing: what it leaves in the compiler's cache is not
compiled again. `--backend eager` traces graphs and compiles none, for a CPU in a hurry.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from math import inf

import torch

from afno_repro.config import RunConfig
from afno_repro.runs.devices import find_device
from afno_repro.runs.provenance import device_name
from afno_repro.training.blocks import compile_backbone
from benchmarks.side_by_side import timed, write
from benchmarks.steps import PRECISIONS, built, configs, step_of

IMAGES = {"table2": 4, "table4": 1}  # at a time
HEADER = ["table", "row", "precision", "images", "s to start", "images/s", "images/s, compiled", "ratio", "10-90%"]
NO_TIME = "no time"


def compile_alone(table: str, row: str, images: int, asked: argparse.Namespace, threads: int) -> str:
    """Compile a row's step in a process of its own; how that ended."""
    command = [sys.executable, "-m", "benchmarks.compiled", "--rounds", "0", "--tables", table, "--rows", row]
    command += ["--images", str(images), "--device", asked.device, "--scale", asked.scale]
    command += ["--precision", asked.precision, "--backend", asked.backend]
    env = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": str(threads)}
    started = time.perf_counter()
    ended = subprocess.run(command, env=env, capture_output=True, text=True)
    last = "" if ended.returncode == 0 else (ended.stderr.splitlines() or ["no word"])[-1]
    return f"{table} {row}: {ended.returncode} after {time.perf_counter() - started:.0f} s {last}"


def measured(config: RunConfig, images: int, device: torch.device, asked: argparse.Namespace) -> list[str]:
    """The cells of one row."""
    model = built(config)
    given = config, asked.precision, images, device

    started = time.perf_counter()
    compiled = step_of(model, *given, partial(compile_backbone, backend=asked.backend))
    took = f"{time.perf_counter() - started:.0f}"
    if not asked.rounds:
        return [took]
    found = timed({"": step_of(model, *given), "compiled": compiled}, asked.rounds, device)
    ratio = found["compiled"]
    rates = [f"{images / each.median_s:.1f}" for each in found.values()]
    return [took, *rates, f"{ratio.ratio:.2f}", f"{ratio.low:.2f}-{ratio.high:.2f}"]


def main() -> None:
    """Measure row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--tables", nargs="+", default=list(IMAGES), choices=list(IMAGES))
    parser.add_argument("--images", type=int, help=f"at a time; default: {IMAGES}")
    parser.add_argument("--rows", nargs="+", help="default: all")
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS)
    parser.add_argument("--backend", default="inductor", choices=["inductor", "eager"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=inf, help="after which no row is begun")
    parser.add_argument("--side-by-side", action="store_true", help="compile all rows at once and measure none")
    asked = parser.parse_args()
    device, lines, began = torch.device(find_device(asked.device)), list[list[str]](), time.monotonic()
    title = f"Steps through torch.compile ({asked.backend}) at {asked.scale} scale"
    cases = [
        (table, row, config, asked.images or IMAGES[table])
        for table in asked.tables
        for row, config in configs(table, asked.scale).items()
        if asked.rows is None or row in asked.rows
    ]
    if not cases:
        parser.error(f"--rows {' '.join(asked.rows)}: no such row in {' or '.join(asked.tables)}")
    if asked.side_by_side:
        threads = max(1, (os.cpu_count() or 1) // len(cases))
        with ThreadPoolExecutor(len(cases)) as pool:
            made = [pool.submit(compile_alone, table, row, n, asked, threads) for table, row, _, n in cases]
            for each in as_completed(made):
                print(each.result(), flush=True)
        return
    for table, row, config, images in cases:
        late = time.monotonic() - began > asked.seconds
        cells = [NO_TIME] if late else measured(config, images, device, asked)
        cells += [""] * (len(HEADER) - 4 - len(cells))
        lines.append([table, row, asked.precision, str(images), *cells])
        if asked.rounds:
            print(write("compiled", device_name(device.type), title, HEADER, lines), row, flush=True)


if __name__ == "__main__":
    main()
