"""Table 2's trainings here beside the reference's: `python -m benchmarks.trained --root FOLDER [--scale tiny]`.

`afno pretrain table2` below FOLDER, with what else is given as its options, then each row's PSNR: the least and the
largest of the seeds in the reference, which a CPU trained and which ships, and the mean here. The reference has no
other scale than tiny, and none of a table that `--set` changes. Ends with the command's exit code: 3 where its data are
absent.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from afno_repro.runs.devices import find_device
from afno_repro.runs.provenance import device_name
from afno_repro.spec.places import Places
from benchmarks.side_by_side import write

REFERENCE = Path(__file__).parents[1] / "results/reference"
HEADER = ["row", "seeds", "PSNR dB, reference (CPU)", "PSNR dB, measured", "inside the reference's range"]


def psnr(results: Path) -> dict[str, list[float]]:
    """Of each row that was trained to the end, by seed."""
    found: dict[str, list[float]] = {}
    for path in sorted((results / "records/table2").glob("*.pretrain.*.json")):
        record = json.loads(path.read_text())
        if record["outcome"] == "ok":
            found.setdefault(path.name.split(".")[0], []).append(record["metrics"]["psnr"])
    return found


def main() -> None:
    """Train, write the table, and end with the command's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--per-gpu", default="4")
    asked, options = parser.parse_known_args()
    asked.root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "afno_repro", "pretrain", "table2", "--scale", asked.scale, *options]
    command += ["--device", asked.device, "--per-gpu", asked.per_gpu, "--root", str(asked.root)]
    code = subprocess.run(command, check=False).returncode
    changed = "--set" in options
    results = Places(asked.root, asked.root / "runs").results(asked.scale, changed)
    before, lines = {} if changed else psnr(REFERENCE / asked.scale), []
    for row, values in psnr(results).items():
        mean, known = statistics.fmean(values), before.get(row, [])
        told = ["", ""]
        if known:
            least, most = min(known), max(known)
            told = [f"{least:.2f} to {most:.2f}", "yes" if least <= mean <= most else "no"]
        lines.append([row, str(len(values)), told[0], f"{mean:.2f}", told[1]])
    name = device_name(find_device(asked.device))
    title = f"Table 2 at {asked.scale} scale{', changed' if changed else ''}"
    if lines:
        print(write(f"trained_{asked.scale}", name, title, HEADER, lines).read_text())
    sys.exit(code)


if __name__ == "__main__":
    main()
