"""What the committed results must be, whatever their numbers."""

import csv
import json
import os
import subprocess
import sys

import pytest

from afno_repro.spec.reader import load_spec
from tests.specs import ROOT

CELLS = list(csv.DictReader((ROOT / "results/reference/tiny/cells.csv").open()))
KNOWN = {  # sources of runs made beside a checkout of another commit, and the commits that they are
    "fc540fef1b6bc539": "a6ef753a0d7b467d404e17421627df4b748ce491",
}
TRAINED = [
    cell["row"]
    for cell in CELLS
    if cell["table"] == "table2" and cell["column"] == "psnr_masked" and not cell["row"].startswith("fill_")
]


def number(row: str, column: str, field: str = "value") -> float:
    return float(next(c[field] for c in CELLS if c["table"] == "table2" and (c["row"], c["column"]) == (row, column)))


@pytest.mark.parametrize("row", TRAINED)
def test_every_trained_row_passes_mean_fill_by_more_than_its_spread(row):
    for column in ("psnr", "psnr_masked"):
        assert number(row, column) - number(row, column, "spread") > number("fill_mean", column)


def test_no_paper_value_stands_beside_a_number_of_another_scale():
    specs = {name: load_spec(ROOT / f"experiments/{name}.yaml") for name in {cell["table"] for cell in CELLS}}
    for cell in CELLS:
        column = next(c for c in specs[cell["table"]].columns("tiny") if c.key == cell["column"])
        assert not cell["paper"] or column.at == "paper"


def test_committed_runs_were_made_from_a_commit_as_it_stands():
    for path in (ROOT / "results/reference").glob("*/records/*/*.json"):
        provenance = json.loads(path.read_text())["provenance"]
        assert provenance["commit"], path
        assert provenance["dirty"] is False or provenance["source"] in KNOWN, path


@pytest.mark.parametrize(("source", "commit"), KNOWN.items())
def test_a_source_that_no_checkout_told_is_that_of_a_commit(tmp_path, source, commit):
    packed = subprocess.run(["git", "-C", ROOT, "archive", commit, "afno_repro"], capture_output=True)
    if packed.returncode != 0:
        pytest.skip("a checkout without this commit")
    subprocess.run(["tar", "x", "-C", tmp_path], input=packed.stdout, check=True)
    told = "from afno_repro.runs.source import source_hash; print(source_hash())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", told], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == source, done.stderr
