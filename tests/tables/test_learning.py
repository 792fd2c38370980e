"""Rows not shown to learn: found by their intervals, named in table, report and figures, their claims undecided."""

from types import SimpleNamespace

import numpy as np
import pytest

from afno_repro.errors import ConfigError
from afno_repro.runs.store import records_folder
from afno_repro.spec.reader import load_spec
from afno_repro.tables import figures
from afno_repro.tables.claims import claim_verdicts
from afno_repro.tables.figures import draw_figures
from afno_repro.tables.learning import MARK, further_notes, learning_notes, unlearned
from afno_repro.tables.report import report_files
from afno_repro.tables.results import table_csv, table_markdown
from tests.specs import SMALL, write_spec
from tests.tables.test_table import Made

pytestmark = pytest.mark.fast

COLUMNS = """\
  - {key: scratch, title: from scratch, source: scratch/psnr, digits: 2, higher_is_better: true, printed: false}
  - {key: error, title: Error, source: pretrain/error, digits: 2, higher_is_better: false, printed: false}
rows:
  - key: gfn"""
STAGES = """\
  scratch:
    kind: pretrain
    task: {name: inpainting, walk: {grid: tokens, patch_size: 4, steps: 8}}
    data: {name: photos, image_size: 16, fraction: 1.0, seed: 0, train: [coffee], test: [flower],
           train_crops: 24, test_crops: 8, side: [32, 200]}
    train: *train
  look:
    kind: visualize
    init: pretrain
    task: {name: triptychs, images: 1, walk: {grid: tokens, patch_size: 4, steps: 16}}
    data: {name: photos, image_size: 16, fraction: 1.0, seed: 0, train: [coffee], test: [flower],
           train_crops: 24, test_crops: 8, side: [32, 200]}
columns:
"""
FILL = "above: fill_mean"
SCRATCH = "above: scratch"
CHANCE = "chance: {tiny: 20.0, smoke: 0.0, paper: 0.0}"
FIGURES = "figures: [{name: training, stage: pretrain, suffix: t}, {name: triptychs, stage: look, suffix: l}]\n"


def text(asked, column="psnr", seeds="[0, 1, 2]"):
    learned = f"learned:\n  - {{column: {column}, {asked}, why: so}}\nclaims:"
    return (
        SMALL.replace("claims:", FIGURES + learned)
        .replace("tiny: {seeds: [0]}", f"tiny: {{seeds: {seeds}}}")
        .replace("    train:\n", "    train: &train\n")
        .replace("columns:\n", STAGES)
        .replace("rows:\n  - key: gfn", COLUMNS)
        .replace("    cost: null\n", "    cost: null\n    scratch: null\n    look: null\n")
    )


def made(tmp_path, asked, afno, column="psnr", metric="psnr", other=(20.0,), seeds="[0, 1, 2]"):
    """A table of which AFNO has some values, GFN high ones, and what AFNO is held to `other` ones."""
    found = Made(tmp_path, text(asked, column, seeds))
    for seed, value in enumerate(afno):
        found.put("afno", "pretrain", seed, **{"psnr": 19.0, metric: value})
        found.put("gfn", "pretrain", seed, **{"psnr": 30.0 + seed, metric: 30.0 + seed})
    for seed, value in enumerate(other):
        if asked == SCRATCH:
            found.put("afno", "scratch", seed, psnr=value)
    return found.put("fill_mean", "pretrain", **{"psnr": other[0], metric: other[0]})


@pytest.mark.parametrize("asked", [FILL, CHANCE])
@pytest.mark.parametrize(
    ("afno", "learned"),
    [
        ((21.0, 21.1, 20.9), True),  # 1.0 +- 0.25
        ((20.2, 20.3, 20.1), False),  # 0.2 +- 0.25: on average above it, but that is not shown
        ((20.0, 20.0, 20.0), False),
        ((19.0, 19.1, 18.9), False),
        ((20.1,), True),  # one number says nothing of its error
        ((20.0,), False),
        ((19.9,), False),
    ],
)
def test_a_network_learned_where_its_interval_is_above_what_is_asked(tmp_path, asked, afno, learned):
    table = made(tmp_path, asked, afno, seeds=str([*range(len(afno))])).table()
    assert (("afno", "pretrain") not in unlearned(table)) is learned
    assert ("gfn", "pretrain") not in unlearned(table)  # far above
    assert not any(row == "fill_mean" for row, _ in unlearned(table))  # no network


