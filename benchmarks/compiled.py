"""Training steps through torch.compile: `python -m benchmarks.compiled [--rows afno] [--precision bf16]`.

Rows of Tables 2 and 4 at `--scale` as `--compile` trains them, beside the same uncompiled: `ratio` above 1 is the
compiled step's. AFNO takes its matrix products under a compiler. The table is written after every row; rows that are
not begun within `--seconds` are left out. Compiling takes a row a minute and more, so that `--side-by-side` compiles
all of them first, each in a process of its own, and measures nothing: what it leaves in the compiler's cache is not
compiled again. It tells how each ended, in `compiling.csv`, and ends with 1 where one failed; `--ready FOLDER` begins
those alone that such a table below it calls compiled. `--backend eager` traces graphs and compiles none, for a CPU in
a hurry.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from math import inf
from pathlib import Path

import torch

from afno_repro.config import RunConfig
from afno_repro.runs.devices import find_device
from afno_repro.runs.provenance import device_name
from afno_repro.training.blocks import compile_backbone
from benchmarks.side_by_side import NO_TIME, paced, timed, write
from benchmarks.steps import PRECISIONS, built, configs, step_of

IMAGES = {"table2": 2, "table4": 1}  # at a time
MOST_S = 3600.0  # for a row
COMPILING = ["table", "row", "precision", "images", "outcome", "s", "last words"]
HEADER = ["table", "row", "precision", "images", "s to start", "images/s", "images/s, compiled", "ratio", "10-90%"]
COMPILED = "compiled"


def compile_alone(table: str, row: str, images: int, asked: argparse.Namespace, threads: int) -> list[str]:
    """Compile a row's step in a process of its own; how that ended, after how many seconds, and its last words."""
    command = [sys.executable, "-m", "benchmarks.compiled", "--rounds", "0", "--tables", table, "--rows", row]
    command += ["--images", str(images), "--device", asked.device, "--scale", asked.scale]
    command += ["--precision", asked.precision, "--backend", asked.backend]
    env = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": str(threads)}
    started = time.perf_counter()
    try:
        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=min(asked.seconds, MOST_S))
        outcome = f"failed with {ended.returncode}" if ended.returncode else COMPILED
        last = (ended.stderr.strip().splitlines() or ["no word"])[-1] if ended.returncode else ""
    except subprocess.TimeoutExpired:
        outcome, last = NO_TIME, ""
    return [table, row, asked.precision, str(images), outcome, f"{time.perf_counter() - started:.0f}", last]


def compile_all(cases: Sequence[tuple[str, str, int]], asked: argparse.Namespace, name: str) -> None:
    """Compile rows side by side and write how each ended; ends the benchmark with 1 where one failed."""
    threads = max(1, (os.cpu_count() or 1) // len(cases))
    with ThreadPoolExecutor(len(cases)) as pool:
        made = [pool.submit(compile_alone, *case, asked, threads) for case in cases]
        for each in as_completed(made):
            print(*each.result(), flush=True)
    lines = [each.result() for each in made]
    write("compiling", name, f"Compiled side by side ({asked.backend})", COMPILING, lines)
    sys.exit(any(line[4] not in (COMPILED, NO_TIME) for line in lines))


def ready(folder: Path) -> set[tuple[str, str]]:
    """The tables and rows that a table of compiling below a folder calls compiled."""
    lines = [line for path in folder.rglob("compiling.csv") for line in csv.reader(path.read_text().splitlines())]
    return {(line[0], line[1]) for line in lines if line[4] == COMPILED}


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
    parser.add_argument("--seconds", type=float, default=inf, help="within which rows are begun that can end")
    parser.add_argument("--ready", type=Path, metavar="FOLDER", help="begin rows alone that were compiled side by side")
    parser.add_argument("--side-by-side", action="store_true", help="compile all rows at once and measure none")
    asked = parser.parse_args()
    device, lines = torch.device(find_device(asked.device)), list[list[str]]()
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
        compile_all([(table, row, images) for table, row, _, images in cases], asked, device_name(device.type))
    made = {case[:2] for case in cases} if asked.ready is None else ready(asked.ready)
    cases.sort(key=lambda case: case[:2] not in made)
    for (table, row, config, images), begins in paced(cases, asked.seconds):
        cells = [NO_TIME]
        if (table, row) not in made:
            cells = ["not compiled"]
        elif begins:
            cells = measured(config, images, device, asked)
        cells += [""] * (len(HEADER) - 4 - len(cells))
        lines.append([table, row, asked.precision, str(images), *cells])
        if asked.rounds:
            print(write("compiled", device_name(device.type), title, HEADER, lines), row, flush=True)


if __name__ == "__main__":
    main()
