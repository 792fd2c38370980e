"""Claims on made-up tables: what each form of claim comes to, and what is said of a claim that has none."""

import csv
import io

import pytest

from afno_repro.errors import ConfigError
from afno_repro.spec.reader import load_spec
from afno_repro.spec.spec import Bound, Ordering, Peak
from afno_repro.tables.claims import claim_verdicts
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
    """What a claim comes to; values are by row, one a seed."""
    made = Made(tmp_path, text(claim, seeds))
    for row, samples in values.items():
        for seed, sample in enumerate(samples):
            made.put(row, "pretrain", seed, **(sample if isinstance(sample, dict) else {metric: sample}))
    return claim_verdicts(made.table())[0]


def along(*means, noise=(0.0, 0.1, -0.1)):
    """Values of the axis' rows: means with noise that differs by row, so that paired differences have an error."""
    return {row: [mean + (i % 2) * n for n in noise] for i, (row, mean) in enumerate(zip(AXIS, means, strict=True))}


@pytest.mark.parametrize(
    ("means", "outcome", "margin"),
    [
        ((20.0, 21.0, 20.5, 10.0), "holds", 0.5),
        ((20.0, 21.0, 20.9, 10.0), "undecided", 0.1),  # one neighbour is within twice the standard error, 0.115
        ((20.0, 21.0, 20.88, 10.0), "holds", 0.12),
        ((20.0, 21.0, 21.1, 10.0), "undecided", -0.1),  # the mean peaks elsewhere, not by enough
        ((20.0, 21.0, 22.0, 10.0), "fails", -1.0),
        ((20.0, 21.0, 20.5, 22.0), "fails", 0.5),  # both neighbours are beaten, but the axis peaks at its far end
    ],
)
def test_a_peak_is_compared_with_its_neighbours_and_with_the_best(tmp_path, means, outcome, margin):
    found = verdict(tmp_path, PEAK, along(*means))
    assert (found.outcome, found.margin) == (outcome, pytest.approx(margin))


def test_a_peaks_differences_are_paired_by_seed(tmp_path):
    found = verdict(
        tmp_path,
        PEAK,
        {
            row: [mean + 10 * seed for seed in range(3)]
            for row, mean in zip(AXIS, (20.0, 21.0, 20.5, 10.0), strict=True)
        },
    )
    assert (found.outcome, found.standard_error) == ("holds", 0.0)
    found = verdict(tmp_path, PEAK, along(20.0, 21.0, 20.5, 10.0))
    assert found.standard_error == pytest.approx(0.1 / 3**0.5)


@pytest.mark.parametrize(("end", "means"), [("l_0", (21.0, 20.0, 20.9, 10.0)), ("l_1", (10.0, 20.9, 20.0, 21.0))])
def test_a_peak_at_an_end_has_one_neighbour(tmp_path, end, means):
    found = verdict(tmp_path, PEAK.replace("peak: l_0.01", f"peak: {end}"), along(*means))
    assert (found.outcome, found.margin) == ("holds", pytest.approx(1.0))


def test_a_peak_without_seeds_or_numbers_is_undecided(tmp_path):
    found = verdict(tmp_path, PEAK, along(20.0, 21.0, 20.5, 10.0, noise=(0.0,)), seeds="[0]")
    assert (found.outcome, found.margin, found.standard_error) == ("undecided", pytest.approx(0.5), None)
    assert verdict(tmp_path, PEAK, along(20.0, 21.0, 22.0, 10.0, noise=(0.0,)), seeds="[0]").outcome == "undecided"


def test_a_peak_with_a_missing_row_is_undecided(tmp_path):
    values = along(20.0, 21.0, 22.0, 10.0)
    del values["l_1"]
    found = verdict(tmp_path, PEAK, values)
    assert (found.outcome, found.margin, found.standard_error) == ("undecided", None, None)


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
        (CLOSE, (5.0, 3.0, 6.0, 1.0), "fails", 2.0),
        (LOW, (3.05, 3.0, 6.0, 9.0), "fails", 0.5),
    ],
)
def test_the_worst_column_decides_a_peak(tmp_path, psnr, error, outcome, margin):
    found = verdict(tmp_path, PEAK.replace("column: psnr", "column: [psnr, error]"), both(psnr, error))
    assert (found.outcome, found.margin) == (outcome, pytest.approx(margin))


@pytest.mark.parametrize(
    ("afno", "gfn", "outcome", "margin"),
    [
        ((21.0, 21.1, 20.9), (25.0, 25.0, 25.0), "holds", 1.0),
        ((21.0, 21.1, 20.9), (19.0, 19.1, 18.9), "fails", -1.0),
        ((20.1, 20.0, 20.0), (25.0, 25.0, 25.0), "undecided", 0.1 / 3),
        ((20.0, 20.0, 20.0), (25.0, 25.0, 25.0), "fails", 0.0),  # not above it
    ],
)
def test_a_bound_is_as_good_as_its_worst_cell(tmp_path, afno, gfn, outcome, margin):
    found = verdict(tmp_path, BOUND, {"afno": afno, "gfn": gfn})
    assert (found.outcome, found.margin) == (outcome, pytest.approx(margin))


