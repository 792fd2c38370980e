"""Two commands that share runs: what starts from a run that the other one does waits for it."""

import os
from contextlib import ExitStack

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


def test_what_others_let_go_of_goes_side_by_side_again(tmp_path, monkeypatch):
    """While all of it is held, one look a time is enough; processes of their own are not started for that."""
    plan = plan_runs(load_spec(write_spec(tmp_path, FINETUNED)), "tiny")
    runs = [run for run in plan.runs if run.config.kind in ("pretrain", "finetune")]
    store, looks, asked = Store(tmp_path / "runs"), 0, []

    def stand_in(name):
        def scheduled(some, machine, show):
            asked.append((name, len(some), machine.jobs))
            return [] if looks == 2 else [schedule.Failure(run, "held", 6) for run in some]

        return scheduled

    def look(seconds):
        nonlocal looks
        looks += 1
        if looks == 2:
            held.close()

    with ExitStack() as held:
        for run in runs:
            if run.config.init is None:  # what starts from them is free, and cannot begin
                held.enter_context(store.lock(run))
        for name in ("_side_by_side", "_one_by_one"):
            monkeypatch.setattr(schedule, name, stand_in(name))
        monkeypatch.setattr(schedule.time, "sleep", look)
        assert schedule.execute(runs, machine_at(tmp_path, jobs=3), Show()) == []
    trained = [(name, jobs) for name, count, jobs in asked if count]
    assert trained == [("_side_by_side", 3), ("_one_by_one", 1), ("_side_by_side", 3)]
