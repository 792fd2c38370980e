"""Ordinary refusals of the system are one line with an exit code of its own, never a traceback."""

import errno
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from afno_repro import cli, files
from afno_repro.commands import doctor
from afno_repro.commands.arguments import places
from afno_repro.errors import ConfigError, StorageError, refusal
from afno_repro.files import check_lock
from afno_repro.runs import schedule
from afno_repro.runs.launch import take_place
from afno_repro.runs.show import Show
from afno_repro.spec import start, tree
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.command import afno, answer
from tests.machine import machine_at
from tests.specs import SMALL, write_spec


def code_of(monkeypatch, error, *arguments):
    """How the command ends when whatever it does meets an error."""

    def broken(*given, **named):
        raise error

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr(sys, "argv", ["afno", *arguments])
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # which a command sets; undone with the rest
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.fast
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EAGAIN, errno.ENOLCK, errno.ENOSPC, errno.ENOENT])
def test_any_refusal_of_the_system_is_told_with_its_file(number, monkeypatch, capsys):
    assert code_of(monkeypatch, OSError(number, os.strerror(number), "a/file")) == 7
    assert capsys.readouterr().err.startswith(f"a/file: {os.strerror(number)}\n")


@pytest.mark.fast
@pytest.mark.parametrize(("number", "code"), [(errno.EIO, 7), (errno.EMFILE, 7), (errno.EACCES, 7), (errno.ENOENT, 2)])
def test_a_spec_or_weights_that_the_system_does_not_give_are_no_mistake(number, code, tmp_path, monkeypatch):
    def refused(*given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tree, "read_regular", refused)
    monkeypatch.setattr(start, "open_regular", refused)
    (tmp_path / "file").touch()
    for reading in (lambda: tree.read_tree(tmp_path / "file", "file"), lambda: start.identity(tmp_path / "file")):
        with pytest.raises(ConfigError, match=os.strerror(number)) as told:
            reading()
        assert told.value.exit_code == code


@pytest.mark.fast
def test_threads_that_cannot_be_started_are_told(monkeypatch, capsys):
    assert code_of(monkeypatch, RuntimeError("can't start new thread")) == 7
    assert "ulimit -u" in capsys.readouterr().err
    assert refusal(RuntimeError("a fault of ours")) is None


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), OSError(errno.EAGAIN, "try again")])
def test_what_the_system_refuses_a_run_is_no_fault_of_the_program(tmp_path, monkeypatch, error, capsys):
    def broken(*arguments):
        raise error

    monkeypatch.setattr(schedule, "run_one", broken)
    run = plan_runs(load_spec(write_spec(tmp_path)), "smoke").needs["afno", "pretrain", 0]
    (failure,) = schedule.execute([run], machine_at(tmp_path), Show())
    assert (failure.exit_code, failure.trace) == (7, "")
    assert error.strerror in failure.message


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_full_disk_behind_standard_output_is_told(form, tmp_path):
    write_spec(tmp_path)
    command = [sys.executable, "-m", "afno_repro", "list", *form]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (7, False, False)
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("command", [["list"], ["run", "small"], ["run", "all", "--dry-run"], ["report"], ["doctor"]])
def test_a_root_of_6000_characters_is_too_long_a_name(command, tmp_path):
    done = afno(*command, "--root", "a" * 6000, root=tmp_path, expect=7)
    assert "File name too long" in done.stdout + done.stderr


def joined(devices, **environment):
    return take_place(machine_at(Path(), devices=devices), 1, environment)


RUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "1"}


@pytest.mark.fast
@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
@pytest.mark.parametrize("value", ["y", "", "-1", "1" * 5000])
def test_an_environment_that_says_no_number_is_named(name, value):
    with pytest.raises(ConfigError, match=f"{name}: must be a whole number in the environment"):
        joined(2, **{**RUN, name: value})


@pytest.mark.fast
def test_a_step_of_slurm_without_a_meeting_place_names_the_variable():
    step = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "1"}
    with pytest.raises(ConfigError, match=r"MASTER_ADDR and MASTER_PORT[^$]*export MASTER_ADDR"):
        joined(2, **step)
    with pytest.raises(ConfigError, match="one another: MASTER_PORT not in"):
        joined(2, **step, MASTER_ADDR="here")
    assert joined(1, **step) is False  # commands side by side, each on its own
    assert joined(2, **{**step, "SLURM_STEP_NUM_TASKS": "1"}) is False


def test_doctor_says_where_the_package_runs_from_a_folder_alone(monkeypatch):
    def requires(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", requires)
    (line,) = doctor._packages()
    assert line["ok"]
    assert "without being installed" in line["found"]


def test_doctor_tries_a_flush_and_a_lock_with_two_processes(tmp_path, monkeypatch):
    write_spec(tmp_path)

    def found():
        lines = doctor._folders(places(tmp_path, None), None)
        return {line["what"]: line for line in lines}

    assert found()["runs"]["ok"]
    assert "locks and flushed files hold between two processes" in found()["runs"]["found"]
    assert not list(tmp_path.glob("runs/.*"))
    monkeypatch.setattr("fcntl.flock", lambda *arguments: None)  # a file system that locks nothing
    assert "a lock keeps no other process out, it was granted twice" in found()["runs"]["found"]
    assert not found()["results"]["ok"]
    monkeypatch.undo()
    for second, told in (
        (files.OTHER.replace("file.read()", "''"), "does not see what was written and flushed here: it read ''"),
        ("raise OSError('no locks here')", "no locks here"),  # which is no refusal
    ):
        monkeypatch.setattr(files, "OTHER", second)
        assert told in found()["runs"]["found"]
        assert not found()["runs"]["ok"]
    monkeypatch.undo()

    def fsync(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="Input/output error"):
        check_lock(tmp_path / "runs")


def test_what_editors_leave_beside_specs_is_no_spec(tmp_path):
    write_spec(tmp_path)
    for name in (".#x.yaml", "._small.yaml"):
        (tmp_path / "experiments" / name).write_bytes(b"\0\1 no spec")
    assert {entry["table"] for entry in answer("list", root=tmp_path)} == {"small"}
    plan = answer("run", "all", "--scale", "smoke", "--dry-run", root=tmp_path)
    assert {entry["table"] for entry in plan} == {"small", "total"}


def test_a_mistake_in_another_spec_is_told_and_keeps_no_table_from_being_written(tmp_path):
    write_spec(tmp_path)
    write_spec(tmp_path, name="other")
    afno("run", "all", "--device", "cpu", "--row", "fill_mean", root=tmp_path)
    write_spec(tmp_path, "<<<<<<< ours\n" + SMALL + ">>>>>>> theirs\n", name="other")
    (tmp_path / "results/tiny/small.md").unlink()
    done = afno("run", "small", "--device", "cpu", "--row", "fill_mean", root=tmp_path)
    assert "experiments/other.yaml:2:6: not YAML" in done.stderr
    assert "other is left out of the report" in done.stderr
    assert (tmp_path / "results/tiny/small.md").is_file()
    assert afno("report", root=tmp_path, expect=2).stderr.startswith("experiments/other.yaml:")
