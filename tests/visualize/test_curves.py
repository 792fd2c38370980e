import pytest

from afno_repro.errors import DataError
from afno_repro.tables.figures import read_log
from afno_repro.visualize import curves
from afno_repro.visualize.marks import MIXERS, marks

LOG = "epoch,step,lr,loss,psnr,ssim\n1,6,0.1,0.5,,\n2,12,0.1,0.25,20.5,0.5\n3,18,0.1,0.125,21.5,0.6\n"


def lines_of(monkeypatch, *arguments):
    drawn = []
    monkeypatch.setattr(curves, "save", lambda figure, paths: drawn.append(figure))
    curves.training_curves(*arguments, [])
    return {axes.get_ylabel(): [line.get_xydata().tolist() for line in axes.lines] for axes in drawn[0].axes}


def test_a_log_has_each_loss_and_the_metric_where_it_was_evaluated(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    assert read_log(tmp_path / "log.csv", "psnr") == ([(6, 0.5), (12, 0.25), (18, 0.125)], [(12, 20.5), (18, 21.5)])
    assert read_log(tmp_path / "log.csv", "seconds")[1] == []
    (tmp_path / "log.csv").write_text("epoch,loss\n1,0.5\n")
    with pytest.raises(DataError, match="is no log of a training"):
        read_log(tmp_path / "log.csv", "psnr")


def test_the_training_figure_shows_the_validation_beside_the_loss(monkeypatch):
    runs = {
        "a": [([(6.0, 0.5), (12.0, 0.25)], [(12.0, 20.5)]), ([(6.0, 0.4)], [])],
        "b": [([(6.0, 0.3)], [(6.0, 19.0)])],
    }
    assert lines_of(monkeypatch, runs, {"a": "gfn", "b": "afno"}, "tiny networks", "PSNR dB") == {
        "training loss\ntiny networks": [[[6, 0.5], [12, 0.25]], [[6, 0.4]], [[6, 0.3]]],
        "PSNR dB of the validation images\ntiny networks": [[[12, 20.5]], [[6, 19]]],
    }


def test_without_any_evaluation_there_is_the_loss_alone(monkeypatch):
    found = lines_of(monkeypatch, {"a": [([(6.0, 0.5)], [])]}, {"a": "gfn"}, "networks", "PSNR dB")
    assert set(found) == {"training loss\nnetworks"}


def drawn_by(monkeypatch, draw, *arguments):
    figures = []
    monkeypatch.setattr(curves, "save", lambda figure, paths: figures.append(figure))
    draw(*arguments, [])
    return figures[0]


def test_a_mixer_has_one_colour_and_marker_in_every_figure(monkeypatch):
    """Whatever stands beside it and before it."""
    points = [(1.0, 2.0, 0.1), (4.0, 3.0, None)]
    log = ([(1.0, 0.5)], [(1.0, 20.0)])
    families = {"x": points, "y": points, "z": points}
    figures = [
        (curves.family_curves, families, {"x": "gfn", "y": "my_mixer", "z": "afno"}, {}, [], ("p", "q")),
        (curves.ablation_curves, {"PSNR": points}, {}, "afno", "blocks", None, None),
        (curves.training_curves, {"b": [log], "a": [log]}, {"b": "long_short", "a": "afno"}, "tiny", "PSNR"),
        (curves.cost_curves, {"afno": ([1, 2], [1, 4]), "gfn": ([1, 2], [1, 2])}, "GFLOPs"),
    ]
    for draw, *arguments in figures:
        lines = [line for axes in drawn_by(monkeypatch, draw, *arguments).axes for line in axes.lines]
        named = {(line.get_color(), line.get_marker()) for line in lines if line.get_marker() not in ("", "None", "_")}
        assert (MIXERS["afno"].color, MIXERS["afno"].marker) in named
        assert len({color for color, _ in named}) == len({marker for _, marker in named}) == len(named)


def test_rows_with_one_mixer_have_lines_of_their_own():
    first, second, other = marks(["afno", "afno", "my_package.mixers:Mine"])
    assert (first.color, first.marker) == (second.color, second.marker)
    assert first.line != second.line
    assert other.color not in {mark.color for mark in MIXERS.values()}


@pytest.mark.parametrize(("sizes", "said"), [((64, 256), "gfn"), ((64, 256, 1024), "gfn, tokens^1.00")])
def test_no_exponent_is_fitted_to_two_sizes(monkeypatch, sizes, said):
    figure = drawn_by(monkeypatch, curves.cost_curves, {"gfn": (sizes, sizes)}, "GFLOPs")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [said]
