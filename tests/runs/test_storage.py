"""Full disks, flipped bytes, links elsewhere: an exit code and a next step, nothing lost, no wrong number used."""

import os
import resource
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from afno_repro.errors import StorageError
from afno_repro.files import check_space, write_atomic
from afno_repro.runs.record import Record
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.training import checkpoint
from tests.command import afno, start
from tests.machine import machine_at
from tests.specs import SMALL, write_spec
from tests.training.test_loop import FINETUNED
from tests.training.test_resume import LONG, RUN, left, wait_for_checkpoint

ONE = (*RUN, "--jobs", "1")
TUNE = ("finetune", "small", "--row", "afno", "--device", "cpu", "--jobs", "1")


@pytest.fixture
def small_disk(tmp_path):
    """A root whose runs/ is a file system of one mebibyte."""
    runs = tmp_path / "runs"
    runs.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(runs)], capture_output=True, check=False
    ).returncode:
        pytest.skip("no file system can be mounted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(runs)], check=True)


def test_a_disk_too_small_for_the_checkpoints_is_told_before_training(small_disk):
    write_spec(small_disk, SMALL.replace("embed_dim: 8", "embed_dim: 96"))
    done = afno(*ONE, root=small_disk, expect=7)
    assert "not enough space" in done.stderr
    assert "MiB needed and" in done.stderr
    assert not list(small_disk.glob("runs/*/checkpoints"))


def test_a_disk_that_fills_while_training_costs_nothing_but_the_wait(small_disk, tmp_path_factory):
    whole = tmp_path_factory.mktemp("whole")
    for root in (whole, small_disk):
        write_spec(root, LONG)
    afno(*ONE, root=whole)
    often = {**os.environ, "AFNO_CHECKPOINT_EVERY_S": "0"}
    process = start(*ONE, root=small_disk, env=often)
    wait_for_checkpoint(small_disk, process, 0)
    filler = small_disk / "runs" / "filler"
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, check=False
    )  # until nothing is left
    _, err = process.communicate(timeout=60)
    assert process.returncode == 7, err
    assert "MiB needed and 0.0 MiB free" in err
    assert "Traceback" not in err
    (checkpoints,) = small_disk.glob("runs/pretrain-afno-*/checkpoints")
    assert checkpoint.load_newest(checkpoints, pytest.fail) is not None
    filler.unlink()
    assert "continues at step " in afno(*ONE, root=small_disk).stderr
    (one,), (other,) = (list(root.glob("runs/pretrain-afno-*")) for root in (whole, small_disk))
    assert left(one) == left(other)


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path):
    write_spec(tmp_path)
    done = afno(
        *ONE, root=tmp_path, expect=7, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    )
    assert "File too large" in done.stderr
    assert "MiB free" in done.stderr


def test_space_is_checked_by_the_bytes_needed(tmp_path):
    check_space(tmp_path, 1)
    with pytest.raises(StorageError, match=r"1048576\.0 MiB needed and .* MiB free\n  make room"):
        check_space(tmp_path, 2**40)


