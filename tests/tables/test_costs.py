"""Every cost cell that the paper prints, counted on its own models, with the verdict found by counting by hand."""

import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from afno_repro.backbones.layers import Positions
from afno_repro.models import build_model
from afno_repro.profiling.flops import CountingRule, count
from afno_repro.runs.store import records_folder
from afno_repro.tables.claims import judged
from afno_repro.tables.costs import cost_cells, costs_markdown
from afno_repro.tables.report import report_files
from afno_repro.tables.summary import counted
from afno_repro.tables.table import build_table
from tests.command import afno
from tests.specs import ROOT, all_specs

# A: rounds to the printed value as stated; B: after a choice; C: does not. Letters by column, in the order of the rows.
EXPECTED = {
    ("table2", "params_m"): "CCCC",
    ("table2", "gflops"): "BCAC",
    ("table4", "params_m"): "CBBBBB",
    ("table4", "gflops"): "BBBBB",
    ("table4", "mixer_gflops"): "CBBBCC",
    ("table5", "params_m"): "BAB",
    ("table5", "gflops"): "CCC",
    ("table6", "params_m"): "BBCC",
}
OTHER_RULES = {
    "attention_products": (1, 2),
    "conv_bias": (False, True),
    "inner_norm": (0, 5),
    "upsampling": (0, 4),
    "mixer_fft": (0.0, 0.5, 1.0),
}
LETTERS = {"stated": "A", "assumed": "B", "differs": "C"}
# Multiply-accumulates in 1e9 and parameters in 1e6 from closed forms, to the digits given.
CLOSED_FORMS = {
    ("table2", "self_attention", "gflops"): 357.221,
    ("table2", "long_short", "gflops"): 273.985,
    ("table2", "gfn", "gflops"): 177.801,
    ("table2", "afno", "gflops"): 257.266,
    ("table4", "efficient_self_attention", "gflops"): 380.730,
    ("table4", "long_short", "gflops"): 409.124,
    ("table4", "gfn", "gflops"): 363.419,
    ("table4", "afno_100", "gflops"): 440.021,
    ("table4", "afno_25", "gflops"): 428.976,
    ("table4", "efficient_self_attention", "mixer_gflops"): 129.931,
    ("table4", "long_short", "mixer_gflops"): 85.049,
    ("table5", "gfn", "gflops"): 18.11,
    ("table5", "afno", "gflops"): 45.89,
    ("table5", "long_short", "params_m"): 15.74,
    ("table5", "gfn", "params_m"): 16.36,
    ("table5", "afno", "params_m"): 16.27,
    ("table6", "fno", "params_m"): 16.43,
    ("table6", "afno_static", "params_m"): 16.09,
    ("table6", "afno", "params_m"): 17.27,
}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """A folder with the committed specs, whose costs were all counted."""
    root = tmp_path_factory.mktemp("costs")
    shutil.copytree(ROOT / "experiments", root / "experiments")
    afno("profile", "tables", "--device", "cpu", root=root)
    return root


@pytest.fixture(scope="module")
def tables(profiled):
    return [build_table(spec, "paper", records_folder(profiled / "results/tiny", spec.name)) for spec in all_specs()]


def test_profiling_the_tables_fills_every_cost_cell_and_ends_with_0(profiled):
    cells = list(csv.DictReader((profiled / "results/tiny/cells.csv").open()))
    assert len([c for c in cells if c["verdict"] and c["table"] not in ("table1", "table3")]) == 35
    assert re.search(r"Of 35 distinct cost cells", (profiled / "results/costs.md").read_text())
    afno("run", "table1", "--device", "cpu", root=profiled)


def test_every_cost_cell_has_the_verdict_found_by_hand(tables):
    found: dict[tuple[str, str], str] = {}
    for item in cost_cells([t for t in tables if t.spec.name != "table1"]):
        key = item.table.spec.name, item.column.key
        found[key] = found.get(key, "") + LETTERS[item.cell.verdict]
    assert found == EXPECTED
    assert Counter("".join(found.values())) == {"A": 2, "B": 18, "C": 15}


