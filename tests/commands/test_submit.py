"""Workers started by submitit: what SLURM would be told, and tasks on this machine that do a table."""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from afno_repro.cli import app
from afno_repro.errors import ConfigError
from afno_repro.runs.cluster import Task
from tests.command import afno, answer
from tests.forked import FIRST
from tests.specs import write_spec

needs_submitit = pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
SUBMIT = ("submit", "small", "--tasks", "2")


@pytest.fixture
def root(tmp_path):
    write_spec(tmp_path)
    return tmp_path


def test_without_submitit_the_extra_that_brings_it_is_named(root):
    environment = {**os.environ, FIRST: "import sys; sys.modules['submitit'] = None"}
    said = afno(*SUBMIT, "--local", root=root, env=environment, expect=3).stderr
    assert "the package submitit is not installed\n  pip install 'afno_repro[cluster]'" in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--slurm time=MINUTES: must say how many minutes a task may take"),
        (("--slurm", "time=1-00:00:00"), "--slurm time=MINUTES"),
        (("--slurm", "time=60", "--slurm", "gpus_per_node=1"), "--slurm 'gpus_per_node=1': must be KEY=VALUE or KEY"),
        (("--slurm", "time=60", "--local"), "--local: not with --slurm"),
        (("--local", "--scael", "tiny"), "No such option: --scael"),
        (("--local", "--scale", "huge"), "there is no scale 'huge'"),
        (("--local", "--rerun"), "--rerun: not with --worker"),
    ],
)
def test_mistakes_are_told_before_anything_is_queued(root, monkeypatch, options, told):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, [*SUBMIT, *options])
    assert told in f"{done.exception}{done.output}"
    assert isinstance(done.exception, ConfigError) or done.exit_code == 2
    assert not (root / "runs").exists()


@needs_submitit
def test_slurm_is_told_its_own_options_and_that_each_task_is_a_worker(root, monkeypatch):
    """By an sbatch that keeps what it is given."""
    (root / "bin").mkdir()
    for name, text in (("sbatch", 'cp "$1" given; echo Submitted batch job 7'), ("srun", "")):
        (root / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (root / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(root)
    options = ("time=1440", "partition=gpu", "gpus-per-node=1", "requeue")
    asked = [part for option in options for part in ("--slurm", option)]
    done = json.loads(CliRunner().invoke(app, [*SUBMIT, "--scale", "smoke", *asked, "--json"]).stdout)
    lines = (root / "given").read_text().splitlines()
    assert {"#SBATCH --time=1440", "#SBATCH --partition=gpu", "#SBATCH --gpus-per-node=1"} < set(lines)
    assert {"#SBATCH --requeue", "#SBATCH --array=0-1%2", "#SBATCH --job-name=afno-small"} < set(lines)
    assert done["tasks"] == ["7_0", "7_1"]
    assert done["command"][1:] == ["-m", "afno_repro", "run", "small", "--scale", "smoke", "--worker"]


@needs_submitit
def test_tasks_of_this_machine_do_a_table_together(root):
    done = answer(*SUBMIT, "--local", "--scale", "smoke", "--jobs", "1", "--row", "gfn", root=root)
    logs, deadline = Path(root / done["logs"]), time.monotonic() + 120
    while len(list(logs.glob("*_result.pkl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    said = [path.read_text() for path in logs.glob("*_log.*")]
    assert len(list(logs.glob("*_result.pkl"))) == 2, said
    assert (root / "runs/smoke/small.md").is_file()
    assert sum("gfn/pretrain seed 0: started" in words for words in said) == 1, said


class Requeued(Exception):
    pass


@needs_submitit
def test_a_task_whose_time_is_up_keeps_its_work_and_is_queued_again(tmp_path):
    """The signal may reach the command as well, which is told by SIGTERM alone, and once."""
    program = """
import signal, sys, time
def keep(number, frame):
    open("kept", "a").write(f"{number} ")
    time.sleep(0.2)
    sys.exit(143)
signal.signal(signal.SIGTERM, keep)
open("ready", "w").close()
time.sleep(60)
"""
    task, queued = Task([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{program}"]), []

    def time_is_up(number, frame):
        queued.append(task.checkpoint())
        raise Requeued

    def slurm():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(task.process, signal.SIGUSR2)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, time_is_up)
    thread = Thread(target=slurm)
    thread.start()
    with pytest.raises(Requeued):
        task()
    signal.signal(signal.SIGUSR2, before)
    thread.join()
    assert (tmp_path / "kept").read_text() == f"{int(signal.SIGTERM)} "
    assert [again.function.command for again in queued] == [task.command]


def test_a_task_ends_with_its_command_s_exit_code():
    Task(["true"])()
    for command, code in (("exit 4", 4), ("kill -TERM $$", 143)):
        with pytest.raises(SystemExit) as ended:
            Task(["sh", "-c", command])()
        assert ended.value.code == code
