"""An interrupted run ends with the weights and the log of an uninterrupted one, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from afno_repro import faults
from afno_repro.data import load_data
from afno_repro.errors import Diverged, Interrupted, StorageError
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.training import checkpoint, loop
from afno_repro.training.stop import stop_flag
from tests.command import afno, start
from tests.machine import machine_at
from tests.specs import SMALL, write_spec


def config_of(tmp_path, row="afno"):
    return plan_runs(load_spec(write_spec(tmp_path)), "tiny").needs[row, "pretrain", 0].config


def train(config, machine, directory, report):
    return loop.train(config, load_data(config.data, machine.data_root), machine, directory, report)


def machine(tmp_path, workers=0, checkpoint_every_s=0.0):
    return machine_at(tmp_path, num_workers=workers, checkpoint_every_s=checkpoint_every_s)


def left(directory: Path) -> tuple[bytes, str]:
    return (directory / "weights.safetensors").read_bytes(), (directory / "log.csv").read_text()


def silent(step):
    pass


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Commands keep their work after every step."""
    monkeypatch.setenv("AFNO_CHECKPOINT_EVERY_S", "0")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    metrics = train(config_of(folder), machine(folder), folder / "run", silent)
    return *left(folder / "run"), metrics


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("stop_at", [1, 6, 7, 17, 18])
def test_a_stopped_run_continues_bit_for_bit(tmp_path, uninterrupted, workers, stop_at):
    """18 steps, 6 an epoch: stopped after the first, at an epoch's end, after it, before and after the last."""

    def stop(step):
        if step.step == stop_at - 1 or stop_at == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    config = config_of(tmp_path)
    with pytest.raises(Interrupted) as stopped:
        train(config, machine(tmp_path, workers), tmp_path / "run", stop)
    assert stopped.value.exit_code == 143
    metrics = train(config, machine(tmp_path, workers), tmp_path / "run", silent)
    assert (*left(tmp_path / "run"), metrics) == uninterrupted


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_signal_during_an_evaluation_stops_the_run_even_after_its_last_step(
    tmp_path, uninterrupted, monkeypatch, epoch
):
    evaluations = []

    def act(point):
        evaluations.append(point) if point == "training: evaluated" else None
        if len(evaluations) == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
            monkeypatch.setattr(faults, "ARMED", [])

    monkeypatch.setattr(faults, "ARMED", [act])
    with pytest.raises(Interrupted) as stopped:
        train(config_of(tmp_path), machine(tmp_path), tmp_path / "run", silent)
    assert stopped.value.exit_code == 143
    metrics = train(config_of(tmp_path), machine(tmp_path), tmp_path / "run", silent)
    assert (*left(tmp_path / "run"), metrics) == uninterrupted


def test_a_run_without_checkpoints_between_epochs_gives_the_same_weights(tmp_path, uninterrupted):
    train(config_of(tmp_path), machine(tmp_path, checkpoint_every_s=1e9), tmp_path / "run", silent)
    assert left(tmp_path / "run") == uninterrupted[:2]


@pytest.mark.parametrize(("every_s", "kept"), [(0.0, 18), (1e9, 1)])
def test_checkpoints_come_by_time_and_at_the_end(tmp_path, monkeypatch, every_s, kept):
    steps = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, *rest: steps.append(step) or save(folder, step, *rest))
    train(config_of(tmp_path), machine(tmp_path, checkpoint_every_s=every_s), tmp_path / "run", silent)
    assert (len(steps), steps[-1]) == (kept, 18)


def test_another_seed_gives_other_weights(tmp_path, uninterrupted):
    train(replace(config_of(tmp_path), seed=1), machine(tmp_path), tmp_path / "run", silent)
    assert left(tmp_path / "run")[0] != uninterrupted[0]


def test_every_afno_layer_logs_how_much_of_its_spectrum_is_alive(uninterrupted):
    header, *rows = uninterrupted[1].splitlines()
    place = header.split(",").index("alive_1")
    assert len(rows) == 3
    assert all(0 <= float(row.split(",")[place]) <= 1 for row in rows)


def test_a_loss_that_is_not_finite_ends_the_run_and_is_not_checkpointed(tmp_path):
    config = config_of(tmp_path)
    wild = replace(config, train=replace(config.train, lr=1e30, clip_norm=None))
    with pytest.raises(Diverged, match="the loss is"):
        train(wild, machine(tmp_path), tmp_path / "run", silent)
    for path in checkpoint.saved(tmp_path / "run" / "checkpoints"):
        state = torch.load(path / "state.pt", weights_only=True)
        assert state["state"]["loss_sum"] == state["state"]["loss_sum"]


def damaged(tmp_path, how, count):
    """A half-done run whose newest `count` checkpoints are damaged."""

    def stop(step):
        if step.step == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(config_of(tmp_path), machine(tmp_path), tmp_path / "run", stop)
    damage(tmp_path / "run", how, count)


