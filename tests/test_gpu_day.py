"""The day on a GPU, gone through on a CPU: every stage, and what becomes of those that do not pass."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_day
from benchmarks.gpu_day import Stage
from tests.specs import ROOT

HANGS = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
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


@pytest.fixture
def gone_through(tmp_path, monkeypatch):
    """A day of stages of one's own."""

    def go(*stages: Stage) -> tuple[int, dict[str, dict]]:
        monkeypatch.setattr(gpu_day, "stages", lambda *_: stages)
        monkeypatch.setattr("sys.argv", ["gpu_day", "--out", str(tmp_path)])
        with pytest.raises(SystemExit) as left:
            gpu_day.main()
        return left.value.code, day(tmp_path)

    return go


def test_a_stage_that_does_not_pass_is_told_with_its_last_words_and_stops_no_other(tmp_path, gone_through):
    looks = f"import sys; sys.stdout.write(open({str(tmp_path / 'day.json')!r}).read())"
    code, found = gone_through(
        Stage("fails", "", [sys.executable, "-c", "print('so far'); raise SystemExit(3)"], 30),
        Stage("hangs", "", [sys.executable, "-c", HANGS], 2),
        Stage("lacks", "", [sys.executable, "-c", ""], 30, ("no-such-package",)),
        Stage("looks", "", [sys.executable, "-c", looks], 30),
    )
    assert code == 1
    assert found["fails"]["outcome"] == "failed with 3"
    assert found["fails"]["last_words"] == ["so far"]
    assert found["hangs"]["outcome"] == "cut off after 2 s"
    assert found["lacks"]["outcome"] == "left out: no-such-package not installed"
    assert found["looks"]["outcome"] == "passed"
    seen = [each["stage"] for each in json.loads((tmp_path / "looks.log").read_text())["stages"]]
    assert seen == ["fails", "hangs", "lacks"]
    (child,) = (int(line.rsplit(" ", 1)[1]) for line in found["hangs"]["last_words"])
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


def test_what_there_is_no_time_for_is_left_out(gone_through, monkeypatch):
    monkeypatch.setattr(gpu_day, "LIMIT_S", 1.0)
    assert gone_through(Stage("late", "", [sys.executable, "-c", ""], 30))[1]["late"]["outcome"] == "left out: no time"


def test_all_stages_together_fit_the_day():
    assert sum(stage.limit_s for stage in gpu_day.stages("cuda", False, Path("out"))) <= gpu_day.LIMIT_S < 590


def test_missing_packages_are_named_by_a_python_that_has_none(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-m", "benchmarks.gpu_day", "--out", tmp_path],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    for package, use in gpu_day.USES.items():
        assert f"not installed: {package} ({use})" in done.stdout
    assert {each["outcome"].partition(":")[0] for each in day(tmp_path).values()} == {"left out"}


@pytest.mark.slow  # eight commands, a minute
def test_the_whole_day_runs_on_a_cpu_and_leaves_a_gpus_columns_empty(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_day", "--out", tmp_path, "--small", "--commit", "abc"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert {name: each["outcome"] for name, each in day(tmp_path).items() if each["outcome"] != "passed"} == {}
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "day.md").read_text()
    assert "No GPU" in page
    assert "Commit abc" in page
    tables = {name: rows for each in day(tmp_path).values() for name, rows in each["tables"].items()}
    assert set(tables) >= {"rates", "kernel_here", "mixers", "steps", "kernels", "loading", "trained"}
    for name, (header, *rows) in tables.items():
        assert rows, name
        gpu = [i for i, title in enumerate(header) if title.startswith("GPU") and "predicted" not in title]
        assert {row[i] for row in rows for i in gpu} <= {""}, name
