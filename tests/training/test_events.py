"""TensorBoard's own reader finds every number of log.csv, each once."""

import csv
import os
import signal

import pytest

from afno_repro.errors import Interrupted
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.training.events import FILE, FOLDER
from tests.command import afno
from tests.machine import machine_at
from tests.specs import write_spec
from tests.training.test_resume import config_of, silent, train

read_back = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator


def scalars(directory):
    events = read_back(str(directory / FOLDER), purge_orphaned_data=False).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(directory):
    """The same from log.csv: by part and column, the step and the number of each line that has one."""
    found = {}
    for line in csv.DictReader((directory / "log.csv").open()):
        for key, value in line.items():
            if key not in ("epoch", "step") and value:
                part = "training" if key in ("lr", "loss") or "alive" in key else "validation"
                found.setdefault(f"{part}/{key}", []).append((int(line["step"]), pytest.approx(float(value))))
    return found


@pytest.mark.parametrize("stop_at", [None, 7, 12, 18])
def test_the_curves_are_the_log_also_after_an_interruption(tmp_path, stop_at):
    machine = machine_at(tmp_path, tensorboard=True, checkpoint_every_s=0.0)
    config, directory = config_of(tmp_path), tmp_path / "run"

    def stop(step):
        if step.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    if stop_at is not None:
        with pytest.raises(Interrupted):
            train(config, machine, directory, stop)
        assert scalars(directory) == logged(directory)
        train(config, machine, directory, silent)
    else:
        train(config, machine, directory, silent)
    found = scalars(directory)
    assert found == logged(directory)
    assert [step for step, _ in found["training/loss"]] == [6, 12, 18]
    assert {"training/lr", "training/alive_1", "validation/psnr", "validation/ssim"} <= set(found)


def test_asked_for_later_the_curves_begin_at_the_first_step(tmp_path):
    config, directory = config_of(tmp_path), tmp_path / "run"

    def stop(step):
        if step.step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(config, machine_at(tmp_path), directory, stop)
    assert not (directory / FOLDER).exists()
    train(config, machine_at(tmp_path, tensorboard=True), directory, silent)
    assert [step for step, _ in scalars(directory)["training/loss"]] == [6, 12, 18]


def test_the_command_writes_them_below_the_run_and_forgets_them_with_it(tmp_path):
    spec = load_spec(write_spec(tmp_path))
    afno("run", "small", "--scale", "smoke", "--row", "gfn", "--log", "tensorboard", root=tmp_path)
    run, store = plan_runs(spec, "smoke").needs["gfn", "pretrain", 0], Store(tmp_path / "runs")
    file = store.directory(run) / FOLDER / FILE
    assert file.is_file()
    store.forget(run)
    assert not file.parent.exists()
