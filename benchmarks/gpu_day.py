"""Ten minutes on a GPU: `python -m benchmarks.gpu_day --out FOLDER [--commit HASH] [--small] [--only STAGE ...]`.

Each stage is a process with a time limit of its own. Those that measure no time run first, side by side, the others
alone, one after another, each with what those before it left of their time; all end within LIMIT_S, or `--patience`
times as long. After every stage FOLDER/day.json and day.md are written anew: how it ended, what it said last, and its
tables, which lie as files below FOLDER/tables/STAGE/. A stage that fails, is cut off or lacks a package is told as such
and stops no other one; `--only` goes through some, beside what FOLDER has of the others. What `nvidia-smi -q` says
before and after lies beside them, the trainings' records in records.tar.gz, and the checksums of all files in
SHA256SUMS. `--small` takes sizes for a CPU. Columns named `predicted` were not measured; a GPU's stay empty without
one. Ends with 1 unless every stage passed or lacked data alone. This file needs Python's own library alone, so that it
can say what is missing.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.process import GRACE_S, PASSED, ROOT, RUNNING, ended, kill

LIMIT_S, CLOSING_S, LAST_LINES = 585.0, 7.0, 15  # the day; for sums
NO_DATA = "left out: its data are not here"
LACKS_DATA, START_S = 3, 12  # the command's exit code; for a stage's start, and a line longer than those before
PATIENCE = 10.0  # how many times its limit a stage may take on a CPU, for its small sizes
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
UNTIMED = ("doctor", "tests", "deterministic", "trained", "small", "compiling")
PACED = ("compiling", "kernel", "mixers", "steps", "loading", "compiled")  # begin nothing that they cannot end
TOGETHER_S = 150.0  # for those that measure no time


class Stage(NamedTuple):
    """A process: what it shows, its command, its limit, the packages without which it is left out."""

    name: str
    shows: str
    command: Sequence[str]
    limit_s: float
    needs: Sequence[str] = ()
    brings_data: bool = True  # or is left out where nobody brought them
    timed: bool = True  # alone on the machine
    says: str = ""  # what its last line must have, or it showed nothing


def stages(device: str, small: bool, out: Path, data: Path) -> list[Stage]:
    """What the day is made of, in order: what measures no time, then what does."""
    smoke = ("--scale", "smoke")
    rows = (*smoke, "--images", "2", "--rounds", "1", "--backend", "eager") if small else ()
    sizes: dict[str, Sequence[str]] = {  # of a GPU; other steps of Table 2 have 16 images
        "mixers": ("--shapes", "5", "--rounds", "5", "--batch", "32", "--compiled", "1"),
        "steps": ("--rounds", "2"),
        "tests": ("-n", "8", "--dist", "worksteal") if found("pytest-xdist") else (),
        "small": ("--seed", "0"),
    }
    if small:
        sizes = {
            "mixers": ("--shapes", "1", "--side", "4", "--rounds", "1"),
            "steps": (*smoke, "--tables", "table2", "--images", "2", "--rounds", "1"),
            "loading": (*smoke, "--images", "32", "--batch", "8", "--workers", "0", "1"),
            "deterministic": ("--tables", "table2"),
            "trained": (*smoke, "--row", "afno"),
            "small": ("--row", "afno", "--seed", "0"),
        }

    def stage(name: str, shows: str, limit_s: float, needs: Sequence[str], module: str, *options: str) -> Stage:
        on = ("--device", device) if module.startswith("benchmarks") else ()
        command = [sys.executable, "-m", module, *on, *options, *sizes.get(name, ())]
        says = " passed" if name == "tests" and device != "cpu" else ""  # all of them skipped is no pass
        return Stage(name, shows, command, limit_s, needs, name != "small", name not in UNTIMED, says)

    tested = ("tests/training/test_on_gpu.py", "tests/test_gpu.py", "tests/mixers")
    quick, deep = ("-q", "-o", "addopts=", "-m", "gpu", "-p", "no:cacheprovider"), (*RUNS, *DRAWN)
    epoch = ("--scale", "small", "--set", "pretrain.train.epochs=1", "--data", str(data))
    three = ("--precision", "float32", "tf32", "bf16")
    ready = ("--ready", str(out / "tables" / "compiling"))

    def root(name: str) -> tuple[str, ...]:
        return "--root", str(out / "trained" / name)

    return [
        stage("doctor", "what afno finds here", TOGETHER_S, RUNS, "afno_repro", "doctor"),
        stage("tests", "whether CPU and GPU agree", TOGETHER_S, (*deep, "pytest"), "pytest", *quick, *tested),
        stage("deterministic", "what has no deterministic form", TOGETHER_S, deep, "benchmarks.deterministic"),
        stage("trained", "Table 2 beside the reference", TOGETHER_S, deep, "benchmarks.trained", *root("tiny")),
        stage("small", "an epoch at small scale", TOGETHER_S, deep, "benchmarks.trained", *root("small"), *epoch),
        stage("compiling", "torch.compile", TOGETHER_S, deep, "benchmarks.compiled", "--side-by-side", *rows),
        stage("rates", "what the device copies and multiplies", 15, RUNS, "benchmarks.rates"),
        stage("kernel", "the Triton kernel", 30, (*RUNS, "triton"), "benchmarks.kernel_here"),
        stage("mixers", "mixers side by side", 130, RUNS, "benchmarks.mixers", *three),
        stage("steps", "training steps", 125, deep, "benchmarks.steps"),
        stage("loading", "files to device", 40, deep, "benchmarks.loading"),
        stage("compiled", "steps through torch.compile", 85, deep, "benchmarks.compiled", *ready, *rows),
    ]


def found(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def nvidia_smi(*options: str, limit_s: float = 30) -> str | None:
    """What nvidia-smi says; None where it does not run."""
    command = ["nvidia-smi", *options]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit_s).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def gpus() -> list[str]:
    """The GPUs by name, with driver and memory; none where nvidia-smi does not run."""
    return (nvidia_smi("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader") or "").splitlines()


def look(out: Path, when: str, limit_s: float) -> None:
    """Keep all that nvidia-smi says of the GPUs, or say that it does not run."""
    said = nvidia_smi("-q", limit_s=limit_s)
    (out / f"nvidia-smi-{when}.txt").write_text("nvidia-smi does not run here\n" if said is None else said)


def close(out: Path) -> None:
    """Put the records of the day's trainings into records.tar.gz and the checksums of all files into SHA256SUMS."""
    with tarfile.open(out / "records.tar.gz", "w:gz") as packed:
        for path in sorted((out / "trained").glob("*/**/records/*/*.json")):
            packed.add(path, path.relative_to(out / "trained"))
    sums, files = out / "SHA256SUMS", sorted(path for path in out.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out)}" for path in files if path != sums
    ]
    sums.write_text("\n".join(lines) + "\n")


