"""How long commands take that do no work: `python -m benchmarks.startup [--rounds 7]`.

Each is a process of its own, in this repository; `beyond` is what it takes more than an interpreter that does nothing, its median
over rounds. `run table2` is a command of which everything is done: make it so first, or it is left out.
"""

import argparse
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from afno_repro.suite.provenance import device_name
from benchmarks.side_by_side import once, write

ROOT = Path(__file__).parents[1]
COMMANDS = (("--help",), ("list",), ("report", "--scale", "tiny"), ("run", "table2", "--device", "cpu"))


def call(*arguments: str) -> None:
    """One process; raises CalledProcessError when it fails."""
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds, device, lines = parser.parse_args().rounds, torch.device("cpu"), list[list[str]]()
    done = any((ROOT / "runs").glob("*/record.json"))
    for command in COMMANDS if done else COMMANDS[:-1]:
        nothing, something = partial(call, "-c", "pass"), partial(call, "-m", "afno_repro", *command)
        something()  # what is compiled and cached once
        pairs = [(once(nothing, device), once(something, device)) for _ in range(rounds)]
        beyond = [took - empty for empty, took in pairs]
        numbers = statistics.median(took for _, took in pairs), statistics.median(beyond), max(beyond)
        lines.append([f"afno {' '.join(command)}", *(f"{each:.2f}" for each in numbers)])
    print(write("startup", device_name("cpu"), "Start", ["command", "s", "beyond s", "worst beyond s"], lines).read_text())


if __name__ == "__main__":
    main()