def damage(run, how, count):
    for path in checkpoint.saved(run / "checkpoints")[:count]:
        file = path / "state.pt"
        data = bytearray(file.read_bytes())
        if how == "flipped":
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        elif how == "truncated":
            file.write_bytes(data[:-10])
        elif how == "edited manifest":
            told = json.loads((path / "manifest.json").read_text())
            told["bound"]["planned_steps"] += 1
            (path / "manifest.json").write_text(json.dumps(told))
        elif how == "a pipe in its place":
            shutil.rmtree(path)
            os.mkfifo(path)
        else:
            (path / how.removeprefix("pipe ")).unlink()
            if how.startswith("pipe "):
                os.mkfifo(path / how.removeprefix("pipe "))


PIPES = ["pipe state.pt", "pipe manifest.json", "a pipe in its place"]


@pytest.mark.parametrize("how", ["flipped", "truncated", "edited manifest", "state.pt", "manifest.json", *PIPES])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, uninterrupted, how):
    damaged(tmp_path, how, count=1)
    said = []
    train(config_of(tmp_path), machine(tmp_path), tmp_path / "run", lambda step: said.append(step.note))
    assert "is damaged" in said[0]
    assert left(tmp_path / "run") == uninterrupted[:2]


def test_a_run_never_silently_starts_again(tmp_path):
    damaged(tmp_path, "flipped", count=2)
    with pytest.raises(StorageError, match="no checkpoint is whole"):
        train(config_of(tmp_path), machine(tmp_path), tmp_path / "run", silent)


@pytest.mark.parametrize("how", PIPES)
def test_pipes_for_checkpoints_are_named_and_never_waited_for(tmp_path, how):
    write_spec(tmp_path, SMALL)
    run = plan_runs(load_spec(tmp_path / "experiments/small.yaml"), "tiny").needs["afno", "pretrain", 0]
    damaged(tmp_path, "flipped", count=0)
    directory = tmp_path / "runs" / run.id
    shutil.move(tmp_path / "run", directory)
    damage(directory, how, count=2)
    for command in (("run", "small", "--dry-run"), ("list",), ("report",)):
        afno(*command, root=tmp_path)
    told = afno("pretrain", "small", "--row", "afno", "--device", "cpu", root=tmp_path, expect=7).stderr
    assert "no checkpoint is whole" in told
    assert "not a regular file" in told or "Not a directory" in told


LONG = SMALL.replace("epochs: 3", "epochs: 30")
RUN = ("run", "small", "--row", "afno", "--device", "cpu")


@pytest.fixture(scope="module")
def whole_command(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    write_spec(root, LONG)
    afno(*RUN, "--jobs", "1", root=root)
    return outcome(root)


def outcome(root: Path):
    """Weights and log of the training, and what was written about it."""
    (directory,) = (root / "runs").glob("pretrain-afno-*")
    assert not (directory / "checkpoints").exists()
    return *left(directory), (root / "results/tiny/small.csv").read_text()


SLOW = pytest.mark.slow  # the same by another way, which tests/crash.py goes, too


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=SLOW), pytest.param(2, marks=SLOW)])
def test_kill_9_and_the_same_command_again(tmp_path, whole_command, workers):
    write_spec(tmp_path, LONG)
    arguments = (*RUN, "--jobs", "1", "--workers", str(workers))
    pause = random.Random(workers)
    for kill in range(2):
        process = start(*arguments, root=tmp_path)
        wait_for_checkpoint(tmp_path, process, newer_than=kill)
        time.sleep(pause.random() * 0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not list((tmp_path / "runs").glob("pretrain-afno-*/record.json")), "it was over before it was killed"
    assert "afno/pretrain seed 0: continues at step " in afno(*arguments, root=tmp_path).stderr
    assert outcome(tmp_path) == whole_command


def wait_for_checkpoint(root, process, newer_than):
    seen = {p.name for p in root.glob("runs/pretrain-*/checkpoints/step-*")}
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if {p.name for p in root.glob("runs/pretrain-*/checkpoints/step-*")} - seen:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGUSR1, 143, marks=SLOW), (signal.SIGINT, 130)]
)
def test_a_signal_stops_after_a_checkpoint_with_its_own_exit_code(tmp_path, whole_command, number, code):
    write_spec(tmp_path, LONG)
    process = start(*RUN, "--jobs", "1", root=tmp_path)
    wait_for_checkpoint(tmp_path, process, 0)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "the same command continues" in err
    assert "Traceback" not in err
    assert "continues at step " in afno(*RUN, "--jobs", "1", root=tmp_path).stderr
    assert outcome(tmp_path) == whole_command


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=SLOW)])
def test_a_command_with_a_time_of_its_own_stops_after_a_checkpoint_and_goes_on_with_more(tmp_path, whole_command, jobs):
    write_spec(tmp_path, LONG)
    minutes = 0.02
    codes = [143]
    while codes[-1] in (143, -signal.SIGTERM) and minutes < 10:
        process = start(*RUN, "--jobs", jobs, "--stop-after", str(minutes), root=tmp_path)
        _, err = process.communicate(timeout=300)
        assert "Traceback" not in err
        codes.append(process.returncode)
        minutes *= 2
    assert len(codes) > 2
    assert codes[-1] == 0
    assert outcome(tmp_path) == whole_command


