"""Runs side by side, in processes that end when they should not."""

import multiprocessing
import os
import signal

import pytest

from afno_repro.errors import Interrupted
from afno_repro.runs.schedule import execute
from afno_repro.runs.show import Show
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.machine import machine_at
from tests.specs import write_spec
from tests.training.test_loop import FINETUNED


class At(Show):
    """Acts when so many runs have finished."""

    def __init__(self, count, act):
        self.left, self.act = count, act

    def finished(self, run, outcome, reason, seconds, metrics):
        self.left -= 1
        if self.left == 0:
            self.act()


def kill_workers(count=2):
    """Kill the processes that were started first, and wait until they are gone."""
    started = sorted(multiprocessing.active_children(), key=lambda process: int(process.pid))
    for process in started[:count]:
        process.kill()
        process.join()


@pytest.fixture
def runs(tmp_path):
    """A short training; a longer one; a training that starts from the longer one."""
    needs = plan_runs(load_spec(write_spec(tmp_path, FINETUNED.replace("epochs: 3\n", "epochs: 30\n"))), "tiny").needs
    short = plan_runs(load_spec(write_spec(tmp_path)), "smoke").needs
    return [short["gfn", "pretrain", 0], needs["afno", "pretrain", 0], needs["afno", "finetune", 0]]


def test_a_signal_after_the_last_run_is_not_lost(tmp_path, runs):
    with pytest.raises(Interrupted) as stopped:
        execute(runs, machine_at(tmp_path, jobs=2), At(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert stopped.value.exit_code == 143
    assert all(Store(tmp_path / "runs").record(run.digest) for run in runs)


def test_a_process_that_is_killed_while_it_waits_for_work_costs_nothing(tmp_path, runs):
    assert execute(runs, machine_at(tmp_path, jobs=2), At(1, lambda: kill_workers(1))) == []
    assert all(Store(tmp_path / "runs").record(run.digest) for run in runs)


def test_a_process_that_is_killed_when_work_comes_costs_that_run(tmp_path, runs):
    (failure,) = execute(runs, machine_at(tmp_path, jobs=2), At(2, kill_workers))
    assert (failure.run, failure.message, failure.trace) == (runs[2], "its process ended with exit code -9", "")
    assert execute(runs[2:], machine_at(tmp_path), Show()) == []
