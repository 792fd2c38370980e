"""How often the intervals of made-up tables contain the truth."""

from dataclasses import replace

import numpy as np
import pytest

from afno_repro.tables.claims import claim_verdicts
from afno_repro.tables.table import Cell
from tests.specs import SMALL
from tests.tables.test_table import Made


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_of_simulated_tables_cover_the_truth_as_often_as_they_say(tmp_path, n):
    """Networks share what a seed draws and differ by 0.4 in truth; every table goes the way of a real one."""
    table, truth = Made(tmp_path, SMALL).table(), 0.4
    rng = np.random.default_rng(1)
    seeds, ours, theirs = (rng.normal(0.0, sd, (10_000, n)) for sd in (3.0, 0.5, 0.2))
    covered = 0
    for shared, a, b in zip(seeds, ours, theirs, strict=True):
        cells = {
            (row, "psnr"): Cell("measured", value.mean(), samples=dict(enumerate(value)), over="seeds", seeds=n)
            for row, value in (("afno", 20 + truth + shared + a), ("gfn", 20 + shared + b))
        }
        (verdict,) = claim_verdicts(replace(table, cells={**table.cells, **cells}))
        low, high = verdict.worst.difference.interval
        covered += low <= truth <= high
    assert 0.945 <= covered / 10_000 <= 0.955
