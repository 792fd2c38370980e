"""Tables from records made up for the purpose: what each cell says, and what a claim comes to."""

import csv
import io
import shlex
from pathlib import Path

import pytest
from scipy.stats import ttest_ind, ttest_rel

from afno_repro.escape import csv_lines, md
from afno_repro.runs.provenance import provenance
from afno_repro.runs.record import Record
from afno_repro.runs.store import publish, records_folder
from afno_repro.spec.places import Places
from afno_repro.spec.plan import Choice, plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.spec.spec import SCALES
from afno_repro.tables import results
from afno_repro.tables.claims import claim_verdicts
from afno_repro.tables.inference import Estimate, quantile
from afno_repro.tables.numbers import interval, number, signed
from afno_repro.tables.report import report_files
from afno_repro.tables.results import CELL_HEADER, table_csv, write_results
from afno_repro.tables.table import build_table
from tests.machine import machine_at
from tests.specs import SMALL, write_spec

pytestmark = pytest.mark.fast


def table_markdown(table):
    return results.table_markdown(table, claim_verdicts(table))


class Made:
    """A table's records, put where tables are built from."""

    def __init__(self, tmp_path, text=SMALL, scale="tiny"):
        self.spec, self.scale = load_spec(write_spec(tmp_path, text)), scale
        self.plan, self.folder = plan_runs(self.spec, scale), tmp_path / "results"

    def put(self, row, stage, seed=0, outcome="ok", repeats=None, **metrics):
        run = self.plan.needs[row, stage, seed]
        record = Record(
            run.id,
            run.digest,
            run.config,
            outcome,
            metrics,
            repeats or {},
            provenance("a machine", machine_at(Path()), 2.0, None),
        )
        publish(records_folder(self.folder, "small"), row, stage, seed, record)
        return self

    def table(self):
        return build_table(self.spec, self.scale, records_folder(self.folder, "small"))


def rows(text):
    return {line["row"]: line for line in csv.DictReader(io.StringIO(text))}


def test_a_cell_is_the_mean_over_seeds_with_the_sample_standard_deviation(tmp_path):
    made = Made(tmp_path, SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0, 1, 2]}"))
    for seed, value in enumerate((20.0, 21.0, 25.0)):
        made.put("afno", "pretrain", seed, psnr=value)
    cell = made.table().cells["afno", "psnr"]
    assert cell.value == pytest.approx(22.0)
    assert cell.spread == pytest.approx(7**0.5)
    assert (cell.seeds, cell.state, len(cell.runs)) == (3, "measured", 3)


def test_a_finished_run_without_a_column_s_metric_is_not_sent_to_do_again(tmp_path):
    made = Made(tmp_path).put("gfn", "pretrain", ssim=0.5).put("gfn", "cost", params_m=1.0)
    cells = made.table().cells
    assert cells["gfn", "psnr"].note == "its record has no psnr, only ssim; afno evaluate adds what its task has since"
    assert cells["gfn", "gflops"].note == "its record has no gflops, only params_m"
    assert cells["afno", "psnr"].note == "afno run small --scale tiny --row afno"


def test_one_run_is_no_plural(tmp_path):
    made = Made(tmp_path).put("gfn", "cost", gflops=1.0)
    for n in ("1 run", "2 runs"):
        table = made.table()
        for page in (table_markdown(table), *report_files(tmp_path, [table], {}).values()):
            assert f"{n}, " in page
            assert "1 runs" not in page
        made.put("afno", "cost", gflops=1.0)


@pytest.mark.parametrize(
    ("shown", "digits", "values"),
    [
        ("0.000", 3, (-0.0004, -0.0, 0.0, 0.0004)),
        ("0.00", 1, (-0.004, 0.004)),
        ("-0.001", 3, (-0.0006, -0.0014)),
        ("+0.001", 3, (0.0006, 0.0014)),
        ("+20.00", 1, (20.0,)),
    ],
)
def test_what_rounds_to_zero_has_no_sign(tmp_path, shown, digits, values):
    column = load_spec(write_spec(tmp_path)).structure.columns[-1].model_copy(update={"digits": digits})
    for value in values:
        assert signed(value, column) == f"{shown} dB"


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (-0.027, 0.00046, "[-0.027, 0.000]"),
        (-0.027, -0.00046, "[-0.0270, -0.0005]"),
        (0.000046, 0.027, "[+0.00005, +0.02700]"),
        (-0.00046, -0.0001, "[-0.0005, -0.0001]"),
        (1.0, 2.0, "[+1.000, +2.000]"),
    ],
)
def test_an_interval_tells_that_zero_lies_outside(tmp_path, low, high, shown):
    column = load_spec(write_spec(tmp_path)).structure.columns[-1].model_copy(update={"digits": 3})
    found = Estimate((low + high) / 2, (high - low) / 2 / quantile(2), 2, 3)
    assert interval(found, column) == shown


