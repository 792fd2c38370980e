"""Ten minutes on a GPU: `python -m benchmarks.gpu_day --out FOLDER [--commit HASH] [--small] [--only STAGE ...]`.

Each stage is a process with a time limit of its own, and all of them end within LIMIT_S. After every stage
FOLDER/day.json and day.md are written anew: how it ended, what it said last, and its tables, which lie as files below
FOLDER/tables/. A stage that fails, is cut off or lacks a package is told as such and stops no other one. `--small`
takes sizes for a CPU. Columns named `predicted` or `estimated` were not measured; a GPU's stay empty without one. Ends
with 1 unless every stage passed. This file needs Python's own library alone, so that it can say what is missing.
"""

import argparse
import contextlib
import csv
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
LIMIT_S, GRACE_S, LAST_LINES = 585.0, 3.0, 15
PATIENCE = 10  # how many times as long a CPU may take for its small sizes
RUNS = ("torch", "numpy", "pydantic", "pyyaml", "typer", "rich")  # what commands and benchmarks import
DRAWN = ("torchvision", "scikit-image", "scikit-learn", "scipy", "pandas", "matplotlib", "safetensors")  # what runs do
USES = {  # of the packages, by the names that pip knows
    **dict.fromkeys(RUNS, "nothing runs without it"),
    **dict.fromkeys(DRAWN, "trainings, their data and tables"),
    "triton": "the kernel",
    "pytest": "tests",
    "pytest-xdist": "tests side by side; they run one by one without it",
    "fvcore": "one test, which no stage runs",
}


class Stage(NamedTuple):
    """A process: what it shows, its command, its limit, the packages without which it is left out."""

    name: str
    shows: str
    command: Sequence[str]
    limit_s: float
    needs: Sequence[str] = ()


def stages(device: str, small: bool, out: Path) -> list[Stage]:
    """What the day is made of, in order."""

    def module(name: str, *options: str) -> list[str]:
        return [sys.executable, "-m", name, *options]

    on, trained = ("--device", device), str(out / "trained")
    mixers = (
        ["--shapes", "1", "--side", "8", "--rounds", "1"]
        if small
        else ["--shapes", "5", "--rounds", "5", "--batch", "32"]
    )
    steps = ["--scale", "smoke", "--tables", "table2", "--images", "2", "--rounds", "1"] if small else []
    loading = ["--scale", "smoke", "--images", "32", "--batch", "8", "--workers", "0", "1"] if small else []
    rows = ["--scale", "smoke", "--row", "afno"] if small else []
    tests = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/mixers", "tests/test_gpu.py"]
    side_by_side = ["-n", "8"] if found("pytest-xdist") and not small else []
    compared, tried = module("benchmarks.mixers", "--device", device, *mixers), module("pytest", *tests, *side_by_side)
    trainings = module("benchmarks.trained", *on, "--root", trained, *rows)
    return [
        Stage("doctor", "what afno finds here", module("afno_repro", "doctor"), 10, RUNS),
        Stage("rates", "what the device copies and multiplies", module("benchmarks.rates", *on), 20, RUNS),
        Stage("kernel", "the Triton kernel", module("benchmarks.kernel_here", *on), 60, (*RUNS, "triton")),
        Stage("tests", "whether CPU and GPU agree", tried, 120, (*RUNS, *DRAWN, "pytest")),
        Stage("mixers", "mixers side by side", compared, 105, RUNS),
        Stage("steps", "training steps", module("benchmarks.steps", *on, *steps), 120, (*RUNS, *DRAWN)),
        Stage("loading", "files to device", module("benchmarks.loading", *on, *loading), 30, (*RUNS, *DRAWN)),
        Stage("trained", "Table 2 beside the reference", trainings, 120, (*RUNS, *DRAWN)),
    ]


