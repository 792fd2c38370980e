"""Claims on made-up tables: what each form of claim comes to, and what is said of a claim that has none."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import nct, t, ttest_1samp, ttest_rel

from afno_repro.errors import ConfigError
from afno_repro.spec.claims import Bound, Equivalence, NoWorse, Ordering, Peak
from afno_repro.spec.reader import load_spec
from afno_repro.tables.claim_words import claim_line, margins
from afno_repro.tables.claims import claim_verdicts, judged
from afno_repro.tables.inference import holm
from afno_repro.tables.report import report_files
from afno_repro.tables.results import table_markdown, write_results
from tests.specs import SMALL, write_spec
from tests.tables.test_table import Made

pytestmark = pytest.mark.fast

OLD = "  - {claim: AFNO beats GFN, where: here, column: psnr, better: afno, worse: gfn, by: 0.0}\n"
AXIS = ("l_0", "l_0.01", "l_0.1", "l_1")
ROW = (
    "  - {{key: {key}, title: [ViT, {key}], model: {{mixer: {{name: gfn}}}}, "
    "pretrain: {{train: {{lr: {lr}}}}}, paper: {{}}}}\n"
)
PEAK = f"  - {{claim: the axis peaks, where: here, column: psnr, peak: l_0.01, over: [{', '.join(AXIS)}]}}\n"
CLEAN = (20.1, 20.1001, 20.0999)
MARGIN = "margin: {tiny: 0.5, smoke: 9.0, paper: 0.1}, why: so"
NO_WORSE = f"  - {{claim: it competes, where: here, column: psnr, no_worse: afno, than: gfn, {MARGIN}}}\n"
EQUAL = f"  - {{claim: it matches, where: here, column: psnr, equivalent: afno, to: gfn, {MARGIN}}}\n"
BOUND = "  - {claim: all are high, where: here, column: psnr, better: [afno, gfn], above: 20}\n"


def text(claim, seeds="[0, 1, 2]", columns=""):
    """The small spec with an axis of four rows, a second column and one claim."""
    rows = "".join(ROW.format(key=key, lr=0.1 / (i + 1)) for i, key in enumerate(AXIS))
    made = (
        SMALL.replace(OLD, claim)
        .replace("scales:\n", f"{rows}scales:\n")
        .replace("tiny: {seeds: [0]}", f"tiny: {{seeds: {seeds}}}")
    )
    second = "  - {key: error, title: Error, source: pretrain/error, digits: 2, higher_is_better: false}\n"
    return made.replace("rows:\n  - key: gfn", f"{second}{columns}rows:\n  - key: gfn")


def verdict(tmp_path, claim, values, metric="psnr", seeds="[0, 1, 2]"):
    """What a claim comes to; values are by row, one a seed, or metrics by name."""
    made = Made(tmp_path, text(claim, seeds))
    for row, samples in values.items():
        for seed, sample in enumerate(samples):
            made.put(row, "pretrain", seed, **(sample if isinstance(sample, dict) else {metric: sample}))
    return claim_verdicts(made.table())[0]


def told(verdict):
    """A verdict's outcome and the mean difference of its worst case."""
    return verdict.outcome, verdict.worst.difference.mean


def along(*means, noise=(0.0, 0.1, -0.1)):
    """Values of the axis' rows: means with noise that differs by row, so that paired differences have an error."""
    return {row: [mean + (i % 2) * n for n in noise] for i, (row, mean) in enumerate(zip(AXIS, means, strict=True))}


@pytest.mark.parametrize(
    ("means", "outcome", "margin"),
    [
        ((20.0, 21.0, 20.5, 10.0), "holds", 0.5),
        ((20.0, 21.0, 20.76, 10.0), "undecided", 0.24),  # one neighbour is within the interval, 4.303 x 0.0577
        ((20.0, 21.0, 20.74, 10.0), "holds", 0.26),
        ((20.0, 21.0, 21.1, 10.0), "undecided", -0.1),  # the mean peaks elsewhere, not by enough
        ((20.0, 21.0, 22.0, 10.0), "fails", -1.0),
        ((20.0, 21.0, 20.5, 22.0), "fails", -1.0),  # both neighbours are beaten, but the axis peaks at its far end
    ],
)
def test_a_peak_is_compared_with_its_neighbours_and_with_the_best(tmp_path, means, outcome, margin):
    found = verdict(tmp_path, PEAK, along(*means))
    assert told(found) == (outcome, pytest.approx(margin))


