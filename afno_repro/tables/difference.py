"""The difference between two cells of a table, or between a cell and a number, with what is known of its error."""

from dataclasses import dataclass

from afno_repro.tables.inference import Estimate, estimate, exactly, welch
from afno_repro.tables.table import PASSES, Cell


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean difference; `over` says what its n numbers are, as in Cell: nothing where it is exact."""

    over: str

    def outcome(self, slack: float) -> str:
        """On which side of what is asked the whole 95% interval lies; `slack` is the mean's distance from there."""
        return "holds" if slack > self.reach else "fails" if slack < -self.reach else "undecided"


def difference(ours: Cell, theirs: Cell, sign: int = 1) -> Difference:
    """Ours less theirs, or theirs less ours where `sign` is -1.

    Seeds and images that both have are paired, whatever else one of them has. Forward passes are no pairs: the
    difference of their means has Welch's error. What is exact, like a count, a filling or a bound, is so for all.
    """
    over = ours.over or theirs.over
    if ours.over == theirs.over == PASSES and min(len(ours.samples), len(theirs.samples)) > 1:
        found = welch(*([sign * value for value in cell.samples.values()] for cell in (ours, theirs)))
    elif over:
        alike = {cell.over for cell in (ours, theirs)} <= {over, ""}
        keys = [key for key in (ours.samples if ours.over else theirs.samples) if alike and _has(ours, theirs, key)]
        pairs = [sign * (_value(ours, key) - _value(theirs, key)) for key in keys]
        found = estimate(pairs or [sign * (_value(ours) - _value(theirs))])
    else:
        found = exactly(sign * (_value(ours) - _value(theirs)))
    return Difference(found.mean, found.error, found.freedom, found.n, over)


def _has(ours: Cell, theirs: Cell, key: int) -> bool:
    return all(key in cell.samples or not cell.over for cell in (ours, theirs))


def _value(cell: Cell, key: int | None = None) -> float:
    """What a cell has for a seed or image, or for all."""
    assert cell.value is not None
    return cell.samples[key] if cell.over and key is not None else cell.value
