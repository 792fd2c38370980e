import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from afno_repro.errors import LockedError, StorageError
from afno_repro.files import check_writable, write_atomic
from afno_repro.host import cores
from afno_repro.runs.provenance import device_name, provenance
from afno_repro.runs.record import Record, read_record
from afno_repro.runs.store import Store, publish, published
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.machine import machine_at
from tests.specs import SMALL, write_spec

pytestmark = pytest.mark.fast


@pytest.fixture
def run(tmp_path):
    return plan_runs(load_spec(write_spec(tmp_path)), "tiny").needs["afno", "pretrain", 0]


def machine(tmp_path, threads=1):
    return machine_at(tmp_path, threads=threads)


def record(run, threads=1, **metrics):
    return Record(
        run.id,
        run.digest,
        run.config,
        "ok",
        metrics,
        {},
        provenance(device_name("cpu"), machine_at(Path(), threads=threads), 1.0, None),
    )


def test_a_record_survives_its_file(tmp_path, run):
    made = record(run, psnr=1 / 3)
    assert Record.from_json(made.to_json()).to_json() == made.to_json()


def test_a_torn_or_foreign_record_is_never_read(tmp_path, run):
    store, text = Store(tmp_path), record(run, psnr=1.0).to_json()
    file = tmp_path / run.id / "record.json"
    for broken in (
        text[: len(text) // 2],
        "",
        "[]",
        text.replace('"lr": 0.001', '"lr": 0.002'),
        text.replace(run.digest, "0" * 12),
    ):
        write_atomic(file, broken)
        assert store.record(run.digest) is None
    write_atomic(file, text)
    assert store.record(run.digest) is not None


def test_a_run_is_found_by_its_digest_whatever_row_it_was_made_for(tmp_path, run):
    write_atomic(tmp_path / f"pretrain-other-{run.digest}" / "record.json", record(run, psnr=1.0).to_json())
    assert Store(tmp_path).record(run.digest).metrics["psnr"] == 1.0


def test_a_finished_run_needs_no_checkpoint_any_more(tmp_path, run):
    store = Store(tmp_path)
    with store.lock(run) as directory:
        (directory / "checkpoints" / "step-1").mkdir(parents=True)
        store.fail(directory, "broken")
        store.finish(record(run, psnr=1.0), directory)
    assert {p.name for p in directory.iterdir()} == {"record.json"}


def hold(root, run, ready):
    with Store(root).lock(run):
        ready.set()
        time.sleep(60)


def test_a_run_held_by_another_process_names_it_and_is_free_when_that_dies(tmp_path, run):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold, args=(tmp_path, run, ready))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(LockedError, match=f"held by process {holder.pid} on"), Store(tmp_path).lock(run):
        pass
    shutil.rmtree(Store(tmp_path).directory(run))  # who tidies there does not make it free
    with pytest.raises(LockedError, match=f"held by process {holder.pid} on"), Store(tmp_path).lock(run):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with Store(tmp_path).lock(run):
        pass


def test_a_run_is_held_whatever_row_asks_for_it(tmp_path, run):
    """Two rows of one digest have one directory, which neither may have made yet."""
    with Store(tmp_path).lock(run) as directory:
        directory.rename(tmp_path / f"pretrain-other-{run.digest}")
        with pytest.raises(LockedError), Store(tmp_path).lock(run):
            pass


def test_a_latency_is_measured_again_with_other_threads(tmp_path):
    text = SMALL.replace(
        "  pretrain:\n    kind",
        "  latency: {kind: profile, task: {name: latency, batch_size: 1, warmup: 0, repeats: 1}, data: {image_size: "
        "16}}\n  pretrain:\n    kind",
    )
    text = text.replace("    cost: null\n", "    cost: null\n    latency: null\n")
    needs = plan_runs(load_spec(write_spec(tmp_path, text)), "tiny").needs
    run, count = needs["afno", "latency", 0], needs["afno", "cost", 0]
    store = Store(tmp_path)
    for each in (run, count):
        write_atomic(tmp_path / each.id / "record.json", record(each, latency_s=1.0).to_json())
    assert store.finished(run, machine(tmp_path, threads=1)) is not None
    assert store.finished(run, machine(tmp_path, threads=2)) is None
    assert store.finished(count, machine(tmp_path, threads=2)) is not None


def test_a_published_record_replaces_the_one_of_the_same_row_stage_and_seed(tmp_path, run):
    for value in (1.0, 2.0):
        publish(tmp_path, "afno", "pretrain", 0, record(run, psnr=value))
    assert published(tmp_path, "afno", "pretrain", 0).metrics["psnr"] == 2.0
    assert published(tmp_path, "afno", "pretrain", 1) is None
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_a_folder_that_is_a_file_cannot_be_written(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(StorageError, match="results"):
        check_writable(tmp_path / "results")
    with pytest.raises(StorageError, match="results"):
        write_atomic(tmp_path / "results" / "table.csv", "x")


def test_writing_leaves_the_old_file_or_the_new_one(tmp_path):
    write_atomic(tmp_path / "a", "old")
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_there_is_at_least_one_core():
    assert cores() >= 1


def test_a_record_of_more_than_64_mib_is_not_read_and_a_pipe_is_not_waited_for(tmp_path, run):
    store, folder = Store(tmp_path), tmp_path / run.id
    folder.mkdir()
    with (folder / "record.json").open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    with pytest.raises(OSError, match="at most 67108864 are read"):
        read_record(folder / "record.json")
    with pytest.raises(StorageError, match="at most 67108864 are read"):  # an error is no absence
        store.record(run.digest)
    (folder / "record.json").unlink()
    os.mkfifo(folder / "record.json")
    with pytest.raises(OSError, match="not a regular file"):
        read_record(folder / "record.json")
