"""The paper's claims, tested on a table: each is an ordering of cells, and the margin is that of its worst pair."""

import statistics
from dataclasses import dataclass
from itertools import product

from afno_repro.suite.spec import Claim, Column
from afno_repro.suite.table import Cell, Table


@dataclass(frozen=True)
class Verdict:
    """A claim's outcome: the worst pair's margin in the column's unit, its standard error, and holds, fails or undecided."""

    claim: Claim
    margin: float | None
    standard_error: float | None
    outcome: str


def claim_verdicts(table: Table) -> list[Verdict]:
    """All claims of a table's spec.

    The margin is the mean over seeds of the paired difference, in the column's own sense, less the claim's `by` at
    paper scale; elsewhere only the sign of `by` matters: above zero, a tie is not enough. A claim is undecided when its
    margin lies within twice its standard error, with one seed, or without numbers. Counted columns have no error.
    """
    columns = {column.key: column for column in table.columns}
    return [_test(table, claim, columns) for claim in table.spec.structure.claims]


def _test(table: Table, claim: Claim, columns: dict[str, Column]) -> Verdict:
    pairs = []
    for key, better, worse in product(claim.column, claim.better, claim.worse):
        cells = table.cells[better, key], table.cells[worse, key]
        if any(cell.state != "measured" for cell in cells):
            return Verdict(claim, None, None, "undecided")
        pairs.append(_margin(*cells, columns[key], claim.by if table.scale == "paper" else 0.0))
    margin, error = min(pairs, key=lambda pair: pair[0])
    return Verdict(claim, margin, error, _outcome(margin, error, strict=claim.by > 0))


def _margin(better: Cell, worse: Cell, column: Column, by: float) -> tuple[float, float | None]:
    """Difference less `by`, and its standard error: zero for a count, None where one sample says nothing about it."""
    assert better.value is not None
    assert worse.value is not None
    sign = 1 if column.higher_is_better else -1
    margin = sign * (better.value - worse.value) - by
    if column.source.startswith("cost/"):
        return margin, 0.0
    if min(len(better.samples), len(worse.samples)) < 2:
        return margin, None
    if better.seeds > 1 and len(better.samples) == len(worse.samples):  # paired by seed
        differences = [b - w for b, w in zip(better.samples, worse.samples, strict=True)]
        return margin, statistics.stdev(differences) / len(differences) ** 0.5
    return margin, sum(statistics.variance(cell.samples) / len(cell.samples) for cell in (better, worse)) ** 0.5


def _outcome(margin: float, error: float | None, strict: bool) -> str:
    if error is None:
        return "undecided"
    if error == 0:
        return "holds" if margin > 0 or (margin == 0 and not strict) else "fails"
    if abs(margin) <= 2 * error:
        return "undecided"
    return "holds" if margin > 0 else "fails"