def test_what_memory_cannot_hold_is_a_cell_with_its_peak_and_a_hint_and_the_other_rows_go_on(tmp_path):
    huge = "    model: {backbone: {embed_dim: 40000}, mixer: {name: afno,"
    write_spec(tmp_path, SMALL.replace("    model: {mixer: {name: afno,", huge))
    limit = 8 * 2**30
    done = afno(
        *ONE[:2],
        *ONE[4:],
        root=tmp_path,
        expect=4,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    (told,) = [line for line in done.stderr.splitlines() if "afno/pretrain seed 0: out of memory" in line]
    assert "MiB; --micro-batch 2 or --checkpoint-activations needs less" in told
    cells = {
        tuple(line.split(",")[1:3]): line.split(",")[-3]
        for line in (tmp_path / "results/tiny/cells.csv").read_text().splitlines()[1:]
    }
    assert (cells["afno", "psnr"], cells["gfn", "psnr"]) == ("out_of_memory", "measured")


def test_what_ran_out_of_memory_is_tried_again_with_other_means_alone(tmp_path):
    run = plan_runs(load_spec(write_spec(tmp_path)), "tiny").needs["afno", "pretrain", 0]
    machine, store = machine_at(tmp_path), Store(tmp_path / "runs")
    from afno_repro.runs.provenance import device_name, provenance

    record = Record(
        run.id, run.digest, run.config, "out_of_memory", {}, {}, provenance(device_name("cpu"), machine, 1.0, None)
    )
    write_atomic(tmp_path / "runs" / run.id / "record.json", record.to_json())
    assert store.finished(run, machine) is not None
    assert store.finished(run, replace(machine, threads=2)) is not None
    assert store.finished(run, replace(machine, micro_batch=1)) is None
    assert store.finished(run, replace(machine, activation_checkpointing=True)) is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    write_spec(root, FINETUNED)
    afno("pretrain", *TUNE[1:], root=root)
    return root


def copied(finished: Path, root: Path) -> Path:
    subprocess.run(["cp", "-r", f"{finished}/.", str(root)], check=True)
    (directory,) = root.glob("runs/pretrain-afno-*")
    return directory


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_run_does_not_start_from_weights_with_a_flipped_bit(tmp_path, finished):
    directory = copied(finished, tmp_path)
    flip(directory / "weights.safetensors", -20)
    done = afno(*TUNE, root=tmp_path, expect=7)
    assert "weights.safetensors: not what pretrain-afno-" in done.stderr
    assert not list(tmp_path.glob("runs/finetune-*/record.json"))


@pytest.mark.parametrize("part", ['"psnr": ', '"seconds": ', '"lr": '])
def test_a_number_with_a_flipped_bit_is_no_record_and_reaches_no_table(tmp_path, finished, part):
    directory = copied(finished, tmp_path)
    text = (directory / "record.json").read_text()
    for path in (directory / "record.json", tmp_path / "results/tiny/records/small/afno.pretrain.0.json"):
        flip(path, text.index(part) + len(part))
    table = afno("report", "--scale", "tiny", root=tmp_path)
    assert "missing" in table.stdout
    assert "23." not in (tmp_path / "results/tiny/small.csv").read_text()
    with pytest.raises(ValueError, match=r"its bytes are not those|not a record|digest|Expecting"):
        Record.from_json((directory / "record.json").read_text())


def test_a_run_directory_that_links_elsewhere_is_refused(tmp_path):
    run = plan_runs(load_spec(write_spec(tmp_path)), "tiny").needs["afno", "pretrain", 0]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / run.id).symlink_to(elsewhere)
    assert "refused: links out of" in afno(*ONE, root=tmp_path, expect=7).stderr
    assert not list(elsewhere.iterdir())


def test_writing_never_goes_through_a_link(tmp_path):
    target = tmp_path / "target"
    target.write_text("theirs")
    for name in ("table.csv", f".table.csv.{os.getpid()}.tmp"):
        (tmp_path / name).symlink_to(target)
    write_atomic(tmp_path / "table.csv", "ours")
    assert (target.read_text(), (tmp_path / "table.csv").read_text()) == ("theirs", "ours")


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    write_spec(tmp_path)
    run = plan_runs(load_spec(tmp_path / "experiments/small.yaml"), "tiny").needs["afno", "pretrain", 0]
    stale = [
        tmp_path / "runs" / run.id / ".log.csv.1.tmp",
        tmp_path / "results/tiny/.cells.csv.1.tmp",
        tmp_path / "results/tiny/records/small/.a.json.1.tmp",
    ]
    mine = [
        *(tmp_path / "results/tiny" / name for name in ("notes.tmp", ".hidden", ".syncthing.table2.md.tmp")),
        tmp_path / "results/tiny/.x.1.tmp/theirs",
    ]
    for path in (*stale, *mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    afno(*ONE, root=tmp_path)
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in mine)
