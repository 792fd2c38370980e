"""Commands killed at random lose nothing; and what looks for losses sees them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import crash

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


def rounds(count: int, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.crash", "--rounds", str(count), "--seed", "0", *arguments]
    return subprocess.run(
        command, cwd=crash.CLONE, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True
    )


@pytest.fixture
def folder():
    """A folder whose path is short enough for the sockets of data-loading processes."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def test_two_killed_commands_lose_nothing(folder):
    done = rounds(2, folder=folder)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "losses: 0"), done.stdout + done.stderr
    assert not list(folder.glob("afno-crash-*"))


@pytest.mark.slow
def test_two_hundred_killed_commands_lose_nothing(folder):
    done = rounds(200, "--devices", "2", folder=folder)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "losses: 0"), done.stdout + done.stderr


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    crash.uninterrupted(folder, 1)
    return folder


@pytest.fixture
def finished(reference, tmp_path) -> Path:
    return shutil.copytree(reference, tmp_path / "finished")


def only(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_finished_folder_differs_in_nothing_from_itself_and_is_whole(finished, reference):
    assert not crash.differences(finished, reference)
    assert not crash.broken(finished)


@pytest.mark.parametrize(
    "pattern",
    [
        "runs/pretrain-*/weights.safetensors",
        "runs/*/artifacts.npz",
        "results/tiny/*.png",
        "runs/*/log.csv",
        "results/tiny/*.md",
    ],
)
def test_one_other_byte_is_a_difference(finished, reference, pattern):
    path = only(finished, pattern)
    if path.suffix == ".md":
        path.write_text(path.read_text().replace("AFNO", "AFN0", 1))
    else:
        flip(path)
    assert crash.differences(finished, reference) == [f"{path.relative_to(finished)} differs"]


def test_a_metric_of_a_record_counts_and_its_seconds_do_not(finished, reference):
    path = only(finished, "runs/pretrain-*/record.json")
    path.write_text(path.read_text().replace('"seconds": ', '"seconds": 1'))
    assert not crash.differences(finished, reference)
    path.write_text(path.read_text().replace('"psnr": ', '"psnr": 1'))
    assert crash.differences(finished, reference) == [f"{path.relative_to(finished)} differs"]


def test_a_deleted_record_is_missing_and_was_finished_before(finished, reference):
    before, path = crash.finished_work(finished), only(finished, "runs/pretrain-*/record.json")
    path.unlink()
    assert crash.differences(finished, reference) == [f"{path.relative_to(finished)} is missing"]
    assert str(path.relative_to(finished)) in before.keys() - crash.finished_work(finished).keys()


def test_a_run_that_is_done_again_is_not_what_it_was(finished):
    before, path = crash.finished_work(finished), only(finished, "runs/pretrain-*/weights.safetensors")
    path.write_bytes(path.read_bytes())
    after = crash.finished_work(finished)
    assert [name for name in before if after[name] != before[name]] == [str(path.relative_to(finished))]


@pytest.mark.parametrize(
    "name", ["runs/.write-test.1", "results/tiny/.cells.csv.1.tmp", "runs/checkpoints/step-000000001/state.pt"]
)
def test_what_should_have_been_swept_is_left_over(finished, reference, name):
    (finished / name).parent.mkdir(parents=True, exist_ok=True)
    (finished / name).touch()
    assert f"{name} is left over" in crash.differences(finished, reference)


@pytest.mark.parametrize(
    "pattern",
    [
        "runs/*/record.json",
        "runs/*/weights.safetensors",
        "runs/*/log.csv",
        "runs/*/artifacts.npz",
        "results/*/*.md",
        "results/*/*.html",
        "results/*/*.png",
    ],
)
def test_a_file_that_is_cut_off_is_broken(finished, pattern):
    path = only(finished, pattern)
    path.write_bytes(path.read_bytes()[:-2])
    (problem,) = crash.broken(finished)
    assert problem.startswith(str(path.relative_to(finished)))


def test_a_finished_folder_that_lost_a_weight_is_told_by_the_next_round(finished):
    tally, path = crash.Tally(), only(finished, "runs/pretrain-*/weights.safetensors")
    path.write_bytes(path.read_bytes()[:-2])
    crash.play(finished, 1, crash.Round(0.0, 0.0, "main", 0.0), 0.0, tally)
    assert (tally.rounds, tally.kills, tally.resumes) == (1, 1, 1)
    assert any(f"{path.relative_to(finished)} is not whole" in loss for loss in tally.losses)


def test_every_process_of_a_command_is_known_and_dies(tmp_path):
    crash.write_spec(tmp_path, crash.SPEC, "crash")
    command = crash.Command(tmp_path, 1, ("--jobs", "2"))
    while len(crash.members()) < 3:
        assert command.process.poll() is None, command.said()
    crash.kill_all()
    assert command.ended(crash.GONE_S)
    assert command.process.returncode == -signal.SIGKILL


def test_a_command_that_does_not_end_leaves_the_stack_of_every_thread(folder):
    crash.write_spec(folder, crash.SPEC.replace("epochs: 4\n", "epochs: 400\n"), "crash")
    command = crash.Command(folder, 1, ("--jobs", "1", "--workers", "1"))
    while not any((folder / "runs").glob("pretrain-gfn-*/log.csv")):
        assert command.process.poll() is None, command.said()
    said = crash.stacks()
    assert command.ended(crash.GONE_S)
    assert "in train" in said
    assert "in _worker_loop" in said
