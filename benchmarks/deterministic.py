"""Which operations torch.use_deterministic_algorithms(True) refuses: `python -m benchmarks.deterministic`.

Steps of every row of `--tables` at smoke size, in `--precision`: what torch refuses of one, or says to be deterministic
under that flag alone, and whether STEPS of them, without the flag as trainings go, leave the same bits when they are
done again. cuBLAS has the workspace with which it repeats itself.
"""

import argparse
import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch

from afno_repro.runs.devices import find_device
from afno_repro.runs.provenance import device_name
from benchmarks.side_by_side import write
from benchmarks.steps import PRECISIONS, STAGES, built, configs, step_of

WORDS = re.compile("(.+?) (?:does not have a deterministic implementation|defaults to a non-deterministic)|(CuBLAS)")
STEPS = 5
HEADER = ["table", "row", "precision", "refused", "same bits twice"]


def refused(call: Callable[[], Any]) -> list[str]:
    """The operations of a call that have no deterministic form, by the names that torch gives them."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_warn_always(True)  # and not of the first row alone
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_warn_always(False)
    found = [WORDS.search(str(each.message)) for each in caught]
    return sorted({match[1] or match[2] for match in found if match})


def after(step: Any) -> list[torch.Tensor]:
    """A network's weights after STEPS of its steps."""
    for _ in range(STEPS):
        step()
    return list(step.args[0].parameters())


def main() -> None:
    """Try every row and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tables", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--precision", default="tf32", choices=PRECISIONS)
    parser.add_argument("--images", type=int, default=2, help="at a time")
    asked = parser.parse_args()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device, lines = torch.device(find_device(asked.device)), list[list[str]]()
    for table in asked.tables:
        for row, config in configs(table, "smoke").items():
            given = built(config), config, asked.precision, asked.images, device
            same = all(map(torch.equal, after(step_of(*given)), after(step_of(*given))))
            told = ", ".join(refused(step_of(*given))) or "nothing"
            lines.append([table, row, asked.precision, told, "yes" if same else "no"])
    title = "What torch.use_deterministic_algorithms refuses of a step"
    print(write("deterministic", device_name(device.type), title, HEADER, lines).read_text())


if __name__ == "__main__":
    main()