@pytest.mark.parametrize(("error", "learned"), [((1.0, 1.1, 0.9), True), ((3.0, 3.1, 2.9), False)])
def test_better_is_meant_in_the_columns_own_sense(tmp_path, error, learned):
    table = made(tmp_path, FILL, error, column="error", metric="error", other=(2.0,)).table()
    assert (("afno", "pretrain") not in unlearned(table)) is learned


@pytest.mark.parametrize(("scratch", "learned"), [((20.0, 30.0, 40.1), True), ((20.0, 33.0, 37.1), False)])
def test_the_same_network_from_scratch_is_paired_by_seed(tmp_path, scratch, learned):
    """The spread of what both share over seeds counts for nothing, that of their difference for all."""
    table = made(tmp_path, SCRATCH, (21.0, 31.1, 41.0), other=scratch).table()
    assert (("afno", "pretrain") not in unlearned(table)) is learned


def test_what_has_no_number_or_nothing_to_be_held_to_is_not_judged(tmp_path):
    found = Made(tmp_path, text(SCRATCH)).put("afno", "pretrain", 0, psnr=1.0)
    assert unlearned(found.table()) == {}


@pytest.mark.parametrize(
    ("afno", "reason"), [((20.2, 20.3, 20.1), "not shown to learn: AFNO"), ((21.0, 21.1, 20.9), "")]
)
def test_claims_on_a_row_that_did_not_learn_are_undecided_and_say_so(tmp_path, afno, reason):
    table = made(tmp_path, FILL, afno).table()
    (found,) = claim_verdicts(table)
    assert (found.outcome, found.reason) == ("undecided" if reason else "fails", reason)
    assert found.worst.outcome == "fails"  # what the interval alone would have said
    assert found.p is not None  # it stays in the family


@pytest.mark.parametrize(("gfn", "outcome", "reason"), [(30.0, "fails", ""), (5.0, "undecided", f"{MARK}: AFNO")])
def test_a_row_that_did_not_learn_in_one_column_hides_no_failure_in_another(tmp_path, gfn, outcome, reason):
    found = made(tmp_path, FILL, (19.0, 19.1, 18.9))
    spec = found.folder.parent / "experiments" / "small.yaml"
    spec.write_text(spec.read_text().replace("column: psnr, better", "column: [psnr, scratch], better"))
    found.spec = load_spec(spec)
    for seed in range(3):
        found.put("afno", "scratch", seed, psnr=10.0).put("gfn", "scratch", seed, psnr=gfn + seed / 10)
    (verdict,) = claim_verdicts(found.table())
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert verdict.worst.column.key == ("psnr" if reason else "scratch")


def test_rows_that_did_not_learn_are_told_apart_though_their_names_have_commas(tmp_path):
    asked = text(FILL).replace("[ViT, GFN]", "[ViT, 'GFN, no bias']").replace("[ViT, AFNO]", "[ViT, 'AFNO, no bias']")
    found = Made(tmp_path, asked).put("fill_mean", "pretrain", psnr=20.0)
    for seed, value in enumerate((19.0, 19.1)):
        found.put("afno", "pretrain", seed, psnr=value).put("gfn", "pretrain", seed, psnr=value)
    (verdict,) = claim_verdicts(found.table())
    assert verdict.reason == 'not shown to learn: "AFNO, no bias" and "GFN, no bias"'


def test_costs_of_a_network_that_did_not_learn_are_as_they_were(tmp_path):
    found = made(tmp_path, FILL, (19.0, 19.1, 18.9))
    spec = found.folder.parent / "experiments" / "small.yaml"
    spec.write_text(spec.read_text().replace("column: psnr, better", "column: gflops, better"))
    found.spec = load_spec(spec)
    table = found.put("afno", "cost", gflops=0.5).put("gfn", "cost", gflops=0.6).table()
    assert claim_verdicts(table)[0].outcome == "holds"


def test_it_is_named_in_table_and_report(tmp_path):
    table = made(tmp_path, FILL, (19.0, 19.1, 18.9)).table()
    page = table_markdown(table, claim_verdicts(table))
    assert "| ViT | AFNO | missing | 0.6000 | 19.00 ± 0.10 (not shown to learn) |" in page
    assert "AFNO is not shown to learn: PSNR is not shown to be better than mean fill: -1.00 dB" in page
    assert "GFN counts" not in page
    for text_ in report_files(tmp_path, [table], {}).values():
        assert "19.00 ± 0.10 (not shown to learn)" in text_.replace("&nbsp;", " ")
        assert "Rows not shown to learn" in text_
    assert "not shown to learn" not in table_csv(table)  # numbers alone


