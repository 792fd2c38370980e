"""The paper's claims, tested on the tables of a scale: each case by case, and as good as its worst case."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from afno_repro.spec.claims import Bound, Claim, Equivalence, NoWorse, Ordering, Peak
from afno_repro.spec.spec import Column
from afno_repro.tables.alike import UNDECIDED
from afno_repro.tables.difference import Difference, difference
from afno_repro.tables.inference import LEVEL, holm
from afno_repro.tables.learning import MARK, stage_of, unlearned
from afno_repro.tables.table import Cell, Table

OUTCOMES = ("fails", "undecided", "holds")  # worst first
MISSING = "numbers are missing"
LACKING = {"diverged": "a training diverged", "out_of_memory": "a run did not fit its device"}  # and no run mends that


@dataclass(frozen=True)
class Case:
    """A pair of `rows`, or a row and a bound, in one column: the difference, and what is asked of it.

    `asked` is in words, `slack` how far inside of it the mean lies, below zero outside, and `beyond` how far from the
    other edge of an equivalence; `tie` says whether an exact number may lie on the edge.
    """

    rows: tuple[str, ...]
    column: Column
    difference: Difference
    asked: str
    slack: float
    beyond: float | None = None
    tie: bool = False

    @property
    def over(self) -> str:
        return self.difference.over

    @property
    def outcome(self) -> str:
        """Counts have no error: they hold or fail. Images of one network tell nothing of another training."""
        if not self.over:
            return "holds" if self.slack > 0 or (self.tie and self.slack == 0) else "fails"
        return "undecided" if self.over == "images" else self.difference.outcome(self.slack)

    @property
    def p(self) -> float:
        return self.difference.p(self.slack)


@dataclass(frozen=True)
class Verdict:
    """A claim's outcome, holds, fails or undecided, with its worst case, which is None where numbers are missing.

    `p` is the largest of its cases', `p_holm` the same after Holm's correction; `reason` says why nothing is decided
    where that is not the interval.
    """

    claim: Claim
    outcome: str
    worst: Case | None = None
    p: float | None = None
    p_holm: float | None = None
    reason: str = ""
    choices: tuple[tuple[str, str], ...] = ()  # other choices under which the claim was tested, and the outcome

    @property
    def corrected(self) -> str:
        """The outcome after Holm's correction; what is not tested over seeds keeps its own."""
        kept = self.p_holm is None or self.p_holm < 1 - LEVEL
        return self.outcome if kept else "undecided"

    @property
    def power(self) -> tuple[float, int | None] | None:
        """Of what the seeds left open: the smallest distance that they could show, and how many what was seen needs."""
        worst = self.worst
        if worst is None or worst.outcome != "undecided" or worst.over != "seeds":
            return None
        if worst.difference.error == 0 or worst.difference.n == 1:
            return None
        edges = [worst.slack] if worst.slack < 0 or worst.beyond is None else [worst.slack, worst.beyond]
        return worst.difference.detectable, worst.difference.needed(*edges)


def judged(tables: Sequence[Table]) -> dict[str, list[Verdict]]:
    """The verdicts on all claims of one scale's tables, by spec.

    Holm's family are the claims that were tested over seeds, those on rows not shown to learn among them, less those of
    specs that test another spec's claims under choices that it did not make.
    """
    tables = list({table.spec.name: table for table in tables}.values())
    verdicts = {table.spec.name: claim_verdicts(table) for table in tables}
    decides = [table.spec.name for table in tables if not table.spec.structure.choices_of]
    adjusted = iter(holm([each.p for name in decides for each in verdicts[name] if each.p is not None]))
    for name in decides:
        verdicts[name] = [each if each.p is None else replace(each, p_holm=next(adjusted)) for each in verdicts[name]]
    for table in tables:
        if of := table.spec.structure.choices_of:
            verdicts[of] = [_beside(each, verdicts[table.spec.name]) for each in verdicts.get(of, [])]
    return verdicts


def _beside(verdict: Verdict, others: Sequence[Verdict]) -> Verdict:
    """A verdict with what the same sentence came to under other choices, where these were tried."""
    same = [other for other in others if other.claim.claim == verdict.claim.claim and other.reason != MISSING]
    found = [(other.claim.under, other.outcome) for other in same]
    return replace(verdict, choices=(*verdict.choices, *found))


def claim_verdicts(table: Table) -> list[Verdict]:
    """All claims of a table's spec, each as its worst case: the worst outcome, among these the smallest slack.

    A case holds where the whole 95% interval of its difference is inside of what is asked, fails where all of it is
    outside, and is undecided else. Asked is of an ordering, in each column and pair of rows, a difference above `by` of
    the paper's own models, above zero of others; of no worse, one above -margin; of an equivalence, one within
    +-margin; of a bound, a value beyond it; of a peak, that it is ahead of its neighbours along the axis and of the
    best other row.

    A case with one seed or with a row that is not shown to learn decides nothing. Where a number is missing, saw other
    data or was timed elsewhere, the claim is undecided.
    """
    lost = unlearned(table)
    return [_verdict(table, claim, lost) for claim in table.spec.structure.claims]


