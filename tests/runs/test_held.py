"""Two commands that share runs: what starts from a run that the other one does waits for it."""

import os

import pytest

from afno_repro.runs import schedule
from afno_repro.runs.show import Show
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.command import start
from tests.machine import machine_at
from tests.specs import write_spec
from tests.training.test_loop import FINETUNED
from tests.training.test_resume import wait_for_checkpoint

LONG = FINETUNED.replace("epochs: 3\n", "epochs: 60\n")
ROW = ("small", "--row", "afno", "--device", "cpu", "--jobs", "1")


class Heard(Show):
    def __init__(self):
        self.ends = []

    def finished(self, run, outcome, reason, seconds, metrics):
        self.ends.append((run.stage, outcome, reason))


@pytest.fixture
def other(tmp_path):
    """A command in the middle of a pretraining."""
    write_spec(tmp_path, LONG)
    process = start("pretrain", *ROW, root=tmp_path, env={**os.environ, "AFNO_CHECKPOINT_EVERY_S": "0"})
    wait_for_checkpoint(tmp_path, process, 0)
    return process


def test_of_two_commands_the_one_that_finetunes_waits_for_the_pretraining_of_the_other_and_names_it(tmp_path, other):
    second = start("finetune", *ROW, root=tmp_path)
    _, said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    _, first = other.communicate(timeout=60)
    assert other.returncode == 0, first
    assert "afno/finetune seed 0: held (pretrain-afno-" in said
    assert f"is held by process {other.pid}" in said
    assert "afno/finetune seed 0: ok" in said
    assert "continues at step" not in said  # nothing was taken from the other, or done twice


def test_a_parent_is_waited_for_longer_than_what_is_only_held(tmp_path, other, monkeypatch):
    monkeypatch.setattr(schedule, "WAIT_FOR_HELD_S", 0.0)
    needs = plan_runs(load_spec(tmp_path / "experiments/small.yaml"), "tiny").needs
    parent, child, heard = needs["afno", "pretrain", 0], needs["afno", "finetune", 0], Heard()
    (held,) = schedule.execute([parent], machine_at(tmp_path), heard)
    assert held.exit_code == 6
    assert schedule.execute([parent, child], machine_at(tmp_path), heard) == []
    assert other.wait(60) == 0
    assert Store(tmp_path / "runs").record(child.digest).outcome == "ok"
    assert ("finetune", "held") in [end[:2] for end in heard.ends]