def found(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def gpus() -> list[str]:
    """The GPUs that nvidia-smi names, with driver and memory; none where it does not run."""
    ask = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def done(stage: Stage, out: Path, limit_s: float) -> dict[str, Any]:
    """Run a stage and say how it ended: passed, failed, cut off, or left out and why."""
    told: dict[str, Any] = {"stage": stage.name, "shows": stage.shows, "command": " ".join(stage.command[1:])}
    lacking = [package for package in stage.needs if found(package) is None]
    if lacking:
        return told | {"outcome": f"left out: {', '.join(lacking)} not installed"}
    if limit_s < 1:
        return told | {"outcome": "left out: no time"}
    started, began, log = time.monotonic(), time.time(), out / f"{stage.name}.log"
    outcome = ended(stage.command, log, limit_s, out / "tables")
    tables = {
        path.stem: list(csv.reader(path.read_text().splitlines()))
        for path in sorted((out / "tables").glob("*/*.csv"))
        if path.stat().st_mtime >= began
    }
    last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return told | {
        "outcome": outcome,
        "seconds": round(time.monotonic() - started, 1),
        "limit_s": round(limit_s, 1),
        "tables": tables,
        "last_words": [] if outcome == "passed" else last,
    }


def ended(command: Sequence[str], log: Path, limit_s: float, tables: Path) -> str:
    """How a command ended, which wrote into `log`; nothing of it is left running."""
    env = {**os.environ, "AFNO_BENCHMARKS": str(tables), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            code = process.wait(limit_s)
            return "passed" if code == 0 else f"failed with {code}"
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            return f"cut off after {limit_s:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def write(day: dict[str, Any], out: Path) -> None:
    """What there is so far: day.json whole, day.md to read."""
    (out / "day.json").write_text(json.dumps(day, indent=1) + "\n")
    lines = [f"# {', '.join(day['gpus']) or 'No GPU: a CPU'}", "", f"Commit {day['commit']}, Python {day['python']}."]
    lines += [f"Not installed: {name} ({use})." for name, use in day["missing"].items()]
    lines += ["", "| stage | shows | outcome | s |", "|---|---|---|---:|"]
    for each in day["stages"]:
        lines.append(f"| {each['stage']} | {each['shows']} | {each['outcome']} | {each.get('seconds', '')} |")
    for each in day["stages"]:
        if each.get("last_words"):
            lines += ["", f"The last words of {each['stage']}:", "", "```", *each["last_words"], "```"]
        for name, (header, *rows) in each.get("tables", {}).items():
            lines += ["", f"## {name}", "", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
            lines += [f"| {' | '.join(row)} |" for row in rows]
    (out / "day.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run every stage, writing after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", default="unknown", help="of this code, where there is no history")
    parser.add_argument("--device", help="default: cuda where nvidia-smi names a GPU, else cpu")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--only", nargs="+", help="stages by name")
    asked = parser.parse_args()
    patience, out, seen = PATIENCE if asked.small else 1, asked.out.resolve(), gpus()
    deadline = time.monotonic() + patience * LIMIT_S
    (out / "tables").mkdir(parents=True, exist_ok=True)
    missing = {package: use for package, use in USES.items() if found(package) is None}
    packages = {package: found(package) for package in USES}
    day = {"commit": asked.commit, "gpus": seen, "python": platform.python_version(), "packages": packages}
    day |= {"missing": missing, "stages": []}
    for package, use in missing.items():
        print(f"not installed: {package} ({use})")
    write(day, out)
    for stage in stages(asked.device or ("cuda" if seen else "cpu"), asked.small, out):
        if asked.only is None or stage.name in asked.only:
            limit_s = min(patience * stage.limit_s, deadline - time.monotonic() - GRACE_S)
            day["stages"].append(done(stage, out, limit_s))
            write(day, out)
            print(f"{stage.name}: {day['stages'][-1]['outcome']}", flush=True)
    sys.exit(any(each["outcome"] != "passed" for each in day["stages"]))


if __name__ == "__main__":
    main()
