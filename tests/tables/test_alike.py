"""What of a table was not made alike is named, and decides nothing."""

from dataclasses import replace

import pytest

from afno_repro.runs.store import publish, published, records_folder
from afno_repro.spec.places import Places
from afno_repro.spec.plan import Choice
from afno_repro.spec.reader import load_spec
from afno_repro.tables import rebuild
from afno_repro.tables.claims import claim_verdicts
from afno_repro.tables.figures import draw_figures
from afno_repro.tables.learning import further_notes, unlearned
from tests.specs import SMALL, write_spec
from tests.tables.test_table import Made, table_markdown
from tests.training.test_loop import FINETUNED

pytestmark = pytest.mark.fast
LEARNED = "learned:\n  - {column: psnr, above: fill_mean, decides: false, why: it learns nothing}\n"
LATENCY = """\
  latency:
    kind: profile
    task: {name: latency, batch_size: 1, warmup: 1, passes: 3, precision: float32}
    data: {image_size: 16}
columns:
  - {key: latency, title: Latency, unit: s, source: latency/latency_s, digits: 3, higher_is_better: false}
"""


def change(made, row, stage, seed=0, **provenance):
    """Make a record say that it was made with something else."""
    folder = records_folder(made.folder, "small")
    record = published(folder, row, stage, seed)
    publish(folder, row, stage, seed, replace(record, provenance={**record.provenance, **provenance}))


def two_trainings(tmp_path):
    """Two networks, pretrained and finetuned, on data of which 'v' validates."""
    made = Made(tmp_path, FINETUNED.replace("column: psnr, better", "column: miou, better"))
    for row in ("afno", "gfn"):
        made.put(row, "pretrain", psnr=20.0).put(row, "finetune", miou=50.0 + (row == "afno"))
        change(made, row, "pretrain", data="t/v", weights="w")
        change(made, row, "finetune", data="f/g", parent={"data": "t/v", "weights": "w"})
    return made


def test_what_started_from_another_training_than_the_one_shown_is_stale(tmp_path):
    made = two_trainings(tmp_path)
    assert made.table().stale == []
    change(made, "afno", "pretrain", weights="x")  # trained anew
    table = made.table()
    assert table.stale == ["afno/finetune seed 0: started from another training than the one shown"]
    assert [table.cells["afno", key].state for key in ("psnr", "miou")] == ["measured", "missing"]


@pytest.mark.parametrize("known", [True, False])
def test_other_data_of_a_pretraining_mark_what_was_finetuned_from_it(tmp_path, known):
    made = two_trainings(tmp_path)
    assert {cell.mark for cell in made.table().cells.values()} == {""}
    change(made, "afno", "pretrain", data="s/v")
    change(made, "afno", "finetune", parent={"data": "s/v", "weights": "w"})
    if not known:
        (records_folder(made.folder, "small") / "afno.pretrain.0.json").unlink()
    table = made.table()
    assert [table.cells[row, "miou"].mark for row in ("afno", "gfn")] == ["other data"] * 2
    (verdict,) = claim_verdicts(table)
    assert (verdict.outcome, verdict.reason) == ("undecided", "the rows saw other data")
    assert "(other data)" in table_markdown(table)


def test_a_filling_of_other_images_shows_of_no_network_that_it_learned(tmp_path):
    """A filling knows the 64 digits of what validates, a training 16 of each part."""
    made = Made(tmp_path, SMALL.replace("scales:\n", LEARNED + "scales:\n", 1))
    made.put("afno", "pretrain", psnr=18.0).put("fill_mean", "pretrain", psnr=19.0)
    change(made, "afno", "pretrain", data="0" * 16 + "/" + "1" * 16)
    change(made, "fill_mean", "pretrain", data="1" * 64)
    assert {cell.mark for cell in made.table().cells.values()} == {""}
    assert further_notes(made.table())
    change(made, "fill_mean", "pretrain", data="2" * 64)
    table = made.table()
    assert [table.cells[row, "psnr"].mark for row in ("afno", "fill_mean")] == ["other data"] * 2
    assert (unlearned(table), further_notes(table)) == ({}, [])


