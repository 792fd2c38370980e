"""What a caption says its spread is over is what the records behind it have."""

import json

import pytest
from matplotlib.figure import Figure

from afno_repro.runs.store import records_folder
from afno_repro.tables.claims import claim_verdicts
from afno_repro.tables.figures import axis_title, draw_figures
from afno_repro.tables.report import report_files
from afno_repro.tables.results import table_markdown
from afno_repro.tables.spread import spread_note
from afno_repro.tables.table import build_table
from afno_repro.visualize import curves
from tests.specs import ROOT, SMALL, all_specs
from tests.tables.test_table import Made

pytestmark = pytest.mark.fast

LATENCY = (
    "  latency: {kind: profile, task: {name: latency, batch_size: 1, warmup: 0, repeats: 3}, data: {image_size: 16}}"
)
LOOK = (
    "  look: {kind: visualize, init: pretrain, "
    "task: {name: triptychs, images: 3, walk: {grid: tokens, patch_size: 4, steps: 16}}, "
    "data: {name: photos, image_size: 16, fraction: 1.0, seed: 0, train: [coffee], test: [flower], "
    "train_crops: 24, test_crops: 8, side: [32, 200]}}"
)
COLUMNS = """\
  - {key: latency_s, title: Latency, unit: s, source: latency/latency_s, digits: 1, higher_is_better: false}
  - {key: score, title: Score, source: look/score, digits: 2, higher_is_better: true}
rows:
  - key: gfn"""
TEXT = (
    SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0, 1, 2]}")
    .replace("columns:\n", f"{LATENCY}\n{LOOK}\ncolumns:\n")
    .replace("rows:\n  - key: gfn", COLUMNS)
    .replace("    cost: null\n", "    cost: null\n    latency: null\n    look: null\n")
)


def test_seeds_images_and_passes_are_told_apart(tmp_path):
    made = Made(tmp_path, TEXT)
    assert spread_note(made.table()) == "No number here has a spread: each is of one seed or exact."
    for seed in range(3):
        made.put("afno", "pretrain", seed, psnr=20.0 + seed)
    assert spread_note(made.table()) == "± is the sample standard deviation over 3 seeds."
    made.put("afno", "latency", latency_s=1.0, repeats={"latency_s": [0.9, 1.0, 1.1, 1.2]})
    made.put("afno", "look", score=1.0, repeats={"score": [0.5, 1.5]})
    for seed in range(2):
        made.put("gfn", "pretrain", seed, psnr=20.0 + seed)
    table = made.table()
    note = (
        "± is the sample standard deviation over 2 to 3 seeds (PSNR); over 4 forward passes of one network, whose "
        "median is shown (Latency); over 2 images of one network, trained with one seed (Score)."
    )
    assert spread_note(table) == note
    assert note in table_markdown(table, claim_verdicts(table))
    assert all(note in text.replace("&nbsp;", " ") for text in report_files(tmp_path, [table], {}).values())


@pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.name)
def test_the_committed_captions_say_what_the_committed_records_have(spec):
    """Found anew, file by file: several records are seeds, one record's repeats are images or forward passes."""
    folder = records_folder(ROOT / "results/reference/tiny", spec.name)
    table = build_table(spec, "tiny", folder)
    legend = next(line for line in table_markdown(table, []).splitlines() if line.startswith(("± is", "No number")))
    parts = legend.removeprefix("± is the sample standard deviation over ").split("; over ")
    for column in table.columns:
        stage, metric = column.source.split("/")
        counts, kinds = set(), set()
        for row in spec.rows:
            files = [json.loads(file.read_text()) for file in folder.glob(f"{row.key}.{stage}.*.json")]
            files = [
                file for file in files if metric in file["metrics"] and file["run_id"] in table.cell(row, column).runs
            ]
            if len(files) > 1:
                counts, kinds = counts | {len(files)}, kinds | {"seeds"}
            elif files and len(found := files[0]["repeats"].get(metric, [])) > 1:
                kind = {"profile": "forward passes", "visualize": "images"}[files[0]["config"]["kind"]]
                counts, kinds = counts | {len(found)}, kinds | {kind}
        if kinds:
            over = f"{' to '.join(map(str, sorted({min(counts), max(counts)})))} {' '.join(kinds)}"
            assert [part for part in parts if part.startswith(over) and (len(parts) == 1 or column.title in part)]
            assert f"over {over}" in axis_title(table, column)
        else:
            assert "±" not in axis_title(table, column)


def test_figures_with_bars_say_what_they_are_over_and_cross_out_what_did_not_learn(tmp_path, monkeypatch):
    mixer = "mixer: {name: afno, num_blocks: %d, sparsity_threshold: 0.01, keep: 1.0, bias: identity, init_std: 0.02}"
    row = "  - {key: r%d, title: [ViT, '%d'], model: {%s}, paper: {}}\n"
    rows = "".join(row % (i, i, mixer % i) for i in (1, 2))
    figures = (
        "figures: [{name: ablation, columns: [psnr], option: num_blocks, axis: blocks, suffix: a}, "
        "{name: families, x: gflops, y: psnr, suffix: f}]\n"
    )
    learned = "learned: [{column: psnr, above: fill_mean, why: so}]\n"
    text = TEXT.replace("scales:\n", f"{rows}scales:\n").replace("claims:\n", f"{figures}{learned}claims:\n")
    text = text.replace("mixer: {name: gfn}", mixer % 4)
    made = Made(tmp_path, text).put("fill_mean", "pretrain", psnr=20.0)
    for row, mean in (("r1", 25.0), ("r2", 20.0), ("gfn", 26.0)):
        made.put(row, "cost", gflops=mean)
        for seed, noise in enumerate((0.0, 0.1, -0.1)):
            made.put(row, "pretrain", seed, psnr=mean + noise)
    drawn: list[Figure] = []
    monkeypatch.setattr(curves, "save", lambda figure, paths: drawn.append(figure))
    draw_figures(made.folder, made.table(), redraw=True)
    assert len(drawn) == 2
    for figure in drawn:
        (axes,) = figure.axes
        assert "± standard deviation over 3 seeds" in axes.get_ylabel()
        (crossed,) = (line for line in axes.lines if line.get_label() == "not shown to learn")
        assert list(crossed.get_ydata()) == [pytest.approx(20.0)]
        assert "not shown to learn" in [entry.get_text() for entry in axes.get_legend().get_texts()]