def test_a_bound_is_above_in_every_column_whatever_its_sense(tmp_path):
    values = {
        row: [{"psnr": 25.0, "error": error + seed} for seed in range(3)]
        for row, error in (("afno", 30.0), ("gfn", 40.0))
    }
    assert verdict(tmp_path, BOUND.replace("psnr", "[psnr, error]"), values).margin == pytest.approx(5.0)
    assert verdict(tmp_path, BOUND.replace("psnr", "error"), values).margin == pytest.approx(11.0)


def test_a_bound_without_seeds_or_numbers_is_undecided(tmp_path):
    found = verdict(tmp_path, BOUND, {"afno": (25.0,), "gfn": (24.0,)}, seeds="[0]")
    assert (found.outcome, found.margin, found.standard_error) == ("undecided", pytest.approx(4.0), None)


def test_a_bound_on_a_missing_cell_is_undecided(tmp_path):
    assert verdict(tmp_path, BOUND, {"afno": (25.0, 25.1, 25.2)}).margin is None


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
    assert (found.outcome, found.margin, found.standard_error) == (outcome, pytest.approx(share - 0.5), 0.0)


def test_the_worst_outcome_decides_an_ordering_before_the_smallest_margin(tmp_path):
    claim = OLD.replace("column: psnr", "column: [psnr, error]")
    afno = [{"psnr": 20.5 + n, "error": 10.0 + 20 * n} for n in (0.0, 0.01, -0.01)]
    gfn = [{"psnr": 20.0, "error": 11.0} for _ in range(3)]
    found = verdict(
        tmp_path, claim, {"afno": afno, "gfn": gfn}
    )  # PSNR is clearly better by 0.5, the error by 1.0 +- 0.115
    assert (found.outcome, found.margin) == ("holds", pytest.approx(0.5))
    noisy = [{"psnr": one["psnr"], "error": 10.0 + 100 * n} for one, n in zip(afno, (0.0, 0.01, -0.01), strict=True)]
    found = verdict(tmp_path, claim, {"afno": noisy, "gfn": gfn})  # now the error by 1.0 +- 0.58
    assert (found.outcome, found.margin) == ("undecided", pytest.approx(1.0))


def test_the_three_forms_are_told_apart(tmp_path):
    claims = load_spec(write_spec(tmp_path, text(OLD + PEAK + BOUND))).structure.claims
    assert [type(claim) for claim in claims] == [Ordering, Peak, Bound]
    assert claims[0].doubt == ""


def test_doubts_and_sides_stand_beside_the_claims(tmp_path):
    doubted = PEAK.replace("column: psnr", 'column: psnr, doubt: "Figure 4 | shows 0.1"')
    made = Made(tmp_path, text(OLD + doubted + BOUND))
    write_results(made.folder, [made.table()])
    lines = list(csv.DictReader(io.StringIO((made.folder / "claims.csv").read_text())))
    assert [(line["better"], line["worse"]) for line in lines] == [
        ("afno", "gfn"),
        ("l_0.01", "l_0;l_0.1;l_1"),
        ("afno;gfn", "20"),
    ]
    assert [line["doubt"] for line in lines] == ["", "Figure 4 | shows 0.1", ""]
    page = table_markdown(made.table())
    assert "| the axis peaks *In doubt: Figure 4 \\| shows 0.1.* | here |" in page
    assert "In doubt: numbers of the paper" in page
    plain = table_markdown(Made(tmp_path, text(OLD)).table())
    assert not any(word in plain for word in ("doubt", "peak", "bound"))


ORDERING = "claim, where, column, doubt, better, worse, by"
FORMS = "a claim has better, worse and by; or peak and over; or better and above"


@pytest.mark.parametrize(
    ("claim", "old", "new", "says"),
    [
        (OLD, "worse: gfn, ", "", "claims.0: the key 'worse' is missing\n  " + FORMS),
        (OLD, ", by: 0.0", "", "claims.0: the key 'by' is missing\n  " + FORMS),
        (OLD, "better: afno, worse: gfn, by: 0.0", "colour: red", "claims.0: the key 'better' is missing"),
        (OLD, "by: 0.0", "by: much", "claims.0.by: input should be a valid number"),
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
            "  the bound claim's keys: claim, where, column, doubt, better, above.",
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
        (BOUND, "above: 20", "above: true", "claims.0.above: input should be a valid number"),
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
    columns = [int(problem.place.rsplit(":", 1)[1]) for problem in error.value.problems if problem.key[2:] == (key,)]
    assert all(broken.splitlines()[line - 1][column - 1 :].startswith(key) for column in columns)
    assert columns or not key