def test_a_peaks_differences_are_paired_by_seed(tmp_path):
    found = verdict(
        tmp_path,
        PEAK,
        {
            row: [mean + 10 * seed for seed in range(3)]
            for row, mean in zip(AXIS, (20.0, 21.0, 20.5, 10.0), strict=True)
        },
    )
    assert (found.outcome, found.worst.difference.error) == ("holds", 0.0)
    found = verdict(tmp_path, PEAK, along(20.0, 21.0, 20.5, 10.0))
    assert found.worst.difference.error == pytest.approx(0.1 / 3**0.5)


@pytest.mark.parametrize(("end", "means"), [("l_0", (21.0, 20.0, 19.9, 10.0)), ("l_1", (10.0, 20.0, 20.0, 21.0))])
def test_a_peak_at_an_end_has_one_neighbour(tmp_path, end, means):
    found = verdict(tmp_path, PEAK.replace("peak: l_0.01", f"peak: {end}"), along(*means))
    assert told(found) == ("holds", pytest.approx(1.0))


def test_a_peak_without_seeds_or_numbers_is_undecided(tmp_path):
    found = verdict(tmp_path, PEAK, along(20.0, 21.0, 20.5, 10.0, noise=(0.0,)), seeds="[0]")
    assert (*told(found), found.reason, found.p) == ("undecided", pytest.approx(0.5), "one seed", None)
    assert verdict(tmp_path, PEAK, along(20.0, 21.0, 22.0, 10.0, noise=(0.0,)), seeds="[0]").outcome == "undecided"


def test_a_peak_with_a_missing_row_is_undecided(tmp_path):
    values = along(20.0, 21.0, 22.0, 10.0)
    del values["l_1"]
    found = verdict(tmp_path, PEAK, values)
    assert (found.outcome, found.worst, found.reason) == ("undecided", None, "numbers are missing")


def both(psnr, error):
    """Two metrics at once."""
    first, second = along(*psnr), along(*error)
    return {row: [{"psnr": p, "error": e} for p, e in zip(first[row], second[row], strict=True)] for row in AXIS}


HIGH, CLOSE, LOW = (20.0, 21.0, 20.5, 10.0), (20.0, 21.0, 20.95, 10.0), (20.0, 21.0, 20.5, 25.0)


@pytest.mark.parametrize(
    ("psnr", "error", "outcome", "margin"),
    [
        (
            HIGH,
            (5.0, 3.0, 6.0, 9.0),
            "holds",
            0.5,
        ),  # fewer errors are better: the second column peaks where it is smallest
        (CLOSE, (5.0, 3.0, 6.0, 9.0), "undecided", 0.05),
        (CLOSE, (5.0, 3.0, 6.0, 1.0), "fails", -2.0),
        (LOW, (3.05, 3.0, 6.0, 9.0), "fails", -4.0),
    ],
)
def test_the_worst_column_decides_a_peak(tmp_path, psnr, error, outcome, margin):
    found = verdict(tmp_path, PEAK.replace("column: psnr", "column: [psnr, error]"), both(psnr, error))
    assert told(found) == (outcome, pytest.approx(margin))


@pytest.mark.parametrize(
    ("afno", "gfn", "outcome", "margin"),
    [
        ((21.0, 21.1, 20.9), (25.0, 25.0, 25.0), "holds", 1.0),
        ((21.0, 21.1, 20.9), (19.0, 19.1, 18.9), "fails", -1.0),
        ((20.1, 20.0, 20.0), (25.0, 25.0, 25.0), "undecided", 0.1 / 3),
        ((20.0, 20.0, 20.0), (25.0, 25.0, 25.0), "undecided", 0.0),  # neither above nor below it
    ],
)
def test_a_bound_is_as_good_as_its_worst_cell(tmp_path, afno, gfn, outcome, margin):
    found = verdict(tmp_path, BOUND, {"afno": afno, "gfn": gfn})
    assert told(found) == (outcome, pytest.approx(margin))