def _verdict(table: Table, claim: Claim, lost: dict[tuple[str, str], list[str]]) -> Verdict:
    ours, theirs = sides(claim)
    columns = [column for column in table.columns if column.key in claim.column]
    beside = [claim.bound] if isinstance(claim, Bound) and isinstance(claim.bound, str) else []
    cells = {(row, key): table.cells[row, key] for row, key in product(ours + theirs, claim.column + beside)}
    lacking = {cell.state for cell in cells.values()} - {"measured"}
    if lacking:
        ended = " and ".join(LACKING[state] for state in sorted(lacking)) if lacking <= LACKING.keys() else ""
        return Verdict(claim, "undecided", reason=ended or MISSING)
    if marks := {cell.mark for cell in cells.values()} - {""}:
        return Verdict(claim, "undecided", reason=" and ".join(UNDECIDED[mark] for mark in sorted(marks)))
    names = {row.key: row.title[-1] for row in table.spec.rows}

    held_to = {stage_of(column) for column in table.columns if column.key in beside}

    def flat(case: Case) -> list[str]:
        stages = {stage_of(case.column), *held_to}
        return [names[row] for row in case.rows if any((row, stage) in lost for stage in stages)]

    def outcome(case: Case) -> str:
        return "undecided" if flat(case) else case.outcome

    cases = [case for column in columns for case in _cases(table, claim, column)]
    worst = min(cases, key=lambda case: (OUTCOMES.index(outcome(case)), case.slack))
    seeded = [case for case in cases if case.over == "seeds"]
    p = max(case.p for case in seeded) if seeded and all(case.difference.n > 1 for case in seeded) else None
    found = list(dict.fromkeys(name for case in cases for name in flat(case)))
    if found and outcome(worst) == "undecided":
        named = " and ".join(found if len(found) == 1 else [f'"{name}"' for name in found])
        return Verdict(claim, "undecided", worst, p, reason=f"{MARK}: {named}")
    alone = worst.outcome == "undecided" and (worst.over == "images" or worst.difference.n == 1)
    apart = alone and worst.over == "seeds" and all(cells[row, worst.column.key].seeds > 1 for row in worst.rows)
    reason = "no two seeds in common" if apart else "one seed" if alone else ""
    return Verdict(claim, worst.outcome, worst, p, reason=reason)


def sides(claim: Claim) -> tuple[list[str], list[str]]:
    """The rows of a claim: those that it speaks of, and those that they are compared with."""
    match claim:
        case Ordering():
            return claim.better, claim.worse
        case NoWorse():
            return claim.no_worse, claim.than
        case Equivalence():
            return claim.equivalent, claim.to
        case Peak():
            return [claim.peak], [row for row in claim.over if row != claim.peak]
        case Bound():
            return claim.better, []


def _cases(table: Table, claim: Claim, column: Column) -> Iterator[Case]:
    sign = 1 if column.higher_is_better else -1
    cells = {row: cell for (row, key), cell in table.cells.items() if key == column.key}
    ours, theirs = sides(claim)
    if isinstance(claim, Bound):  # above or below it, whichever sense the column has
        sense = 1 if claim.below is None else -1
        for row in ours:
            bound = table.cells[row, claim.bound] if isinstance(claim.bound, str) else Cell("measured", claim.bound)
            found = difference(cells[row], bound, sense)
            yield Case((row,), column, found, "> 0", found.mean)
        return
    if isinstance(claim, Peak):
        theirs = _rivals(claim, cells, sign)
    for one, other in product(ours, theirs):
        found = difference(cells[one], cells[other], sign)
        if isinstance(claim, Ordering):
            by = claim.by if "paper" in (table.scale, column.at) else 0.0
            yield Case((one, other), column, found, f"> {by:g}", found.mean - by, tie=claim.by == 0)
        elif isinstance(claim, Peak):
            yield Case((one, other), column, found, "> 0", found.mean)
        else:
            margin = claim.margin[table.scale]  # type: ignore[index]
            within = isinstance(claim, Equivalence)
            slack = margin - abs(found.mean) if within else margin + found.mean
            asked = f"within ±{margin:g}" if within else f"> -{margin:g}"
            yield Case((one, other), column, found, asked, slack, margin + abs(found.mean) if within else None)


def _rivals(claim: Peak, cells: Mapping[str, Cell], sign: int) -> list[str]:
    """What a peak has to be ahead of: its neighbours along the axis, and the best of all other rows."""
    at = claim.over.index(claim.peak)
    best = max((row for row in claim.over if row != claim.peak), key=lambda row: sign * (cells[row].value or 0.0))
    return list(dict.fromkeys([*claim.over[max(at - 1, 0) : at], *claim.over[at + 1 : at + 2], best]))
