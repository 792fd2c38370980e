"""How long commands take that do no work: `python -m benchmarks.startup [--rounds 7]`.

Each is a process of its own, in a copy of this repository's specs and results; `beyond` is what it takes more than an
interpreter that does nothing, its median over rounds. `run table2` is a command of which everything is done: make it
so first, or it is left out.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from afno_repro.runs.provenance import device_name
from benchmarks.side_by_side import once, write

ROOT = Path(__file__).parents[1]
COMMANDS = (("--help",), ("list",), ("report", "--scale", "tiny"), ("run", "table2", "--device", "cpu"))
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}  # as a user has it


def call(*arguments: str, root: str) -> str:
    """What a process prints; raises CalledProcessError when it fails."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=root, env=ENVIRONMENT, check=True, capture_output=True, text=True
    ).stdout


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds, device, lines = parser.parse_args().rounds, torch.device("cpu"), list[list[str]]()
    with TemporaryDirectory() as root:
        for name in ("experiments", "results"):
            shutil.copytree(ROOT / name, Path(root) / name)
        for command in COMMANDS:
            asked = (
                "-m",
                "afno_repro",
                *command,
                *(() if command == ("--help",) else ("--root", root, "--runs", str(ROOT / "runs"))),
            )
            if command[0] == "run" and any(
                run["state"] == "to do" for run in json.loads(call(*asked, "--dry-run", "--json", root=root))
            ):
                continue
            nothing, something = partial(call, "-c", "pass", root=root), partial(call, *asked, root=root)
            something()  # what is compiled and cached once
            pairs = [(once(nothing, device), once(something, device)) for _ in range(rounds)]
            beyond = [took - empty for empty, took in pairs]
            numbers = statistics.median(took for _, took in pairs), statistics.median(beyond), max(beyond)
            lines.append([f"afno {' '.join(command)}", *(f"{each:.2f}" for each in numbers)])
    print(
        write("startup", device_name("cpu"), "Start", ["command", "s", "beyond s", "worst beyond s"], lines).read_text()
    )


if __name__ == "__main__":
    main()