@pytest.mark.parametrize(
    ("value", "spread", "shown"),
    [
        (17.04, 0.46, ("17.0", "0.5")),
        (0.0192, 0.00025, ("0.019", "0.000")),
        (-0.0192, 0.0025, ("-0.019", "0.003")),
        (0.05, 0.0, ("0.1", "0.0")),
        (0.0, 0.0, ("0.0", "0.0")),
        (20.0, 0.01, ("20.0", "0.0")),
    ],
)
def test_a_value_that_would_be_zero_has_two_digits_and_so_has_its_spread(tmp_path, value, spread, shown):
    column = load_spec(write_spec(tmp_path)).structure.columns[-1].model_copy(update={"digits": 1})
    assert (number(value, column), number(spread, column, value)) == shown


def test_the_papers_value_stands_beside_comparable_cells_alone(tmp_path):
    made = Made(tmp_path).put("afno", "pretrain", psnr=20.0).put("afno", "cost", gflops=0.6)
    line = rows(table_csv(made.table()))["afno"]
    assert (line["psnr"], line["psnr_paper"]) == ("20.00", "")
    assert (line["gflops"], line["gflops_paper"]) == ("0.6000", "0.6000")
    paper = Made(tmp_path, scale="paper").put("afno", "pretrain", psnr=20.0).table()
    assert paper.cells["afno", "psnr"].paper == 21.0
    assert paper.cells["afno", "psnr"].difference == pytest.approx(-100 / 21)


@pytest.mark.parametrize(
    ("value", "assumed", "verdict"),
    [(0.60004, False, "stated"), (0.60004, True, "assumed"), (0.60006, False, "differs"), (0.60006, True, "differs")],
)
def test_a_counted_cost_has_a_verdict(tmp_path, value, assumed, verdict):
    text = SMALL.replace("why: Nothing is said.}", "why: Nothing is said., cells: [afno/gflops]}") if assumed else SMALL
    assert Made(tmp_path, text).put("afno", "cost", gflops=value).table().cells["afno", "gflops"].verdict == verdict


def test_a_cell_without_a_record_is_missing_and_names_the_command_that_fills_it(tmp_path):
    cell = Made(tmp_path).table().cells["afno", "psnr"]
    assert (cell.state, cell.value) == ("missing", None)
    assert cell.note == "afno run small --scale tiny --row afno"


def test_a_stage_that_a_row_leaves_out_is_not_applicable(tmp_path):
    assert Made(tmp_path).table().cells["fill_mean", "gflops"].state == "not_applicable"


def test_a_number_beside_the_table_that_a_whole_run_does_not_have_is_not_applicable(tmp_path):
    """Such as of a layer that a scale's smaller network lacks: no command would bring it."""
    text = SMALL.replace("higher_is_better: true}", "higher_is_better: true, printed: false}")
    cells = Made(tmp_path, text).put("afno", "pretrain", loss=1.0).table().cells
    assert (cells["afno", "psnr"].state, cells["gfn", "psnr"].state) == ("not_applicable", "missing")


@pytest.mark.parametrize(("quoted", "state"), [("", "missing"), ("    quoted: Xie et al. 2021\n", "quoted")])
def test_a_stage_that_a_scale_cannot_run_is_missing_with_the_reason_unless_the_paper_quotes_it(tmp_path, quoted, state):
    text = SMALL.replace(
        "tiny: {seeds: [0]}", "tiny: {seeds: [0], unavailable: {pretrain: there is no open set}}"
    ).replace("psnr: 21.0}\n", "psnr: 21.0}\n" + quoted)
    cells = Made(tmp_path, text).table().cells
    assert cells["afno", "psnr"].state == state
    assert (cells["gfn", "psnr"].state, cells["gfn", "psnr"].note) == ("missing", "there is no open set")
    assert cells["fill_mean", "psnr"].state == "not_applicable"  # the paper has no such row