TWICE = """
import json
import os
from afno_repro.training.stop import stop_flag
with stop_flag():
    for i in (1, 2):
        os.kill(os.getpid(), 15)
        print(i, flush=True)
"""


def test_a_second_signal_ends_a_process_at_once():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "1\n")


ECHOED = """
import time
from afno_repro.training.stop import stop_flag
with stop_flag() as stop:
    print("ready", flush=True)
    while stop.signal is None:
        time.sleep(0.001)
    time.sleep(0.5)
    print(stop.signal)
"""


def test_a_signal_to_a_process_and_then_to_its_group_asks_once():
    """As timeout does it: the second one would end the process without a checkpoint."""
    with subprocess.Popen([sys.executable, "-c", ECHOED], stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert (process.stdout.read(), process.wait()) == (b"2\n", 0)


def test_a_killed_data_loading_process_is_told_and_the_command_continues(tmp_path, whole_command):
    write_spec(tmp_path, LONG)
    process = start(*RUN, "--jobs", "1", "--workers", "1", root=tmp_path)
    wait_for_checkpoint(tmp_path, process, 0)
    while not (loading := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
        time.sleep(0.01)
    os.kill(int(loading[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "a data-loading process ended" in err
    assert "Traceback" not in err
    assert "continues at step " in afno(*RUN, "--jobs", "1", root=tmp_path).stderr
    assert outcome(tmp_path) == whole_command


def test_a_folder_of_temporary_files_too_deep_for_data_loading_processes_is_told(tmp_path):
    write_spec(tmp_path)
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    done = afno(*RUN, "--jobs", "1", "--workers", "1", root=tmp_path, expect=4, env={**os.environ, "TMPDIR": str(deep)})
    assert "too long a path for the sockets of data-loading processes" in done.stderr


def test_the_hash_seed_changes_nothing(tmp_path, whole_command):
    write_spec(tmp_path, LONG)
    afno(*RUN, "--jobs", "1", root=tmp_path, env={**os.environ, "PYTHONHASHSEED": "12345"})
    assert outcome(tmp_path) == whole_command


def test_a_checkpoint_of_another_run_or_none_is_refused(tmp_path):
    damaged(tmp_path, "flipped", count=0)
    for path in checkpoint.saved(tmp_path / "run" / "checkpoints"):
        state = torch.load(path / "state.pt", weights_only=True)
        state["model"] = {"strange": torch.zeros(1)}
        checkpoint.save(path.parent, int(path.name[5:]), state, {"bound": state["bound"]})
    with pytest.raises(StorageError, match="not a checkpoint of this run"):
        train(config_of(tmp_path), machine(tmp_path), tmp_path / "run", silent)


def test_another_machine_is_named_when_a_run_continues_on_it(tmp_path):
    damaged(tmp_path, "flipped", count=0)
    said = []
    other = replace(machine(tmp_path), threads=2)
    train(config_of(tmp_path), other, tmp_path / "run", lambda step: said.append(step.note))
    assert "on another machine (threads 1, now 2): the last bits may differ" in said[0]
    assert not any(said[1:])


def killed_side_by_side(tmp_path):
    """Runs side by side whose command is killed, and that they stop."""
    write_spec(tmp_path, LONG)
    process = start("run", "small", "--device", "cpu", "--jobs", "2", root=tmp_path)
    wait_for_checkpoint(tmp_path, process, 0)
    process.kill()
    process.communicate()
    time.sleep(5)
    before = {p: p.stat().st_mtime for p in tmp_path.glob("runs/pretrain-*/**/*")}
    time.sleep(1)
    assert {p: p.stat().st_mtime for p in tmp_path.glob("runs/pretrain-*/**/*")} == before


def test_runs_side_by_side_stop_when_their_command_is_killed(tmp_path):
    killed_side_by_side(tmp_path)


@pytest.mark.slow
def test_runs_side_by_side_continue_when_their_command_was_killed(tmp_path):
    killed_side_by_side(tmp_path)
    other = tmp_path / "other"
    write_spec(other, LONG)
    for root in (tmp_path, other):
        afno("run", "small", "--device", "cpu", "--jobs", "2", root=root)
    for path in other.glob("runs/pretrain-*"):
        assert left(path) == left(tmp_path / "runs" / path.name)
    shutil.rmtree(other)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU])
def test_a_closed_terminal_and_a_used_up_cpu_time_stop_after_a_checkpoint(tmp_path, uninterrupted, number):
    def stop(step):
        if step.step == 2:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # the kernel says both more than once

    with pytest.raises(Interrupted) as stopped:
        train(config_of(tmp_path), machine(tmp_path), tmp_path / "run", stop)
    assert stopped.value.exit_code == 143
    assert signal.getsignal(number) == signal.SIG_DFL
    metrics = train(config_of(tmp_path), machine(tmp_path), tmp_path / "run", silent)
    assert (*left(tmp_path / "run"), metrics) == uninterrupted


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_flag() as flag:
            os.kill(os.getpid(), signal.SIGHUP)
        assert flag.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)