@pytest.mark.parametrize(("table", "row", "column"), CLOSED_FORMS, ids=str)
def test_costs_equal_their_closed_forms(tables, table, row, column):
    value = next(t for t in tables if t.spec.name == table).cells[row, column].value
    expected = CLOSED_FORMS[table, row, column]
    digits = len(str(expected).split(".")[1])
    assert value == pytest.approx(expected, abs=0.6 * 10**-digits)


def test_every_count_of_costs_is_one(tables):
    """That of the page of costs, of the report, and of its lines by table together."""
    page = costs_markdown(tables)
    totals = re.search(r"Of (\d+) distinct cost cells, (\d+) round .*, (\d+) do after .*, and (\d+) do not", page)
    assert totals is not None
    (report,) = (text for path, text in report_files(Path(), tables, {}).items() if path.suffix == ".md")
    said = [re.search(rf"- \*\*(\d+)\*\* {word}:", report) for word in ("stated", "assumed", "differs")]
    assert [found[1] for found in said if found] == list(totals.groups()[1:])
    counts = counted(tables, judged(tables))
    assert sum(sum(count["counted costs"].values()) for count in counts) == int(totals[1])


def test_an_assumed_cell_names_its_choice_and_a_stated_one_has_none(tables):
    for item in cost_cells(tables):
        named = any(f"{item.row.key}/{item.column.key}" in a.cells for a in item.table.spec.structure.assumptions)
        assert named == (item.cell.verdict == "assumed"), (item.table.spec.name, item.row.key, item.column.key)


def test_a_stated_cost_is_the_same_under_every_other_counting_rule_and_without_learned_positions(tables):
    """None of which the paper states."""
    cells = cost_cells([t for t in tables if t.spec.name != "table1"])
    for item in [item for item in cells if item.cell.verdict == "stated"]:
        config = next(record.config for record in item.table.records if record.run_id in item.cell.runs)
        with torch.device("meta"):
            model = build_model(config.model, config.data.image_size)
        positions = sum(m.table.numel() for m in model.modules() if isinstance(m, Positions))
        for option, values in OTHER_RULES.items():
            for value in values:
                counted = count(model, config.data.image_size, CountingRule(**config.task.options | {option: value}))
                found = {key: getattr(counted, key) for key in ("gflops", "mixer_gflops")}
                found |= {"params_m": (counted.params - positions) / 1e6}
                assert f"{found[item.column.key]:.{item.column.digits}f}" == (
                    f"{item.cell.paper:.{item.column.digits}f}"
                ), (item.table.spec.name, item.row.key, item.column.key, option, value)


def test_table_1_compares_with_the_formulas_in_its_rows():
    from math import log2

    (spec,) = (s for s in all_specs() if s.name == "table1")
    n, d, k = 56 * 56, 768, 8
    for row in spec.rows:
        values = []
        for text in row.title[1:3]:
            code = (
                text.replace("log N", "L")
                .replace("^2", "**2")
                .replace(" d", "*d")
                .replace(" L", "*L")
                .replace("3 N", "3*N")
                .replace(") d", ")*d")
            )
            values.append(eval(code, {"N": n, "d": d, "k": k, "L": log2(n)}))
        assert row.paper["mixer_gflops"] == pytest.approx(values[0] / 1e9, rel=1e-6)
        assert row.paper["mixer_params_m"] == pytest.approx(values[1] / 1e6, rel=1e-6)


def test_figure_1s_segformers_have_equal_parameters_at_each_size(tables):
    fig1 = next(t for t in tables if t.spec.name == "fig1")
    for size in range(4):
        params = [fig1.cells[f"{mixer}_b{size}", "params_m"].value for mixer in ("esa", "gfn", "afno")]
        assert max(params) / min(params) < 1.03
    assert fig1.cells["resnet_50", "miou"].state == "quoted"


def test_the_page_of_costs_gives_totals_remarks_and_unprinted_networks(tables):
    page = costs_markdown(tables)
    assert "Of 35 distinct cost cells, 2 round to the printed value from the stated configuration, 18 do after" in page
    for word in (
        "one of the two N^2 d attention products",
        "87M",
        "8 blocks in every stage",
        "a third of",
        "392",
        "AFNO 1/2/5/8 blocks",
        "FlopCounterMode",
    ):
        assert word in page, word