def test_what_decides_nothing_is_said_and_claims_are_tested(tmp_path):
    asked, afno = FILL + ", decides: false", (19.0, 19.1, 18.9)
    table = made(tmp_path, asked, afno).table()
    assert unlearned(table) == {}
    assert all("not shown to learn" not in verdict.reason for verdict in claim_verdicts(table))
    for page in (table_markdown(table, claim_verdicts(table)), *report_files(tmp_path, [table], {}).values()):
        page = page.replace("&nbsp;", " ").replace("\\", "")
        assert "Not shown to be better than mean fill: AFNO, PSNR -1.00 dB [-1.25, -0.75]." in page
        assert "Rows not shown to learn" not in page
    assert further_notes(made(tmp_path / "above", asked, (21.0, 21.1, 20.9)).table()) == []


def test_with_one_seed_the_least_gain_is_said(tmp_path):
    alone = made(tmp_path, FILL, (20.01,), seeds="[0]").table()
    (note,) = further_notes(alone)
    assert (
        note
        == "With one seed no interval shows that a row learned. The least gain: AFNO, PSNR +0.01 dB above mean fill."
    )
    assert further_notes(made(tmp_path / "three", FILL, (21.0, 21.1, 20.9)).table()) == []


def test_of_rows_with_the_same_mixer_the_one_that_did_not_learn_is_told_apart(tmp_path):
    asked = text(FILL).replace("[ViT, GFN]", "[one residual, AFNO]").replace("[ViT, AFNO]", "[two residuals, AFNO]")
    table = Made(tmp_path, asked).put("fill_mean", "pretrain", psnr=20.0).put("afno", "pretrain", psnr=19.0).table()
    (note,) = learning_notes(table)
    assert note.startswith("two residuals, AFNO is not shown to learn")


def test_it_is_named_in_figures_of_its_network(tmp_path, monkeypatch):
    found = made(tmp_path, FILL, (19.0, 19.1, 18.9))
    records = records_folder(found.folder, "small")
    drawn = {}
    monkeypatch.setattr(
        "afno_repro.visualize.curves.training_curves",
        lambda runs, mixers, scale, title, paths: drawn.update(training=[*runs], title=title),
    )
    monkeypatch.setattr(figures, "draw_arrays", lambda rows, *_: drawn.update(look=[*rows]))
    monkeypatch.setattr(figures, "read_record", lambda _: SimpleNamespace(config=None, provenance={}))
    files = lambda table, records, row, stage, suffix: sorted(records.glob(f"{row.key}.{stage}.0{suffix}"))  # noqa: E731
    monkeypatch.setattr(figures, "beside_records", files)
    monkeypatch.setattr(figures, "picture_note", lambda *_: "")
    monkeypatch.setattr(figures, "recorded", lambda *_: True)
    monkeypatch.setattr(figures, "read_arrays", lambda _: {"true": np.zeros(1)})
    for row in ("afno", "gfn"):
        (records / f"{row}.pretrain.0.csv").write_text("step,loss\n1,2.0\n")
        (records / f"{row}.look.0.npz").touch()
    draw_figures(found.folder, found.table(), redraw=True)
    rows = ["GFN", "AFNO (not shown to learn)"]
    assert drawn == {"training": rows, "look": rows, "title": "PSNR (dB)"}  # the unit as tables have it


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (FILL, "above: fill_men", "learned.0.above: there is no row or column 'fill_men'"),
        (FILL, f"{FILL}, {CHANCE}", "learned.0: must have either above, a row or a column, or chance"),
        (f"{FILL}, ", "", "learned.0: must have either above, a row or a column, or chance"),
        (
            FILL,
            "chance: {tiny: 1.0}",
            "learned.0.chance: must have a number for each of the spec's scales: tiny, smoke",
        ),
        ("column: psnr, above", "column: snr, above", "learned.0.column: there is no column 'snr'"),
        (", why: so", "", "learned.0: the key 'why' is missing"),
        ("why: so", "why: so, whi: x", "learned.0.whi: unknown key 'whi'\n  its keys: column, above, chance, decides"),
    ],
)
def test_a_mistake_in_what_is_asked_is_named(tmp_path, old, new, says):
    broken = text(FILL).replace(old, new, 1)
    with pytest.raises(ConfigError) as error:
        load_spec(write_spec(tmp_path, broken))
    assert says in str(error.value)
