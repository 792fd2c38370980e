"""Verdicts in words: the lines of the claims' table, alike in CSV, in Markdown and on the page, and how to read it."""

from collections.abc import Sequence

from afno_repro.spec.claims import Bound, Equivalence, NoWorse, Ordering, Peak
from afno_repro.tables.claims import OUTCOMES, Case, Verdict, sides
from afno_repro.tables.document import Head, Span, Text
from afno_repro.tables.inference import MOST
from afno_repro.tables.numbers import interval, p_value, signed, six
from afno_repro.tables.table import PASSES

CSV_HEADER = [
    *("table", "claim", "under", "rows", "against", "column", "asked", "n", "over", "difference", "low", "high"),
    *("p_case", "p", "p_holm", "verdict", "verdict_holm", "reason", "could_show", "n_needed", "doubt"),
]
HEADS = [
    *(Head("Claim"), Head("Where"), Head("Outcome"), Head("Column"), Head("Asked"), Head("n")),
    *(Head("Difference", number=True), Head("95% interval", number=True), Head("p", number=True)),
    *(Head("After Holm", number=True), Head("Could show", number=True), Head("Would need", number=True)),
]


def csv_line(table: str, verdict: Verdict) -> list[str]:
    """A claim with its worst case, as a line of claims.csv; differences are in the column's own sense and unit."""
    claim, worst = verdict.claim, verdict.worst
    rows, against = (";".join(side) for side in sides(claim))
    case = [";".join(claim.column), *[""] * 6]
    if worst is not None:
        low, high = worst.difference.interval if worst.over else (None, None)
        numbers = [six(value) for value in (worst.difference.mean, low, high)]
        case = [worst.column.key, worst.asked, str(worst.difference.n), worst.over, *numbers]
    own = worst.p if worst is not None and verdict.p is not None else None
    p = [six(own), six(verdict.p), six(verdict.p_holm), verdict.outcome, verdict.corrected, verdict.reason]
    could, need = (six(verdict.power[0]), _many(verdict.power[1])) if verdict.power else ("", "")
    return [table, claim.claim, claim.under, rows, against, *case, *p, could, need, claim.doubt]


def evidence(verdict: Verdict) -> str:
    """Why a claim has its outcome, in one line: its worst case with n, and what is in the way of a decision."""
    worst = verdict.worst
    assert worst is not None
    numbers = f"{signed(worst.difference.mean, worst.column)} {interval(worst.difference, worst.column)}".rstrip()
    said = f"{worst.column.title} {numbers}, asked {worst.asked}, {_counted(worst)}"
    if verdict.outcome != "undecided":
        return said + (f"; {verdict.corrected} after Holm's correction" if verdict.corrected != verdict.outcome else "")
    across = "the interval lies across what is asked"
    if verdict.power and not verdict.reason:
        across += f"; this distance would need {_many(verdict.power[1])} seeds"
    return f"{said}: {verdict.reason or across}"


def _counted(case: Case) -> str:
    """How many numbers a difference rests on, and of what."""
    n, over = case.difference.n, case.difference.over
    return f"{n} {over if n > 1 else over.rstrip('s')}" if over else "exact"


def claim_line(verdict: Verdict) -> list[Text]:
    """A claim with its worst case, as a line below HEADS."""
    claim, worst = verdict.claim, verdict.worst
    said: list[str | Span] = [claim.claim]
    said += [f" ({claim.under})"] if claim.under else []
    said += [" ", Span(f"In doubt: {claim.doubt}.", "em")] if claim.doubt else []
    for word in OUTCOMES[::-1]:
        choices = [under for under, found in verdict.choices if found == word]
        said += [" ", Span(f"Under other choices {word}: {'; '.join(choices)}.", "em")] if choices else []
    outcome: Text = (Span(verdict.outcome, verdict.outcome), f": {verdict.reason}" if verdict.reason else "")
    line: list[Text] = [tuple(said), claim.where, outcome]
    if worst is None:
        return [*line, *["–"] * (len(HEADS) - len(line))]
    found, column = worst.difference, worst.column
    line += [column.title, worst.asked, _counted(worst), signed(found.mean, column), interval(found, column) or "–"]
    changed = f" ({verdict.corrected})" if verdict.corrected != verdict.outcome else ""
    line += ["–" if verdict.p is None else _p(p_value(worst.p), p_value(verdict.p))]
    line += ["–" if verdict.p_holm is None else p_value(verdict.p_holm) + changed]
    if not verdict.power:
        return [*line, "–", "–"]
    return [*line, f"±{signed(verdict.power[0], column).removeprefix('+')}", f"{_many(verdict.power[1])} {found.over}"]


def _p(own: str, largest: str) -> str:
    """The p of the case that is shown, and of the claim where another case has a larger one."""
    return own if own == largest else f"{own} (all cases: {largest})"


def _many(n: int | None) -> str:
    return f"> {MOST}" if n is None else str(n)


def margins(verdicts: Sequence[Verdict]) -> list[str]:
    """Why the margins of claims are what they are, once for all that have the same reason."""
    told: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        if isinstance(verdict.claim, NoWorse | Equivalence) and verdict.worst is not None:
            told.setdefault((verdict.worst.asked, verdict.claim.why), []).append(f'"{sentence(verdict)}"')
    return [f"Asked {asked} of {' and of '.join(said)}: {why}." for (asked, why), said in told.items()]


def sentence(verdict: Verdict) -> str:
    """A claim with the choice under which it is tested."""
    claim = verdict.claim
    return claim.claim + (f", {claim.under}" if claim.under else "")


def claims_legend(verdicts: Sequence[Verdict]) -> str:
    """How to read the line of a claim, as far as the claims at hand need it."""
    over = {verdict.worst.over for verdict in verdicts if verdict.worst}
    forms = tuple(type(verdict.claim) for verdict in verdicts)
    text = "A claim is its worst case, of every pair of rows in every column. The difference is in the column's own "
    text += "sense, with Student's 95% interval; a claim holds where all of the interval is as asked, fails where none "
    text += (
        "of it is, and is undecided between. p is two-sided, below 0.05 where the interval decides; the claim's own "
    )
    text += "is the largest of all its cases', and after Holm that is corrected for all claims of this scale that are "
    text += "tested over seeds."
    if "seeds" in over:
        text += (
            " Over seeds: paired, n trainings of each network. Could show: the smallest distance from what is asked "
        )
        text += "that n seeds show with 80% power; would need: the seeds that the distance seen needs for that."
    if PASSES in over:
        text += (
            " Over forward passes: Welch's interval of the difference of means, of one network each on one machine; "
        )
        text += "no part of Holm's family."
    if "images" in over:
        text += (
            " Over images: paired, of one network each; that tells nothing of another training, so it decides nothing."
        )
    if any(form in (NoWorse, Equivalence) for form in forms):
        text += " Asked > -m: no worse by the margin m that the spec states; within ±m: equivalent."
    if any(isinstance(each.claim, Ordering) and each.claim.by and each.worst for each in verdicts):
        text += " More than so much is asked of the paper's own models alone, of others more than zero."
    if Peak in forms:
        text += " A peak has to be ahead of its neighbours and of the best other row."
    if Bound in forms:
        text += " A bound's difference is how far beyond the bound, a number or another column, the value lies."
    if any(verdict.claim.doubt for verdict in verdicts):
        text += " In doubt: numbers of the paper that contradict its own sentence."
    return text