def test_a_bound_is_above_in_every_column_whatever_its_sense(tmp_path):
    values = {
        row: [{"psnr": 25.0, "error": error + seed} for seed in range(3)]
        for row, error in (("afno", 30.0), ("gfn", 40.0))
    }
    assert told(verdict(tmp_path, BOUND.replace("psnr", "[psnr, error]"), values))[1] == pytest.approx(5.0)
    assert told(verdict(tmp_path, BOUND.replace("psnr", "error"), values))[1] == pytest.approx(11.0)


def test_a_bound_from_above_is_held_to_the_largest_cell(tmp_path):
    below = BOUND.replace("above: 20", "below: 30")
    values = {"afno": (21.0, 21.1, 20.9), "gfn": (25.0, 25.0, 25.0)}
    assert told(verdict(tmp_path, below, values)) == ("holds", pytest.approx(5.0))
    values["gfn"] = (31.0, 31.1, 30.9)
    assert told(verdict(tmp_path, below, values)) == ("fails", pytest.approx(-1.0))


def test_a_bound_may_be_another_column_of_the_same_row(tmp_path):
    """As where the last layer is held to the mean of all: paired by seed, whatever the columns' senses."""
    values = {row: [{"psnr": 25.0 + seed, "error": 23.0 + seed} for seed in range(3)] for row in ("afno", "gfn")}
    found = verdict(tmp_path, BOUND.replace("above: 20", "above: error"), values)
    assert (*told(found), found.worst.difference.error) == ("holds", pytest.approx(2.0), 0.0)
    assert told(verdict(tmp_path, BOUND.replace("above: 20", "below: error"), values)) == ("fails", pytest.approx(-2.0))
    alone = {row: [{"psnr": 25.0 + seed} for seed in range(3)] for row in ("afno", "gfn")}
    assert verdict(tmp_path, BOUND.replace("above: 20", "above: error"), alone).reason == "numbers are missing"


@pytest.mark.parametrize(("by", "outcome"), [(0.05, "holds"), (0.2, "fails")])
def test_of_the_paper_s_own_models_as_much_is_asked_at_every_scale(tmp_path, by, outcome):
    claim = OLD.replace("column: psnr", "column: gflops").replace("by: 0.0", f"by: {by}")
    table = Made(tmp_path, text(claim)).put("afno", "cost", gflops=0.5).put("gfn", "cost", gflops=0.6).table()
    assert claim_verdicts(table)[0].outcome == outcome
    assert (
        verdict(tmp_path / "tiny", OLD.replace("by: 0.0", f"by: {by}"), {"afno": CLEAN, "gfn": (20.0,) * 3}).outcome
        == "holds"
    )


@pytest.mark.parametrize("bounds", ["above: 20, below: 30", "above: null"])
def test_a_bound_is_on_one_side(tmp_path, bounds):
    with pytest.raises(ConfigError, match=r"claims\.0: must have either above or below"):
        Made(tmp_path, text(BOUND.replace("above: 20", bounds)))


def test_a_bound_without_seeds_or_numbers_is_undecided(tmp_path):
    found = verdict(tmp_path, BOUND, {"afno": (25.0,), "gfn": (24.0,)}, seeds="[0]")
    assert (*told(found), found.reason) == ("undecided", pytest.approx(4.0), "one seed")


def test_a_bound_on_a_missing_cell_is_undecided(tmp_path):
    assert verdict(tmp_path, BOUND, {"afno": (25.0, 25.1, 25.2)}).worst is None


