"""How mixers grow: `python -m benchmarks.scale [--rounds 3] [--largest 512]`.

`tokens`: seconds of a forward pass against tokens, for every mixer at DIM channels and one thread, and the exponent e
of seconds ~ tokens^e, fitted by least squares to the logarithms from FITTED tokens a side on. A mixer stops before a
pass would take LONGEST_S.
`memory`: what training Table 4's rows at paper scale keeps of one image for the backward pass, counted without running
anything.
"""

import argparse
import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from afno_repro.mixers import MIXERS
from afno_repro.profiling.kept import network
from afno_repro.runs.provenance import device_name
from afno_repro.spec.places import Places, sound_specs
from afno_repro.spec.plan import Choice, plan_runs
from benchmarks.side_by_side import once, write

DIM, FITTED, LONGEST_S = 64, 64, 60.0
SIDES = (32, 64, 128, 256, 512)
AFNO: dict[str, Any] = {"num_blocks": 4, "sparsity_threshold": 0.01, "bias": "identity", "init_std": 0.02}
MEASURED: dict[str, tuple[str, dict[str, Any]]] = {
    "self-attention": ("self_attention", {"num_heads": 1}),
    "efficient self-attention": ("efficient_self_attention", {"num_heads": 1, "reduction": 8}),
    "long-short": ("long_short", {"num_heads": 1, "window": 8, "rank": 8}),
    "GFN": ("gfn", {}),
    "FNO, 16 x 16 modes": ("fno", {"modes": [8, 9], "init_std": 0.02}),
    "AFNO": ("afno", {**AFNO, "keep": 1.0}),
    "AFNO, a quarter of the modes": ("afno", {**AFNO, "keep": 0.5}),
}
RESOLUTIONS = (1024, 2048)
ROOT = Path(__file__).parents[1]
GIB = 2**30


def seconds(name: str, options: Mapping[str, Any], side: int, rounds: int) -> float:
    """The median of a few forward passes after one that does not count."""
    torch.manual_seed(0)
    mixer, x = MIXERS[name](DIM, (side, side), **options), torch.randn(1, side, side, DIM)
    with torch.inference_mode():
        mixer(x)
        return statistics.median(once(lambda: mixer(x), x.device) for _ in range(rounds))


def growth(rounds: int, largest: int) -> dict[str, dict[int, float]]:
    """Seconds by mixer and tokens a side."""
    found: dict[str, dict[int, float]] = {}
    for title, (name, options) in MEASURED.items():
        found[title] = {}
        for side in SIDES:
            last = found[title].get(side // 2, 0.0)
            if side <= largest and 16 * last <= LONGEST_S:  # at worst with the square of the tokens
                found[title][side] = seconds(name, options, side, rounds)
    return found


def exponent(times: Mapping[int, float]) -> float:
    """The slope of log seconds against log tokens; not a number where there are fewer than two."""
    sides = [side for side in times if side >= FITTED]
    if len(sides) < 2:
        return math.nan
    return float(np.polyfit(np.log([side**2 for side in sides]), np.log([times[side] for side in sides]), 1)[0])


def draw(found: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Seconds against tokens, both logarithmic."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for title, times in found.items():
        axes.loglog(
            [side**2 for side in times], list(times.values()), marker="o", label=f"{title}: {exponent(times):.2f}"
        )
    axes.set(xlabel="tokens", ylabel=f"seconds of a forward pass, {DIM} channels")
    axes.legend(title="mixer: exponent", fontsize="small")
    figure.savefig(path, dpi=110)


def memory() -> list[list[str]]:
    """A line for each row of Table 4 and resolution: GiB that an image keeps, in all and with recomputed blocks."""
    lines = []
    spec = sound_specs(Places(ROOT, ROOT / "runs"), "table4")[0]
    for (row, stage, _), run in plan_runs(spec, "paper", Choice(kinds=("finetune",))).needs.items():
        if stage != "finetune" or run.config.model is None:
            continue
        for side in RESOLUTIONS:
            net = network(replace(run.config, data=replace(run.config.data, image_size=side)))
            step = net.step(1, "cpu")
            weights = 16 * net.params / GIB
            lines.append(
                [
                    row,
                    str(side),
                    f"{net.params / 1e6:.1f}",
                    f"{weights:.2f}",
                    *(f"{step.kept_bytes(again) / GIB:.2f}" for again in (False, True)),
                ]
            )
    return lines


def main() -> None:
    """Measure, count and write both tables and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=int, default=max(SIDES), help="tokens a side")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    header = [
        "row",
        "pixels a side",
        "parameters M",
        "weights, gradients, moments GiB",
        "kept GiB",
        "kept GiB, computed again",
    ]
    write("memory", device_name("cpu"), "Memory of training Table 4's rows in float32, an image", header, memory())
    found = growth(asked.rounds, asked.largest)
    lines = [
        [title, *(f"{1000 * times[side]:.1f}" if side in times else "" for side in SIDES), f"{exponent(times):.2f}"]
        for title, times in found.items()
    ]
    header = ["mixer", *(f"{side}x{side} ms" for side in SIDES), "exponent"]
    path = write("tokens", device_name("cpu"), f"A forward pass against tokens, {DIM} channels, batch 1", header, lines)
    draw(found, path.with_suffix(".png"))
    print(path.read_text())


if __name__ == "__main__":
    main()