@pytest.mark.parametrize("outcome", ["diverged", "out_of_memory"])
def test_a_failed_run_is_a_state_not_a_hole(tmp_path, outcome):
    made = Made(tmp_path).put("afno", "pretrain", outcome=outcome)
    table = made.table()
    assert table.cells["afno", "psnr"].state == outcome
    assert outcome.replace("_", " ") in table_markdown(table)


def test_records_of_further_seeds_make_a_table_of_all_of_them(tmp_path):
    made = Made(tmp_path)
    made.plan = plan_runs(made.spec, "tiny", Choice(all_seeds=(0, 1, 2)))
    for seed in range(3):
        made.put("afno", "pretrain", seed, psnr=20.0 + seed)
    table = made.put("gfn", "pretrain", 0, psnr=19.0).put("fill_mean", "pretrain", psnr=1.0).table()
    assert (table.cells["afno", "psnr"].value, table.cells["afno", "psnr"].seeds) == (21.0, 3)
    assert table.cells["gfn", "psnr"].note == "1 of 3 seeds"
    assert table.cells["fill_mean", "psnr"].note == ""  # has no seeds
    assert table.command(table.spec.row("gfn")) == "afno run small --scale tiny --row gfn --seeds 3"
    assert table.command(table.spec.row("gfn")) in "".join(report_files(tmp_path, [table], {}).values())


def test_a_changed_table_says_what_was_changed_and_its_commands_repeat_it(tmp_path):
    spec = load_spec(write_spec(tmp_path))
    changes = ("pretrain.train.lr=5e-4", "model.mixer={name: gfn}")
    table = build_table(spec, "tiny", tmp_path / "none", changes)
    command, *options = table.command(spec.row("gfn")).partition(" --set")
    assert command == "afno run small --scale tiny --row gfn"
    assert shlex.split("".join(options)) == ["--set", changes[0], "--set", changes[1]]
    assert table.cells["gfn", "psnr"].note == table.command(spec.row("gfn"))
    write_results(tmp_path / "changed", [table])
    write_results(tmp_path / "own", [build_table(spec, "tiny", tmp_path / "none")])
    for end in ("small.md", "small.tex", "small.csv", "cells.csv", "claims.csv"):
        first = (tmp_path / "changed" / end).read_text()
        assert changes[0] in first
        assert changes[1] in first
        assert changes[0] not in (tmp_path / "own" / end).read_text()


def test_changed_tables_of_two_scales_lie_apart():
    places = Places(Path("root"), Path("runs"))
    folders = [places.results(scale, changed) for scale in SCALES for changed in (False, True)]
    assert len({*folders}) == len(folders)


def test_what_is_said_alike_of_several_cells_is_said_once(tmp_path):
    made = Made(tmp_path, SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0, 1, 2]}"))
    for row in ("afno", "gfn"):
        made.put(row, "pretrain", 0, psnr=20.0)
    page = table_markdown(made.table())
    assert page.count("1 of 3 seeds") == 1
    assert "psnr of gfn, afno: measured (1 of 3 seeds)" in page


def test_a_further_record_of_another_config_adds_no_seed(tmp_path):
    other = Made(tmp_path, SMALL.replace("epochs: 3", "epochs: 4"))
    other.plan = plan_runs(other.spec, "tiny", Choice(all_seeds=(0, 1)))
    other.put("afno", "pretrain", 1, psnr=20.0)
    table = Made(tmp_path).put("afno", "pretrain", 0, psnr=19.0).table()
    assert (table.seeds, table.cells["afno", "psnr"].note) == ((0,), "")
    assert "afno/pretrain seed 1: made with another config" in table.stale[0]


def test_a_record_of_another_config_is_stale_and_named(tmp_path):
    Made(tmp_path).put("afno", "pretrain", psnr=20.0)
    table = Made(tmp_path, SMALL.replace("epochs: 3", "epochs: 4")).table()
    assert table.cells["afno", "psnr"].state == "missing"
    assert "afno/pretrain seed 0: made with another config" in table.stale[0]
    assert "stale record" in table_markdown(table)