def done(stage: Stage, out: Path, limit_s: float) -> dict[str, Any]:
    """Run a stage and say how it ended: passed, failed, cut off, or left out and why."""
    told: dict[str, Any] = {"stage": stage.name, "shows": stage.shows, "command": " ".join(stage.command[1:])}
    lacking = [package for package in stage.needs if found(package) is None]
    if lacking:
        return told | {"outcome": f"left out: {', '.join(lacking)} not installed"}
    if limit_s < 1:
        return told | {"outcome": "left out: no time"}
    started, log, written = time.monotonic(), out / f"{stage.name}.log", out / "tables" / stage.name
    shutil.rmtree(written, ignore_errors=True)
    command = [*stage.command, *(("--seconds", f"{max(1.0, limit_s - START_S):.0f}") if stage.name in PACED else ())]
    first = stage.timed or stage.name in ("doctor", "compiling")  # the last takes longest of those side by side
    outcome = ended(command if first else ["nice", *command], log, limit_s, written)
    if outcome == f"failed with {LACKS_DATA}" and not stage.brings_data:
        outcome = NO_DATA
    tables = {path.stem: list(csv.reader(path.read_text().splitlines())) for path in sorted(written.glob("*/*.csv"))}
    last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    if outcome == PASSED and stage.says not in "".join(last[-1:]):
        outcome = f"failed: its last line has no {stage.says.strip()!r}"
    return told | {
        "outcome": outcome,
        "seconds": round(time.monotonic() - started, 1),
        "limit_s": round(limit_s, 1),
        "tables": tables,
        "last_words": [] if outcome == PASSED else last,
    }