@pytest.mark.parametrize("stage", ["cost", "pretrained_cost"])
@pytest.mark.parametrize(("share", "outcome"), [(0.6, "holds"), (0.5, "fails"), (0.4, "fails")])
def test_a_counted_share_has_no_error(tmp_path, stage, share, outcome):
    claim = "  - {claim: most is in MLPs, where: here, column: mlp_share, better: [afno, gfn], above: 0.5}\n"
    made = text(
        claim,
        columns=f"  - {{key: mlp_share, title: Share, source: {stage}/mlp_share, "
        "at: paper, digits: 3, higher_is_better: true}\n",
    )
    made = made.replace(
        "stages:\n", "stages:\n  pretrained_cost: {kind: profile, task: {name: count}, data: {image_size: 8}}\n"
    )
    made = made.replace("    cost: null\n", "    cost: null\n    pretrained_cost: null\n")
    table = Made(tmp_path, made).put("afno", stage, mlp_share=share).put("gfn", stage, mlp_share=0.9).table()
    found = claim_verdicts(table)[0]
    assert (*told(found), found.worst.difference.error) == (outcome, pytest.approx(share - 0.5), 0.0)


def test_the_worst_outcome_decides_an_ordering_before_the_smallest_margin(tmp_path):
    claim = OLD.replace("column: psnr", "column: [psnr, error]")
    afno = [{"psnr": 20.5 + n, "error": 10.0 + 20 * n} for n in (0.0, 0.01, -0.01)]
    gfn = [{"psnr": 20.0, "error": 11.0} for _ in range(3)]
    found = verdict(
        tmp_path, claim, {"afno": afno, "gfn": gfn}
    )  # PSNR is clearly better by 0.5, the error by 1.0 +- 0.5
    assert told(found) == ("holds", pytest.approx(0.5))
    noisy = [{"psnr": one["psnr"], "error": 10.0 + 100 * n} for one, n in zip(afno, (0.0, 0.01, -0.01), strict=True)]
    found = verdict(tmp_path, claim, {"afno": noisy, "gfn": gfn})  # now the error by 1.0 +- 0.58
    assert told(found) == ("undecided", pytest.approx(1.0))


def test_the_forms_are_told_apart(tmp_path):
    claims = load_spec(write_spec(tmp_path, text(OLD + PEAK + BOUND + NO_WORSE + EQUAL))).structure.claims
    assert [type(claim) for claim in claims] == [Ordering, Peak, Bound, NoWorse, Equivalence]
    assert claims[0].doubt == ""


def test_doubts_and_sides_stand_beside_the_claims(tmp_path):
    doubted = PEAK.replace("column: psnr", 'column: psnr, doubt: "Figure 4 | shows 0.1"')
    made = Made(tmp_path, text(OLD + doubted + BOUND))
    write_results(made.folder, [made.table()])
    lines = list(csv.DictReader(io.StringIO((made.folder / "claims.csv").read_text())))
    assert [(line["rows"], line["against"]) for line in lines] == [
        ("afno", "gfn"),
        ("l_0.01", "l_0;l_0.1;l_1"),
        ("afno;gfn", ""),
    ]
    assert [line["doubt"] for line in lines] == ["", "Figure 4 | shows 0.1", ""]
    page = table_markdown(made.table(), claim_verdicts(made.table()))
    assert "| the axis peaks *In doubt: Figure 4 \\| shows 0.1.* | here |" in page
    assert "In doubt: numbers of the paper" in page
    plain = Made(tmp_path, text(OLD)).table()
    assert not any(word in table_markdown(plain, claim_verdicts(plain)) for word in ("doubt", "peak", "bound"))


ORDERING = "claim, where, column, doubt, under, better, worse, by"
FORMS = "a claim has better, worse and by; or no_worse, than, margin and why; or equivalent, to, margin and why; "
FORMS += "or peak and over; or better and above"


