"""What came of a scale in short: what holds, fails and is undecided and why, how costs compare, which rows learned."""

from collections import Counter
from collections.abc import Mapping, Sequence

from afno_repro.tables.claim_words import evidence, sentence
from afno_repro.tables.claims import Verdict
from afno_repro.tables.costs import printed_costs
from afno_repro.tables.document import Block, Grid, Head, Listing, Paragraph, Section, Span, Text
from afno_repro.tables.learning import MARK, learning_notes
from afno_repro.tables.spread import SPREAD_NOTE
from afno_repro.tables.table import Table
from afno_repro.tables.table_section import anchor, label, tone

Verdicts = Mapping[str, Sequence[Verdict]]  # by spec
Counts = dict[str, Counter[str]]  # by the groups of MEANING

UNDER = "claims under other choices"
MEANING = {
    "claims": {
        "holds": "a sentence of the paper is true of the numbers here, with the whole 95% interval of every difference",
        "fails": "it is not, with the whole interval of a difference",
        "undecided": "an interval lies across, there is one seed, a row is not shown to learn, or numbers are missing",
    },
    "claims after Holm": {
        "holds": "of the claims tested over seeds, so it does after Holm's correction for all of them",
        "fails": "so it does after Holm's correction",
        "undecided": "no decision is left, or there was none",
    },
    UNDER: {
        "holds": "a claim, tested again under a choice that the paper leaves open, is true of the numbers here",
        "fails": "it is not",
        "undecided": "as above",
    },
    "counted costs": {
        "stated": "the count rounds to the printed value from the stated configuration",
        "assumed": "it does after a choice that the paper leaves open, listed with the table",
        "differs": "it does not, by the percentage given",
    },
    "cells": {
        "measured": "a number from runs of this reproduction",
        "quoted": "the paper took the row from elsewhere, and it is not run",
        "out_of_memory": "the run did not fit its device",
        "diverged": "the training diverged",
        "missing": "no number yet: see what is missing",
    },
}
SPARSE = (UNDER, "cells")  # groups of which only those words are shown that occur
ONCE = (
    "A cost that two tables print is counted once, in the first; Table 1's orders of growth are compared in its own "
    "section alone."
)


def summary(tables: Sequence[Table], verdicts: Verdicts) -> Section:
    """Claims by outcome, one by one and why, counted costs by verdict, cells by state; then the same by table."""
    counts = counted(tables, verdicts)
    totals = {group: sum((count[group] for count in counts), Counter[str]()) for group in MEANING}
    parts: dict[str, list[Block]] = {group: [_totals(group, totals)] for group in MEANING if _shown(group, totals)}
    blocks = parts.pop("claims") + _claims(tables, verdicts, other_choices=False)
    if UNDER in parts:
        parts[UNDER] += _claims(tables, verdicts, other_choices=True)
    blocks += [Section(_title(group), part) for group, part in parts.items()]
    lost: list[Text] = [(_link(table), f": {note}") for table in tables for note in learning_notes(table)]
    blocks += [Section(f"Rows {MARK}", [Listing(lost)])] if lost else []
    notes = [
        SPREAD_NOTE,
        f"Counted costs are those of the paper's own models at every scale. {ONCE}",
        "A difference is in its column's own sense: above zero is better.",
        "Rows in italics are not in the paper.",
    ]
    links = {table.spec.name: f"#{anchor(table.spec.name)}" for table in tables}
    blocks += [Section("How to read the numbers", [Listing(notes)])]
    blocks += [Section("By table", [overview(tables, verdicts, links)])]
    return Section("What holds, what fails, what is undecided", blocks, "Summary", "summary")


def _title(group: str) -> str:
    return group[0].upper() + group[1:]


def _totals(group: str, totals: Counts) -> Listing:
    """How many there are of each word of a group, and what it means."""
    words, found = MEANING[group], totals[group]
    return Listing(
        [
            (Span(str(found[word]), "strong"), " ", tone(word), f": {words.get(word, 'see the records')}")
            for word in _shown(group, totals)
        ]
    )


def _shown(group: str, totals: Counts) -> list[str]:
    """The words of a group: all of them, or those that occur."""
    words, found = MEANING[group], totals[group]
    return [word for word in [*words, *sorted(set(found) - set(words))] if found[word] or group not in SPARSE]


def _claims(tables: Sequence[Table], verdicts: Verdicts, other_choices: bool) -> list[Block]:
    """A section for each outcome: the claims for which all numbers are there, why, and how many wait for some."""
    every = [(table, verdict) for table in tables for verdict in verdicts[table.spec.name]]
    found = [(table, verdict) for table, verdict in every if bool(verdict.claim.under) is other_choices]
    blocks: list[Block] = []
    for outcome in MEANING["claims"]:
        items: list[Text] = [
            (f"{sentence(verdict)} (", _link(table), f"): {evidence(verdict)}.")
            for table, verdict in found
            if verdict.outcome == outcome and verdict.worst is not None
        ]
        if items:
            blocks.append(Section(f"{_title(outcome)} ({len(items)})", [Listing(items)]))
    waiting = Counter(verdict.reason for _, verdict in found if verdict.worst is None)
    return blocks + [Paragraph(f"{n} more are undecided because {reason}.") for reason, n in sorted(waiting.items())]


def _link(table: Table) -> Span:
    return Span(label(table.spec.name), link=f"#{anchor(table.spec.name)}")


def counted(tables: Sequence[Table], verdicts: Verdicts) -> list[Counts]:
    """How many claims, counted costs and cells of each table are in which state.

    A cost that several tables print counts in the first; cells that a table has no use for are none.
    """
    costs = Counter((item.table.spec.name, item.cell.verdict) for item in printed_costs(tables))
    return [
        {
            "claims": Counter(each.outcome for each in verdicts[table.spec.name] if not each.claim.under),
            "claims after Holm": Counter(
                each.corrected for each in verdicts[table.spec.name] if each.p_holm is not None
            ),
            UNDER: Counter(each.outcome for each in verdicts[table.spec.name] if each.claim.under),
            "counted costs": Counter({word: costs[table.spec.name, word] for word in MEANING["counted costs"]}),
            "cells": Counter(cell.state for cell in table.cells.values() if cell.state != "not_applicable"),
        }
        for table in tables
    ]


def overview(tables: Sequence[Table], verdicts: Verdicts, links: Mapping[str, str], titled: bool = False) -> Grid:
    """A line of counts for each table; runs that two tables share fill cells of both."""
    counts = counted(tables, verdicts)
    groups = {
        group: [word for word in words if group not in SPARSE or any(count[group][word] for count in counts)]
        for group, words in MEANING.items()
    }
    heads = [
        Head("Table"),
        *(
            Head(group, tuple(word.replace("_", " ") for word in words), number=True)
            for group, words in groups.items()
            if words
        ),
    ]
    lines: list[list[Text]] = []
    for table, count in zip(tables, counts, strict=True):
        numbers = [str(count[group][word]) for group, words in groups.items() for word in words]
        title = f": {table.spec.structure.title}" if titled else ""
        lines.append([(Span(label(table.spec.name), link=links[table.spec.name]), title), *numbers])
    return Grid(f"Claims, counted costs and cells by table. {ONCE}", heads, lines)