def earlier(out: Path, again: set[str]) -> list[dict[str, Any]]:
    """The stages that an earlier command went through in this folder, less those to be gone through again."""
    path = out / "day.json"
    if not path.exists():
        return []
    before = json.loads(path.read_text())
    return [{"commit": before["commit"]} | each for each in before["stages"] if each["stage"] not in again]


def limits(stages: Sequence[Stage]) -> list[float]:
    """By when each stage ends, in seconds from the first one's start."""
    together, ends = max((stage.limit_s for stage in stages if not stage.timed), default=0.0), []
    for stage in stages:
        together += stage.limit_s if stage.timed else 0.0
        ends.append(together if stage.timed else stage.limit_s)
    return ends


def gone_through(stages: Sequence[Stage], out: Path, patience: float, started: float) -> Iterator[dict[str, Any]]:
    """How each stage ended, as it does; whoever leaves before the end ends those that run."""

    def go(stage: Stage, ends: float) -> dict[str, Any]:
        return done(stage, out, started + patience * min(ends, LIMIT_S - GRACE_S - CLOSING_S) - time.monotonic())

    together = [pair for pair in zip(stages, limits(stages), strict=True) if not pair[0].timed]
    with ThreadPoolExecutor(len(together) or 1) as pool:
        try:
            yield from (each.result() for each in as_completed([pool.submit(go, *pair) for pair in together]))
        finally:
            for process in list(RUNNING):
                kill(process)
    yield from (go(*pair) for pair in zip(stages, limits(stages), strict=True) if pair[0].timed)


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


def factor(text: str) -> float:
    """A number above 0, and finite."""
    if not 0 < float(text) < float("inf"):
        raise ValueError
    return float(text)


def main() -> None:
    """Run every stage, writing after each."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", default="unknown", help="of this code, where there is no history")
    parser.add_argument("--device", help="default: cuda where nvidia-smi names a GPU, else cpu")
    parser.add_argument("--data", type=Path, default=os.environ.get("AFNO_DATA", ROOT / "data"), help="of small scale")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--only", nargs="+", help="stages by name, beside what FOLDER has of others")
    parser.add_argument("--patience", type=factor, help=f"times each limit; default: 1, {PATIENCE:g} with --small")
    asked = parser.parse_args()
    out, seen, patience = asked.out.resolve(), gpus(), asked.patience or (PATIENCE if asked.small else 1.0)
    if not (seen or asked.small or asked.device):
        parser.error("nvidia-smi names no GPU: --device cuda all the same, or --small for a CPU")
    out.mkdir(parents=True, exist_ok=True)
    missing = {package: use for package, use in USES.items() if found(package) is None}
    packages = {package: found(package) for package in USES}
    day = {"commit": asked.commit, "gpus": seen, "python": platform.python_version(), "packages": packages}
    planned = stages(asked.device or ("cuda" if seen else "cpu"), asked.small, out, asked.data.resolve())
    if strange := set(asked.only or ()) - {each.name for each in planned}:
        parser.error(f"--only {' '.join(sorted(strange))}: the stages are {', '.join(each.name for each in planned)}")
    planned = [each for each in planned if asked.only is None or each.name in asked.only]
    day |= {"missing": missing, "stages": earlier(out, {each.name for each in planned})}
    for package, use in missing.items():
        print(f"not installed: {package} ({use})")
    look(out, "before", 30)
    write(day, out)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whose stages are to end with it, too
    try:
        for told in gone_through(planned, out, patience, started):
            day["stages"].append({"commit": asked.commit} | told)
            write(day, out)
            print(f"{told['stage']}: {told['outcome']}", flush=True)
        look(out, "after", CLOSING_S / 2)
        close(out)
    except KeyboardInterrupt:
        sys.exit(f"stopped; what there is lies in {out}")
    sys.exit(any(each["outcome"] not in (PASSED, NO_DATA) for each in day["stages"]))


if __name__ == "__main__":
    main()