def test_files_have_the_documented_headers_and_six_digits(tmp_path):
    made = Made(tmp_path).put("afno", "pretrain", psnr=20.123456789).put("gfn", "pretrain", psnr=20.0)
    write_results(made.folder, [made.table()])
    assert {p.name for p in made.folder.iterdir()} == {
        "small.csv",
        "small.md",
        "small.tex",
        "cells.csv",
        "claims.csv",
        "records",
    }
    cells = (made.folder / "cells.csv").read_text().splitlines()
    assert (
        cells[0]
        == "table,row,column,unit,value,spread,seeds,paper,difference,verdict,state,runs,note"
        == ",".join(CELL_HEADER)
    )
    assert any(line.startswith("small,afno,psnr,dB,20.1235,,1,,,,measured,pretrain-afno-") for line in cells)
    claims = (made.folder / "claims.csv").read_text().splitlines()
    assert (
        claims[0] == "table,claim,under,rows,against,column,asked,n,over,difference,low,high,"
        "p_case,p,p_holm,verdict,verdict_holm,reason,could_show,n_needed,doubt"
    )
    assert claims[1] == "small,AFNO beats GFN,,afno,gfn,psnr,> 0,1,seeds,0.123457,,,,,,undecided,undecided,one seed,,,"
    header = (made.folder / "small.csv").read_text().splitlines()[0]
    assert (
        header == "row,backbone,mixer,gflops,gflops_spread,gflops_paper,gflops_verdict,"
        "psnr,psnr_spread,psnr_paper,psnr_verdict"
    )


def claim(tmp_path, afno, gfn, by=0.0, scale="tiny", better="afno", worse="gfn", more="[0, 1, 2]"):
    text = SMALL.replace("tiny: {seeds: [0]}", f"tiny: {{seeds: {more}}}").replace(
        "paper: {seeds: [0, 1]", f"paper: {{seeds: {more}"
    )
    text = (
        text.replace("by: 0.0", f"by: {by}")
        .replace("better: afno", f"better: {better}")
        .replace("worse: gfn", f"worse: {worse}")
    )
    made = Made(tmp_path, text, scale)
    for row, values in (("afno", afno), ("gfn", gfn)):
        for seed, value in enumerate(values):
            made.put(row, "pretrain", seed, psnr=value)
    return claim_verdicts(made.table())[0]


def test_differences_are_paired_by_seed(tmp_path):
    verdict = claim(tmp_path, afno=(20.0, 30.0, 40.0), gfn=(19.0, 28.9, 39.1))
    assert verdict.worst.difference.mean == pytest.approx(1.0)
    assert verdict.worst.difference.error == pytest.approx(0.1 / 3**0.5)
    assert (verdict.outcome, verdict.p) == ("holds", pytest.approx(ttest_rel((20, 30, 40), (19, 28.9, 39.1)).pvalue))


@pytest.mark.parametrize(
    ("gfn", "outcome"),
    [
        ((21.0, 21.1, 20.9), "fails"),
        ((20.1, 19.9, 20.0), "undecided"),
        ((19.8, 19.7, 19.9), "undecided"),
        ((19.0, 19.1, 18.9), "holds"),
    ],
)
def test_a_claim_is_decided_where_its_interval_leaves_zero_out(tmp_path, gfn, outcome):
    assert claim(tmp_path, (20.0, 20.0, 20.0), gfn).outcome == outcome


def test_the_claims_own_margin_counts_at_paper_scale_alone(tmp_path):
    values = {"afno": (20.0, 20.1, 19.9), "gfn": (19.0, 19.05, 18.95)}
    assert claim(tmp_path, **values, by=2.0).outcome == "holds"
    assert claim(tmp_path, **values, by=2.0, scale="paper").outcome == "fails"
    found = claim(tmp_path, **values, by=2.0, scale="paper").worst
    assert (found.difference.mean, found.slack) == (pytest.approx(1.0), pytest.approx(-1.0))


def test_one_seed_decides_nothing(tmp_path):
    assert claim(tmp_path, (25.0,), (20.0,), more="[0]").outcome == "undecided"