@pytest.mark.parametrize(
    ("claim", "old", "new", "says"),
    [
        (OLD, "worse: gfn, ", "", "claims.0: the key 'worse' is missing\n  " + FORMS),
        (OLD, ", by: 0.0", "", "claims.0: the key 'by' is missing\n  " + FORMS),
        (OLD, "better: afno, worse: gfn, by: 0.0", "colour: red", "claims.0: the key 'better' is missing"),
        (OLD, "by: 0.0", "by: much", "claims.0.by: input should be a valid number"),
        (OLD, "by: 0.0", "by: -0.1", "claims.0.by: input should be greater than or equal to 0"),
        (NO_WORSE, ", than: gfn", "", "claims.0: the key 'than' is missing\n  " + FORMS),
        (NO_WORSE, "than: gfn", "than: gfnn", "claims.0.than: there is no row 'gfnn'"),
        (NO_WORSE, "tiny: 0.5, ", "", "claims.0.margin: must have a number for each of the spec's scales: tiny, smoke"),
        (NO_WORSE, "tiny: 0.5", "tiny: 0.0", "claims.0.margin.tiny: input should be greater than 0"),
        (NO_WORSE, "tiny: 0.5", "big: 0.5", "claims.0.margin.big: input should be 'smoke', 'tiny'"),
        (
            OLD,
            "where: here",
            "where: here, under: two",
            "claims.0.under: 'under' stands only where the spec has choices_of",
        ),
        (EQUAL, ", why: so", "", "claims.0: the key 'why' is missing\n  " + FORMS),
        (EQUAL, "equivalent: afno", "equivalent: afn", "claims.0.equivalent: there is no row 'afn'"),
        (
            OLD,
            "by: 0.0",
            "by: 0.0, dobt: x",
            "claims.0.dobt: unknown key 'dobt'\n  the ordering claim's keys: " + ORDERING + ". Did you mean 'doubt'?",
        ),
        (OLD, "better: afno", "better: []", "claims.0.better: list should have at least 1 item"),
        (
            OLD,
            "by: 0.0",
            "above: 0.5",
            "claims.0.worse: unknown key 'worse'\n"
            "  the bound claim's keys: claim, where, column, doubt, under, better, above, below.",
        ),
        (PEAK, "peak: l_0.01, ", "", "claims.0: the key 'peak' is missing\n  " + FORMS),
        (PEAK, f", over: [{', '.join(AXIS)}]", "", "claims.0: the key 'over' is missing\n  " + FORMS),
        (PEAK, ", over", ", better: afno, over", "claims.0.better: unknown key 'better'\n  the peak claim's keys: "),
        (PEAK, ", over", ", by: 0.0, over", "claims.0.by: unknown key 'by'"),
        (PEAK, "column: psnr", "column: snr", "claims.0.column: there is no column 'snr'"),
        (PEAK, "l_0.1, l_1]", "l_0.2, l_1]", "claims.0.over: there is no row 'l_0.2'"),
        (PEAK, "l_0.1, l_1]", "l_0.1, l_0.1]", "claims.0.over: duplicate row 'l_0.1'"),
        (PEAK, "peak: l_0.01", "peak: afno", "claims.0.peak: 'afno' is not among the rows in 'over'"),
        (PEAK, ", ".join(AXIS), "l_0.01", "claims.0.over: list should have at least 2 items"),
        (PEAK, f"[{', '.join(AXIS)}]", "l_0.01", "claims.0.over: input should be a valid list"),
        (BOUND, "better: [afno, gfn]", "better: [afno, gfnn]", "claims.0.better: there is no row 'gfnn'"),
        (BOUND, "better: [afno, gfn], ", "", "claims.0: the key 'better' is missing\n  " + FORMS),
        (BOUND, "above: 20", "above: 20, peak: gfn", "claims.0.above: unknown key 'above'"),
        (BOUND, "above: 20", "above: true", "claims.0.above: must be a number or the key of a column, is True"),
        (BOUND, "above: 20", "above: psn", "claims.0.above: there is no column 'psn'"),
        (
            BOUND,
            "{claim: all are high, where: here, column: psnr, better: [afno, gfn], above: 20}",
            "5",
            "claims.0: input should be a valid dictionary",
        ),
    ],
)
def test_a_mistake_in_a_claim_is_named_with_its_place(tmp_path, claim, old, new, says):
    broken = text(claim.replace(old, new, 1))
    assert broken != text(claim)
    with pytest.raises(ConfigError) as error:
        load_spec(write_spec(tmp_path, broken), "small.yaml")
    assert says in str(error.value)
    line = broken.splitlines().index("claims:") + 2
    assert {problem.place.rsplit(":", 1)[0] for problem in error.value.problems} == {f"small.yaml:{line}"}
    key = says.split(":")[0].removeprefix("claims.0").removeprefix(".")
    keys = tuple(key.split("."))
    columns = [int(problem.place.rsplit(":", 1)[1]) for problem in error.value.problems if problem.key[2:] == keys]
    assert all(broken.splitlines()[line - 1][column - 1 :].startswith(keys[-1]) for column in columns)
    assert columns or not key


