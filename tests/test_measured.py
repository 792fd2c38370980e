"""Ranges of measured numbers that the pages say are those of the tables that benchmarks left."""

import re

import pandas as pd
import pytest

from benchmarks.estimates import estimated_mib
from tests.specs import ROOT

CPU, GPU = "AMD-EPYC--2-cores", "NVIDIA-H200"
ESTIMATES = pd.read_csv(ROOT / "benchmarks/results" / GPU / "estimates.csv")


def measured(device: str, files: str, column: str, **chosen: str) -> pd.Series:
    """A column of a benchmark's tables, where others have these values."""
    table = pd.concat([pd.read_csv(path) for path in sorted((ROOT / "benchmarks/results" / device).glob(files))])
    return table[(table[list(chosen)] == pd.Series(chosen, dtype=str)).all(axis=1)][column]


def in_whole_steps(table: str) -> pd.Series:
    """How many times as fast steps are with the kernel as without."""
    steps = pd.read_csv(ROOT / "benchmarks/results" / GPU / "steps.csv").query("table == @table")
    rates = steps.pivot(index=["row", "precision"], columns="form", values="images/s, measured")
    return (rates["kernel"] / rates["as trained"]).dropna()


def less_than_estimated(*precisions: str) -> pd.Series:
    """By how many percent of the estimate a step takes less memory."""
    steps = ESTIMATES[ESTIMATES["precision"].isin(precisions)]
    return 100 * (1 - steps["GPU, measured MiB"] / steps["GPU, estimated MiB"])


RANGES = {  # the words around a range, and all that it is the range of
    "of a CPU it is {} times as fast forward": lambda: measured(CPU, "mixers.csv", "forward ratio", variant="AFNO"),
    "modes of an axis {} times": lambda: measured(CPU, "mixers.csv", "forward ratio", variant="AFNO keep 0.5"),
    "H200 it is {} times as fast forward and back": lambda: measured(GPU, "mixers*.csv", "both ratio", variant="AFNO"),
    "orward it is {} times as fast as FFTs": lambda: measured(GPU, "kernel_here.csv", "GPU, measured ratio"),
    "forward and backward {} times;": lambda: measured(GPU, "kernel_here.csv", "GPU, measured ratio, both"),
    "training steps {} times in Table 2": lambda: in_whole_steps("table2"),
    "and {} times with one image of Table 4": lambda: in_whole_steps("table4"),
    "took {}% less than them in float32": lambda: less_than_estimated("float32", "tf32"),
    "and {}% less in bf16": lambda: less_than_estimated("bf16"),
    "it made Table 2's {} times as fast": lambda: measured(GPU, "compiled.csv", "ratio", table="table2"),
}
QUICK = (["table2", "gfn", "bf16"], ["table2", "afno", "tf32"])
PAGES = {path.name: " ".join(path.read_text().split()) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}


@pytest.mark.parametrize("words", RANGES)
def test_a_range_on_a_page_is_that_of_the_measurements(words):
    values, range_of = RANGES[words](), re.escape(words).replace(r"\{\}", r"([\d.]+) to ([\d.]+)")
    said = [ends for page in PAGES.values() for ends in re.findall(range_of, page)]
    assert said
    for low, high in said:
        digits = len(low.partition(".")[2])
        assert (float(low), float(high)) == (round(values.min(), digits), round(values.max(), digits))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, id=" ".join(line[:3]), marks=[] if line[:3] in QUICK else pytest.mark.slow)
        for line in ESTIMATES.astype(str).values.tolist()
    ],
)
def test_the_memory_of_a_step_is_estimated_without_a_gpu_as_one_took_it(line):
    """And not below it, but for a hundredth."""
    table, row, precision, images, _, measured_mib, _ = line
    assert 0.85 <= float(measured_mib) / estimated_mib(table, row, precision, int(images)) <= 1.01
