"""The day on a GPU, gone through on a CPU: every stage, and what becomes of those that do not pass."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import gpu_day
from benchmarks.gpu_day import Stage
from tests.specs import ROOT

HANGS = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', "
    "'import os, time; os.setpgrp(); time.sleep(600)']);"  # as processes that load images or do runs have their groups
    "print('waiting for', child.pid, flush=True); time.sleep(600)"
)


def day(out: Path) -> dict[str, dict]:
    """What is written of each stage."""
    return {each["stage"]: each for each in json.loads((out / "day.json").read_text())["stages"]}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def ends(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(pid)


@pytest.fixture
def gone_through(tmp_path, monkeypatch):
    """A day of stages of one's own."""

    def go(*stages: Stage, options: Sequence[str] = ()) -> tuple[int, dict[str, dict]]:
        monkeypatch.setattr(gpu_day, "stages", lambda *_: stages)
        monkeypatch.setattr(gpu_day.signal, "signal", lambda *_: None)  # this process goes on
        monkeypatch.setattr("sys.argv", ["gpu_day", "--out", str(tmp_path), "--device", "cpu", *options])
        with pytest.raises(SystemExit) as left:
            gpu_day.main()
        return left.value.code, day(tmp_path)

    return go


def python(name: str, code: str, limit_s: float = 30, **more) -> Stage:
    """A stage of a few lines."""
    return Stage(name, "", [sys.executable, "-c", code], limit_s, **more)


def test_a_stage_that_does_not_pass_is_told_with_its_last_words_and_stops_no_other(tmp_path, gone_through):
    looks = f"import sys; sys.stdout.write(open({str(tmp_path / 'day.json')!r}).read())"
    code, found = gone_through(
        python("hangs", HANGS, 2),
        python("fails", "print('so far'); raise SystemExit(3)"),
        python("no data", "raise SystemExit(3)", brings_data=False),
        python("lacks", "", needs=("no-such-package",)),
        python("looks", looks),
    )
    assert code == 1
    assert found["hangs"]["outcome"] == "cut off after 2 s"
    assert found["fails"]["outcome"] == "failed with 3"
    assert found["fails"]["last_words"] == ["so far"]
    assert found["no data"]["outcome"] == "left out: its data are not here"
    assert found["lacks"]["outcome"] == "left out: no-such-package not installed"
    assert found["looks"]["outcome"] == "passed"
    seen = [each["stage"] for each in json.loads((tmp_path / "looks.log").read_text())["stages"]]
    assert seen == ["hangs", "fails", "no data", "lacks"]
    (child,) = (int(line.rsplit(" ", 1)[1]) for line in found["hangs"]["last_words"])
    assert ends(child)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("timed", [True, False])
def test_a_day_that_is_stopped_stops_its_stages_and_keeps_what_there_is(asked, timed, tmp_path):
    stages = [python("first", "", timed=timed), python("hangs", HANGS, timed=timed)]
    code = (
        "from benchmarks import gpu_day; from benchmarks.gpu_day import Stage;"
        f"gpu_day.stages = lambda *_: {stages!r}; gpu_day.main()"
    )
    command = [sys.executable, "-c", code, "--out", str(tmp_path), "--device", "cpu"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "hangs.log"
        while not (log.exists() and "waiting for" in log.read_text() and "first" in day(tmp_path)):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(asked)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said == f"stopped; what there is lies in {tmp_path}\n"
    assert day(tmp_path)["first"]["outcome"] == "passed"
    child = int(log.read_text().rsplit(" ", 1)[1])
    assert ends(child)


def test_a_stage_that_is_not_gone_through_again_stays_with_its_commit(tmp_path, gone_through):
    gone_through(python("one", ""), python("two", "raise SystemExit(1)"))
    code, found = gone_through(python("two", ""))
    assert code == 0
    assert {name: (each["outcome"], each["commit"]) for name, each in found.items()} == {
        "one": ("passed", "unknown"),
        "two": ("passed", "unknown"),
    }


def test_a_stage_has_what_those_before_it_left_and_absent_data_fail_no_day(gone_through):
    code, found = gone_through(python("first", ""), python("second", "raise SystemExit(3)", brings_data=False))
    assert code == 0
    assert found["first"]["limit_s"] <= 30 < found["second"]["limit_s"] <= 60


def test_a_patient_day_gives_each_stage_so_many_times_its_limit(gone_through):
    code, found = gone_through(python("sleeps", "import time; time.sleep(3)", 1), options=["--patience", "20"])
    assert code == 0
    assert 19 < found["sleeps"]["limit_s"] <= 20


@pytest.mark.parametrize("patience", ["0", "-1", "nan", "inf", "long"])
def test_a_patience_that_is_no_number_above_zero_is_refused(patience, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["gpu_day", "--out", str(tmp_path), "--device", "cpu", "--patience", patience])
    with pytest.raises(SystemExit, match="2"):
        gpu_day.main()
    assert "--patience: invalid" in capsys.readouterr().err


def test_what_the_day_leaves_is_summed_and_its_records_are_packed(tmp_path, gone_through):
    record = tmp_path / "trained/results/tiny/records/table2/afno.pretrain.0.json"
    write = (
        f"from pathlib import Path; p = Path({str(record)!r}); p.parent.mkdir(parents=True); p.write_text('a record')"
    )
    gone_through(python("writes", write))
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines())
    assert {"day.json", "day.md", "writes.log", "records.tar.gz", "nvidia-smi-before.txt"} < set(sums)
    assert set(sums) == {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} - {"SHA256SUMS"}
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with tarfile.open(tmp_path / "records.tar.gz") as packed:
        (name,) = packed.getnames()
        assert packed.extractfile(name).read() == b"a record"