@pytest.mark.parametrize("other", [{"device": "another machine"}, {"threads": 7}])
def test_latencies_of_several_machines_decide_nothing(tmp_path, other):
    text = SMALL.replace("columns:\n", LATENCY, 1).replace("column: psnr, better", "column: latency, better")
    text = text.replace("    cost: null\n", "    cost: null\n    latency: null\n")
    made = Made(tmp_path, text)
    for row, seconds in (("afno", (0.1, 0.11, 0.12)), ("gfn", (0.3, 0.31, 0.32))):
        made.put(row, "latency", latency_s=seconds[1], repeats={"latency_s": list(seconds)})
    assert [verdict.outcome for verdict in claim_verdicts(made.table())] == ["holds"]
    change(made, "gfn", "latency", **other)
    (verdict,) = claim_verdicts(made.table())
    assert verdict.outcome == "undecided"
    assert verdict.reason == "the rows were timed on different devices or numbers of threads"
    assert table_markdown(made.table()).count("(other machine)") >= 2


def test_no_figure_is_drawn_from_records_that_the_table_does_not_use(tmp_path, monkeypatch):
    text = SMALL.replace("scales:\n", "figures: [{name: training, stage: pretrain, suffix: training}]\nscales:\n", 1)
    made, drawn = Made(tmp_path, text), []
    monkeypatch.setattr("afno_repro.visualize.curves.training_curves", lambda runs, *_: drawn.append([*runs]))
    for row in ("afno", "gfn"):
        made.put(row, "pretrain", psnr=20.0)
        (records_folder(made.folder, "small") / f"{row}.pretrain.0.csv").write_text("step,loss\n1,2.0\n")
    draw_figures(made.folder, made.table(), redraw=True)
    assert drawn.pop() == ["GFN", "AFNO"]
    Made(tmp_path, text.replace("epochs: 3", "epochs: 4")).put("afno", "pretrain", psnr=21.0)
    table = Made(tmp_path, text.replace("epochs: 3", "epochs: 4")).table()
    draw_figures(made.folder, table, redraw=True)
    assert drawn.pop() == ["AFNO"]
    assert len(table.stale) == 1


def test_a_table_that_comes_out_otherwise_has_its_figures_drawn_anew(tmp_path, monkeypatch):
    """Though another one was asked for."""
    made = Made(tmp_path).put("afno", "pretrain", psnr=20.0)
    made.folder.rename(tmp_path / "tiny")
    made.folder.mkdir()
    (tmp_path / "tiny").rename(tmp_path / "results/tiny")
    other, drawn = load_spec(write_spec(tmp_path, name="other")), {}
    monkeypatch.setattr(rebuild, "draw_figures", lambda _, table, redraw: drawn.update({table.spec.name: redraw}) or [])

    def redrawn():
        rebuild.rebuild(Places(tmp_path, tmp_path / "runs"), "tiny", Choice(), [other])
        return drawn["small"]

    assert [redrawn(), redrawn()] == [True, False]
    write_spec(tmp_path, SMALL.replace("title: A small table", "title: Another one"))
    assert [redrawn(), redrawn()] == [True, False]


def test_records_without_a_spec_are_named(tmp_path, capsys):
    Made(tmp_path).put("afno", "pretrain", psnr=20.0)
    (tmp_path / "results/records").rename(tmp_path / "records")
    (tmp_path / "results/tiny").mkdir()
    (tmp_path / "records").rename(tmp_path / "results/tiny/records")
    (tmp_path / "experiments/small.yaml").rename(tmp_path / "experiments/renamed.yaml")
    rebuild.rebuild(Places(tmp_path, tmp_path / "runs"), "tiny", Choice())
    assert (
        "records/small: there is no spec small; its records and files are left as they are" in capsys.readouterr().err
    )