@pytest.mark.parametrize(
    ("gfn", "no_worse", "equal"),
    [
        ((20.0, 20.1, 19.9), "holds", "holds"),  # 0 +- 0.25
        ((19.0, 19.1, 18.9), "holds", "fails"),  # far ahead is no worse, but not on par
        ((21.0, 21.1, 20.9), "fails", "fails"),
        ((20.4, 20.5, 20.3), "undecided", "undecided"),  # -0.4 +- 0.25, the margin 0.5
        ((19.6, 19.7, 19.5), "holds", "undecided"),
        ((20.0, 21.0, 19.0), "undecided", "undecided"),  # equal on average, but nobody knows: 0 +- 2.5
    ],
)
def test_no_worse_and_equivalent_are_held_to_the_margin_of_the_scale(tmp_path, gfn, no_worse, equal):
    values = {"afno": (20.0, 20.0, 20.0), "gfn": gfn}
    for claim, outcome in ((NO_WORSE, no_worse), (EQUAL, equal)):
        found = verdict(tmp_path, claim, values)
        assert found.outcome == outcome
        low, high = found.worst.difference.interval
        inside, outside = low > -0.5, high < -0.5
        if claim == EQUAL:
            inside, outside = low > -0.5 and high < 0.5, high < -0.5 or low > 0.5
        assert (outcome == "holds", outcome == "fails") == (inside, outside)


def test_no_worse_and_equivalence_have_the_p_of_one_sided_tests_at_half_the_level(tmp_path):
    ours, theirs = np.array([20.3, 20.1, 20.2]), np.array([20.2, 20.25, 20.1])
    values = {"afno": tuple(ours), "gfn": tuple(theirs)}
    below = ttest_1samp(ours - theirs, -0.5, alternative="greater").pvalue
    above = ttest_1samp(ours - theirs, 0.5, alternative="less").pvalue
    assert verdict(tmp_path, NO_WORSE, values).p == pytest.approx(2 * below)
    assert verdict(tmp_path, EQUAL, values).p == pytest.approx(2 * max(below, above))


def test_a_claims_p_is_the_largest_of_its_cases(tmp_path):
    claim = OLD.replace("worse: gfn", "worse: [l_0, l_0.1]")
    values = {"afno": (21.0, 21.3, 21.1), "l_0": (20.0, 20.1, 20.0), "l_0.1": (20.9, 20.5, 20.6)}
    found = verdict(tmp_path, claim, values)
    every = [ttest_rel(values["afno"], values[row]).pvalue for row in ("l_0", "l_0.1")]
    assert found.p == pytest.approx(max(every))
    failed = verdict(tmp_path, claim, {**values, "l_0": (22.0, 22.1, 22.0)})  # the case that fails has the smaller p
    case, largest = (ttest_rel(values["afno"], other).pvalue for other in ((22.0, 22.1, 22.0), values["l_0.1"]))
    assert (failed.outcome, failed.worst.p, failed.p) == ("fails", pytest.approx(case), pytest.approx(largest))
    assert f"{case:.2g} (all cases: {largest:.2g})" in claim_line(failed)