def test_what_nvidia_smi_says_is_kept_before_and_after_and_its_absence_is_told(tmp_path, gone_through, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gone_through(python("first", ""))[0] == 0
    for when in ("before", "after"):
        assert (tmp_path / f"nvidia-smi-{when}.txt").read_text() == "nvidia-smi does not run here\n"
    (tmp_path / "nvidia-smi").write_text('#!/bin/sh\nif [ "$1" = -q ]; then echo all of it; else echo H100, 1, 2; fi\n')
    (tmp_path / "nvidia-smi").chmod(0o755)
    gone_through(python("first", ""))
    assert (tmp_path / "nvidia-smi-after.txt").read_text() == "all of it\n"
    assert (tmp_path / "day.md").read_text().startswith("# H100, 1, 2\n")


def test_what_there_is_no_time_for_is_left_out(gone_through, monkeypatch):
    monkeypatch.setattr(gpu_day, "LIMIT_S", gpu_day.GRACE_S + gpu_day.CLOSING_S)
    assert gone_through(python("late", ""))[1]["late"]["outcome"] == "left out: no time"


def test_a_stage_that_can_leave_lines_out_is_told_how_long_it_has(tmp_path, gone_through):
    said = "import sys; print(*sys.argv[1:]); sys.exit(1)"
    _, found = gone_through(python("steps", said, 30), python("other", said, 30))
    (said,) = found["steps"]["last_words"]
    assert 1 < int(said.removeprefix("--seconds ")) <= 30 - gpu_day.START_S
    assert found["other"]["last_words"] == [""]


def test_tests_that_were_all_skipped_are_no_pass_of_a_gpu(gone_through):
    skipped, ran = "print('52 skipped in 1.00s')", "print('2 passed, 50 skipped in 1.00s')"
    code, found = gone_through(python("skips", skipped, says=" passed"), python("runs", ran, says=" passed"))
    assert code == 1
    assert found["skips"]["outcome"] == "failed: its last line has no 'passed'"
    assert found["runs"]["outcome"] == "passed"


@pytest.mark.parametrize(("device", "says"), [("cuda", " passed"), ("cpu", "")])
def test_of_tests_on_a_gpu_some_must_have_run(device, says):
    made = {stage.name: stage.says for stage in gpu_day.stages(device, False, Path("out"), Path("data"))}
    assert made.pop("tests") == says
    assert {*made.values()} == {""}


def test_without_a_gpu_the_day_begins_only_where_it_is_asked_to(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_day, "gpus", list)
    monkeypatch.setattr("sys.argv", ["gpu_day", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        gpu_day.main()
    assert left.value.code == 2
    assert "nvidia-smi names no GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_all_stages_together_fit_the_day():
    ends = gpu_day.limits(gpu_day.stages("cuda", False, Path("out"), Path("data")))
    assert max(ends) <= gpu_day.LIMIT_S < 590


def test_what_measures_no_time_runs_side_by_side_before_what_does(tmp_path, gone_through):
    """Each of two waits for the other to begin, and what is timed for both to have ended."""
    began = "import time; from pathlib import Path; p = Path({!r}); (p / '{}').touch()\n"
    until = "while not (p / '{}').exists(): time.sleep(0.01)\n"
    here = str(tmp_path)
    one = python("one", began.format(here, "a") + until.format("b") + "(p / 'c').touch()", timed=False)
    two = python("two", began.format(here, "b") + until.format("a") + "(p / 'd').touch()", timed=False)
    ends = f"from pathlib import Path; p = Path({here!r}); assert (p / 'c').exists() and (p / 'd').exists()"
    code, found = gone_through(python("timed", ends), one, two)
    assert code == 0
    assert {each["outcome"] for each in found.values()} == {"passed"}


def test_tests_run_one_by_one_where_nothing_runs_them_side_by_side(monkeypatch):
    monkeypatch.setattr(gpu_day, "found", lambda package: None)
    made = {stage.name: stage.command for stage in gpu_day.stages("cuda", False, Path("out"), Path("data"))}
    done = subprocess.run(
        [*made["tests"], "--collect-only", "-p", "no:xdist"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "tests/training/test_on_gpu.py" in done.stdout


def test_missing_packages_are_named_by_a_python_that_has_none(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-m", "benchmarks.gpu_day", "--out", tmp_path, "--device", "cpu"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    for package, use in gpu_day.USES.items():
        assert f"not installed: {package} ({use})" in done.stdout
    assert {each["outcome"].partition(":")[0] for each in day(tmp_path).values()} == {"left out"}


@pytest.mark.slow  # twelve commands, three minutes
def test_the_whole_day_runs_on_a_cpu_and_leaves_a_gpus_columns_empty(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_day", "--out", tmp_path, "--small", "--commit", "abc"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    outcomes = {name: each["outcome"] for name, each in day(tmp_path).items() if each["outcome"] != "passed"}
    assert outcomes in ({}, {"small": "left out: its data are not here"})
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "day.md").read_text()
    assert "No GPU" in page
    assert "Commit abc" in page
    tables = {name: rows for each in day(tmp_path).values() for name, rows in each["tables"].items()}
    shown = {"rates", "kernel_here", "deterministic", "steps", "kernels", "loading", "trained_smoke", "compiled"}
    assert set(tables) >= shown | {"mixers", "mixers_tf32", "mixers_bf16"}
    assert {row[-1] for row in tables["deterministic"][1:]} == {"yes"}
    for name, (header, *rows) in tables.items():
        assert rows, name
        gpu = [i for i, title in enumerate(header) if title.startswith("GPU") and "predicted" not in title]
        assert {row[i] for row in rows for i in gpu} <= {""}, name
