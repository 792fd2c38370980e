import pytest

from afno_repro.errors import DataError
from afno_repro.tables.figures import read_log
from afno_repro.visualize import curves

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
    assert lines_of(monkeypatch, runs, "PSNR dB") == {
        "training loss": [[[6, 0.5], [12, 0.25]], [[6, 0.4]], [[6, 0.3]]],
        "PSNR dB of the validation images": [[[12, 20.5]], [[6, 19]]],
    }


def test_without_any_evaluation_there_is_the_loss_alone(monkeypatch):
    assert set(lines_of(monkeypatch, {"a": [([(6.0, 0.5)], [])]}, "PSNR dB")) == {"training loss"}