def test_seeds_are_paired_by_their_number_whatever_else_a_row_has(tmp_path):
    made = Made(tmp_path, text(OLD))
    for seed, value in ((0, 20.0), (2, 24.0)):
        made.put("afno", "pretrain", seed, psnr=value)
    for seed, value in ((0, 19.0), (1, 50.0), (2, 22.8)):
        made.put("gfn", "pretrain", seed, psnr=value)
    found = claim_verdicts(made.table())[0].worst.difference
    assert (found.n, found.mean) == (2, pytest.approx(1.1))


@pytest.mark.parametrize(("theirs", "reason"), [((2, 3), "no two seeds in common"), ((2,), "one seed")])
def test_rows_of_other_seeds_are_not_compared(tmp_path, theirs, reason):
    made = Made(tmp_path, text(OLD, "[0, 1, 2, 3]"))
    for seed in (0, 1):
        made.put("afno", "pretrain", seed, psnr=20.0 + seed)
    for seed in theirs:
        made.put("gfn", "pretrain", seed, psnr=15.0 + seed)
    (found,) = claim_verdicts(made.table())
    assert (found.outcome, found.reason) == ("undecided", reason)


@pytest.mark.parametrize(
    ("outcome", "reason"), [("diverged", "a training diverged"), ("out_of_memory", "a run did not fit its device")]
)
def test_a_claim_on_a_run_that_ended_without_a_number_says_how_it_ended(tmp_path, outcome, reason):
    made = Made(tmp_path, text(OLD, "[0]"))
    made.put("afno", "pretrain", outcome=outcome)
    assert claim_verdicts(made.table())[0].reason == "numbers are missing"
    made.put("gfn", "pretrain", psnr=20.0)
    (found,) = claim_verdicts(made.table())
    assert (found.outcome, found.reason) == ("undecided", reason)
    (page,) = (text for path, text in report_files(tmp_path, [made.table()], {}).items() if path.suffix == ".md")
    assert f"1 more are undecided because {reason}." in page


def test_an_equivalence_needs_both_edges_and_its_margin_has_a_reason(tmp_path):
    found = verdict(tmp_path, EQUAL, {"afno": (20.3, 19.6, 20.2), "gfn": (20.0, 20.1, 20.1)})
    edges = 0.5 - abs(found.worst.difference.mean), 0.5 + abs(found.worst.difference.mean)
    assert found.power[1] == found.worst.difference.needed(*edges) > found.worst.difference.needed(edges[0])
    assert margins([found]) == [f'Asked within ±0.5 of "{found.claim.claim}": {found.claim.why}.']


def test_images_of_one_network_decide_nothing(tmp_path):
    made = Made(tmp_path, text(OLD), scale="smoke")
    for row, value in (("afno", 20.0), ("gfn", 10.0)):
        made.put(row, "pretrain", psnr=value, repeats={"psnr": [value - 1, value, value + 1.1]})
    cells = {key: replace(cell, over="images") for key, cell in made.table().cells.items() if cell.samples}
    found = claim_verdicts(replace(made.table(), cells={**made.table().cells, **cells}))[0]
    assert (found.outcome, found.reason, found.p) == ("undecided", "one seed", None)
    assert found.worst.difference.n == 3


def test_the_undecided_say_what_they_could_show_and_what_it_takes(tmp_path):
    found = verdict(tmp_path, OLD, {"afno": (20.3, 20.0, 20.2), "gfn": (20.0, 20.1, 20.1)})
    assert found.outcome == "undecided"
    could, need = found.power
    differences = np.array([0.3, -0.1, 0.1])
    sd = differences.std(ddof=1)

    def shown(effect, n):
        return nct.sf(t.ppf(0.975, n - 1), n - 1, effect / sd * n**0.5)

    assert shown(could, 3) == pytest.approx(0.8, abs=1e-6)
    assert shown(differences.mean(), need - 1) < 0.8 <= shown(differences.mean(), need)
    assert verdict(tmp_path, OLD, {"afno": (21.3, 21.0, 21.2), "gfn": (20.0, 20.1, 20.1)}).power is None
    assert verdict(tmp_path, OLD, {"afno": (20.0, 20.0, 20.0), "gfn": (20.0, 20.0, 20.0)}).power is None