def test_a_list_is_as_good_as_its_worst_pair(tmp_path):
    verdict = claim(tmp_path, (20.0, 20.1, 20.2), (19.0, 19.1, 19.2), worse="[gfn, fill_mean]")
    assert (verdict.outcome, verdict.worst) == ("undecided", None)  # the fill has no record
    made = Made(
        tmp_path,
        SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0, 1, 2]}").replace(
            "better: afno, worse: gfn", "better: afno, worse: [gfn, afno]"
        ),
    )
    for seed in range(3):
        made.put("afno", "pretrain", seed, psnr=20.0 + seed).put("gfn", "pretrain", seed, psnr=15.0)
    found = claim_verdicts(made.table())[0]
    assert (found.outcome, found.worst.slack) == ("undecided", 0.0)  # no row is better than itself


@pytest.mark.parametrize(
    ("by", "ours", "outcome"),
    [(0.0, 0.6, "holds"), (0.1, 0.55, "fails"), (0.1, 0.4, "holds"), (0.0, 0.7, "fails")],
)
def test_a_counted_claim_has_no_error(tmp_path, by, ours, outcome):
    text = SMALL.replace("column: psnr, better", "column: gflops, better").replace("by: 0.0", f"by: {by}")
    made = Made(tmp_path, text).put("afno", "cost", gflops=ours).put("gfn", "cost", gflops=0.6)
    assert claim_verdicts(made.table())[0].outcome == outcome


def test_repeats_give_a_latency_its_error(tmp_path):
    text = SMALL.replace(
        "  pretrain:\n    kind",
        "  latency: {kind: profile, task: {name: latency, batch_size: 1, warmup: 0, repeats: 3}, data: {image_size: "
        "16}}\n  pretrain:\n    kind",
    )
    text = text.replace(
        "columns:\n",
        "columns:\n"
        "  - {key: latency_s, title: Latency, unit: s, source: latency/latency_s, digits: 1, higher_is_better: "
        "false}\n",
    )
    text = text.replace("column: psnr, better", "column: latency_s, better").replace(
        "    cost: null\n", "    cost: null\n    latency: null\n"
    )
    made = Made(tmp_path, text)
    for row, times in (("afno", [1.0, 1.1, 1.2]), ("gfn", [2.0, 2.1, 2.5])):
        made.put(row, "latency", latency_s=times[1], repeats={"latency_s": times})
    table = made.table()
    assert table.cells["gfn", "latency_s"].value == 2.1
    assert table.cells["gfn", "latency_s"].spread == pytest.approx(0.07**0.5)
    assert table.cells["gfn", "latency_s"].verdict == ""
    verdict = claim_verdicts(table)[0]
    theirs = ttest_ind([2.0, 2.1, 2.5], [1.0, 1.1, 1.2], equal_var=False)  # Welch's: passes are no pairs
    assert verdict.worst.difference.mean == pytest.approx(1.1)
    assert verdict.worst.difference.interval == pytest.approx(tuple(theirs.confidence_interval()))
    assert verdict.worst.p == pytest.approx(theirs.pvalue)
    assert (verdict.outcome, verdict.worst.over) == ("holds", "forward passes")
    assert (verdict.p, verdict.p_holm) == (None, None)  # what is not tested over seeds is of no family


def test_text_from_a_spec_cannot_become_markup_or_a_formula(tmp_path):
    assert md("a|b <script>\x1b[31m") == "a\\|b &lt;script&gt;\\[31m"
    assert csv_lines([["=1+1", "-2.5", "+x", "@y", "-", "text"]]) == "'=1+1,-2.5,'+x,'@y,'-,text\n"


def test_a_mixture_of_devices_is_said(tmp_path):
    made = Made(tmp_path).put("afno", "pretrain", psnr=20.0)
    run = made.plan.needs["gfn", "pretrain", 0]
    other = Record(
        run.id,
        run.digest,
        run.config,
        "ok",
        {"psnr": 1.0},
        {},
        provenance("another machine", machine_at(Path()), 2.0, None),
    )
    publish(records_folder(made.folder, "small"), "gfn", "pretrain", 0, other)
    assert "Device: a machine; another machine **The records mix them.**" in table_markdown(made.table())
