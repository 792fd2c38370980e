"""Whole trainings alone and two at a time: `python -m benchmarks.beside [--rounds 5] [--crops 640]`.

A training of Table 2's AFNO at tiny scale by `afno pretrain --jobs 1`, its threads waiting as libgomp has them wait and
as the command does, in turns. `ratio` is how much longer the command's takes, the longer one of two; different weights
end the benchmark with 1. Nothing else may run meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from afno_repro.runs.provenance import device_name
from benchmarks.side_by_side import write

ROOT = Path(__file__).parents[1]
WAITING = {"libgomp's own": {"GOMP_SPINCOUNT": "300000"}, "the command's": {}}
TOGETHER = (1, 2)
Made = dict[str, Any]


def trained(together: int, waiting: dict[str, str], crops: int) -> list[Made]:
    """What the records of some trainings side by side say of how they were made."""
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    changes = (f"data.train_crops={crops}", "data.test_crops=32", "train.epochs=1", "train.eval_every=1")
    command = [sys.executable, "-m", "afno_repro", "pretrain", "table2", "--row", "afno", "--seed", "0", "--jobs", "1"]
    command += ["--quiet", *(part for change in changes for part in ("--set", f"pretrain.{change}"))]
    with TemporaryDirectory() as folder:
        roots = [Path(folder) / str(i) for i in range(together)]
        for root in roots:
            root.mkdir()
            (root / "experiments").symlink_to(ROOT / "experiments")
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        env = {**kept, "PYTHONPATH": str(ROOT), **waiting}
        for process in [subprocess.Popen(command, cwd=root, env=env, **pipes) for root in roots]:
            process.wait()
        records = [next(root.glob("runs/pretrain-afno-*/record.json")).read_text() for root in roots]
    return [json.loads(record)["provenance"] for record in records]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crops", type=int, default=640)
    asked = parser.parse_args()
    seconds: dict[tuple[int, str], list[float]] = {(n, name): [] for n in TOGETHER for name in WAITING}
    weights = set()
    for i in range(asked.rounds):
        for n, name in list(seconds)[:: 1 if i % 2 else -1]:
            made = trained(n, WAITING[name], asked.crops)
            seconds[n, name].append(max(each["seconds"] for each in made))
            weights |= {each["weights"] for each in made}
    if len(weights) > 1:
        sys.exit("the weights differ")
    lines = []
    for n in TOGETHER:
        theirs, ours = (seconds[n, name] for name in WAITING)
        ratios = sorted(new / old for old, new in zip(theirs, ours, strict=True))
        medians = [f"{statistics.median(each):.1f}" for each in (theirs, ours)]
        lines.append([str(n), *medians, f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f}-{ratios[-1]:.2f}"])
    header = ["trainings at a time", *(f"s, {name}" for name in WAITING), "ratio", "range"]
    print(write("beside", device_name("cpu"), "Whole trainings side by side", header, lines).read_text())


if __name__ == "__main__":
    main()