CLEAR = ((21.0, 20.0), (21.3, 20.1), (21.1, 20.0))


def made_twice(tmp_path, more="", values=CLEAR):
    """Two tables with the same claims, of which the second tests the first one's under another choice."""
    tables = []
    for name, end in (("one", ""), ("other", more)):
        under = "under: two skips, " if end else ""
        made = Made(tmp_path / name, text(OLD + NO_WORSE).replace("here, ", f"here, {under}") + end)
        for seed, (a, b) in enumerate(values):
            made.put("afno", "pretrain", seed, psnr=a).put("gfn", "pretrain", seed, psnr=b)
        table = made.table()
        tables.append(replace(table, spec=replace(table.spec, name=name)))
    return tables


def test_holms_family_are_the_claims_of_all_tables_of_a_scale(tmp_path):
    found = judged(made_twice(tmp_path))
    every = [each for some in found.values() for each in some]
    assert [each.p_holm for each in every] == pytest.approx(holm([each.p for each in every]))
    assert len({each.p for each in every}) == 2
    assert [each.corrected for each in every] == [each.outcome if each.p_holm < 0.05 else "undecided" for each in every]
    ones = made_twice(tmp_path)[:1]
    assert judged([*ones, *ones])["one"] == judged(ones)["one"]  # the same table twice is one


def test_claims_under_other_choices_are_of_no_family_and_stand_beside_the_claim(tmp_path):
    tables = made_twice(tmp_path, "choices_of: one\n")
    found = judged(tables)
    assert found["one"][0].p_holm == judged(tables[:1])["one"][0].p_holm
    assert [each.p_holm for each in found["other"]] == [None, None]
    assert [each.choices for each in found["one"]] == [(("two skips", "holds"),)] * 2
    assert "*Under other choices holds: two skips.*" in table_markdown(tables[0], found["one"])
    assert "AFNO beats GFN (two skips)" in table_markdown(tables[1], found["other"])


def test_a_choice_that_was_not_tried_stands_beside_no_claim(tmp_path):
    first, second = made_twice(tmp_path, "choices_of: one\n")
    untried = replace(second, cells={key: replace(cell, state="missing") for key, cell in second.cells.items()})
    found = judged([first, untried])
    assert [each.reason for each in found["other"]] == ["numbers are missing"] * 2
    assert [each.choices for each in found["one"]] == [()] * 2


def test_the_report_counts_verdicts_before_and_after_holm(tmp_path):
    tables = made_twice(tmp_path, values=((20.83, 20.0), (21.77, 20.0), (21.3, 20.0)))  # p 0.041 and 0.022, twice
    text_ = report_files(tmp_path, tables, {})[tmp_path / "report.md"]
    assert "what is undecided\n\n- **4** holds: " in text_
    assert "### Claims after Holm\n\n- **0** holds: " in text_
    first, second = ((each.p, each.p_holm) for each in judged(tables)["one"])
    assert second[1] == first[1] == pytest.approx(4 * second[0])
    assert f"| {first[0]:.2g} | {first[1]:.2g} (undecided) |" in text_


def test_the_report_counts_tests_under_other_choices_apart_and_none_of_them_after_holm(tmp_path):
    tables = made_twice(tmp_path, "choices_of: one\n")
    summary = report_files(tmp_path, tables, {})[tmp_path / "report.md"].partition("### Counted costs")[0]
    claims, _, rest = summary.partition("### Claims after Holm")
    after, _, others = rest.partition("### Claims under other choices")
    for part, title in ((claims, "\n### Holds (2)\n"), (others, "\n#### Holds (2)\n")):
        assert "- **2** holds: " in part
        assert title in part
        assert part.count("AFNO beats GFN, two skips") == (part is others)
    assert "- **2** holds: " in after
    assert "- **0** undecided: " in after


def test_a_claim_under_other_choices_names_the_choice(tmp_path):
    with pytest.raises(ConfigError, match="'under' must name the choice"):
        load_spec(write_spec(tmp_path, text(OLD) + "choices_of: table2\n"))
