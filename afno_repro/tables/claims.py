"""The paper's claims, tested on a table: orderings, peaks along an axis and bounds, each as good as its worst case."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from afno_repro.spec.spec import Bound, Claim, Column, Ordering, Peak
from afno_repro.tables.table import Cell, Table

OUTCOMES = ("fails", "undecided", "holds")  # worst first
TIMED = "latency/"
COUNTED = ("cost/", "pretrained_cost/")  # sources that are counts, without any error


@dataclass(frozen=True)
class Finding:
    """One case of a claim: its margin in the column's unit, the margin's standard error or None, its outcome."""

    margin: float
    standard_error: float | None
    outcome: str


@dataclass(frozen=True)
class Verdict:
    """A claim's outcome, holds, fails or undecided, with margin and standard error of its worst case."""

    claim: Claim
    margin: float | None
    standard_error: float | None
    outcome: str


def claim_verdicts(table: Table) -> list[Verdict]:
    """All claims of a table's spec, each as its worst case: the worst outcome, among these the smallest margin.

    The cases of an ordering are its pairs of rows in each column; the margin is the mean over seeds of the paired
    difference, in the column's own sense, less the claim's `by` at paper scale; elsewhere only the sign of `by`
    matters: above zero, a tie is not enough. The cases of a bound are its cells, the margin is value less bound, those
    of a peak are its columns (see `_peak`). A case is undecided when its margin lies within twice its standard error or
    with one seed, a claim when a number is missing or cells saw other data. Counted columns have no error.
    """
    return [_test(table, claim) for claim in table.spec.structure.claims]


def _test(table: Table, claim: Claim) -> Verdict:
    rows = (
        claim.over if isinstance(claim, Peak) else claim.better + (claim.worse if isinstance(claim, Ordering) else [])
    )
    cells = [table.cells[row, key] for row, key in product(rows, claim.column)]
    if any(cell.state != "measured" or cell.mixed for cell in cells):
        return Verdict(claim, None, None, "undecided")
    worst = min(_cases(table, claim), key=lambda case: (OUTCOMES.index(case.outcome), case.margin))
    return Verdict(claim, worst.margin, worst.standard_error, worst.outcome)


def _cases(table: Table, claim: Claim) -> Iterator[Finding]:
    for column in (column for column in table.columns if column.key in claim.column):
        cells = {row: cell for (row, key), cell in table.cells.items() if key == column.key}
        if isinstance(claim, Peak):
            yield _peak(cells, claim, column)
        elif isinstance(claim, Bound):
            yield from (_above(cells[row], claim.above, column) for row in claim.better)
        else:
            by = claim.by if table.scale == "paper" else 0.0
            for better, worse in product(claim.better, claim.worse):
                margin, error = _difference(cells[better], cells[worse], column)
                yield Finding(margin - by, error, _outcome(margin - by, error, strict=claim.by > 0))


def _above(cell: Cell, bound: float, column: Column) -> Finding:
    """A cell's value less the bound that it has to exceed, whichever sense the column has."""
    assert cell.value is not None
    error = _standard_error(cell.samples, column)
    return Finding(cell.value - bound, error, _outcome(cell.value - bound, error, strict=True))


def _peak(cells: dict[str, Cell], claim: Peak, column: Column) -> Finding:
    """A column's peak: its margin is the smaller of the paired differences to its neighbours along the axis.

    It holds when no row of the axis has a better mean and both neighbours are beaten by twice the standard error; it
    fails when the row with the best mean beats the peak by twice theirs.
    """
    differences = {row: _difference(cells[claim.peak], cells[row], column) for row in claim.over if row != claim.peak}
    lead, error = min(differences.values(), key=lambda pair: pair[0])  # to the best of the other rows
    at = claim.over.index(claim.peak)
    neighbours = [differences[row] for row in (*claim.over[max(at - 1, 0) : at], *claim.over[at + 1 : at + 2])]
    outcome = "undecided"
    if lead < 0 and _outcome(lead, error, strict=True) == "fails":
        outcome = "fails"
    elif lead >= 0 and all(_outcome(*pair, strict=True) == "holds" for pair in neighbours):
        outcome = "holds"
    return Finding(*min(neighbours, key=lambda pair: pair[0]), outcome)


def _difference(better: Cell, worse: Cell, column: Column) -> tuple[float, float | None]:
    """Difference in the column's own sense and its error, paired by seed or image; repeated timings are no pairs."""
    assert better.value is not None
    assert worse.value is not None
    sign = 1 if column.higher_is_better else -1
    difference = sign * (better.value - worse.value)
    if len(better.samples) == len(worse.samples) > 1 and not column.source.startswith(TIMED):
        return difference, _standard_error(
            tuple(b - w for b, w in zip(better.samples, worse.samples, strict=True)), column
        )
    errors = [_standard_error(cell.samples, column) for cell in (better, worse)]
    known = [error for error in errors if error is not None]
    return difference, sum(error**2 for error in known) ** 0.5 if len(known) == len(errors) else None


def _standard_error(samples: tuple[float, ...], column: Column) -> float | None:
    """Of the samples' mean: zero for a count, None where one sample says nothing about it."""
    if column.source.startswith(COUNTED):
        return 0.0
    return statistics.stdev(samples) / len(samples) ** 0.5 if len(samples) > 1 else None


def _outcome(margin: float, error: float | None, strict: bool) -> str:
    if error is None:
        return "undecided"
    if error == 0:
        return "holds" if margin > 0 or (margin == 0 and not strict) else "fails"
    if abs(margin) <= 2 * error:
        return "undecided"
    return "holds" if margin > 0 else "fails"
