"""Data-loading processes that fork beside threads: each lives, or is started anew."""

import gc
import multiprocessing
import os
import shutil
import tempfile
import time
from contextlib import suppress
from multiprocessing import resource_sharer
from multiprocessing.connection import Client
from multiprocessing.queues import Queue
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from afno_repro.data import loader as module
from afno_repro.data.loader import TRIES, Living, _end, loader
from afno_repro.data.photos import photos
from afno_repro.data.samples import TRAIN, Samples, TrainingBatches
from afno_repro.errors import DataError, LoadingError
from tests.data.test_samples import OPTIONS, keep

stuck: list[bool] = []  # whether each of the next forks waits for ever for what a thread held when it was forked
os.register_at_fork(
    after_in_parent=lambda: stuck and stuck.pop(0), after_in_child=lambda: stuck and stuck[0] and time.sleep(600)
)


def loading_of(folder, workers):
    images, _ = photos(16, 1.0, 0, folder, **OPTIONS)
    samples = Samples(images, keep, seed=5, stream=TRAIN)
    return loader(samples, TrainingBatches(20, 4, 2, 5, 0), workers, pin_memory=False)


def batches(folder, workers):
    return [torch.stack(list(batch)) for batch in loading_of(folder, workers)]


def children():
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def full(*sample):
    if multiprocessing.parent_process():  # not where the size of one is asked for first
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device (28)")
    return keep(*sample)


def test_shared_memory_that_others_fill_meanwhile_is_told_without_a_traceback(tmp_path):
    images, _ = photos(16, 1.0, 0, tmp_path, **OPTIONS)
    loading = loader(Samples(images, full, 5, TRAIN), TrainingBatches(20, 4, 2, 5, 0), 1, pin_memory=False)
    before = children()
    with pytest.raises(DataError, match=r"no room for another batch(.|\n)*use fewer --workers"):
        next(loading)
    gc.collect()  # what was raised holds the process
    assert children() == before


def test_a_process_that_never_comes_to_life_is_replaced_and_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIFE_S", 1.0)
    before = children()
    stuck[:] = [True, False, True, True]  # of the first process the second try lives, of the second one the third
    assert all(map(torch.equal, batches(tmp_path, 2), batches(tmp_path, 0)))
    assert stuck == []
    assert children() == before


def test_where_none_comes_to_life_the_user_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIFE_S", 0.2)
    before = children()
    stuck[:] = [True] * TRIES
    with pytest.raises(
        DataError, match=r"3 data-loading processes in a row did not come to life(.|\n)*use --workers 0"
    ):
        batches(tmp_path, 1)
    assert children() == before


def test_temporary_files_that_are_removed_meanwhile_end_the_loading_and_nothing_else_is_said(
    tmp_path, monkeypatch, capfd
):
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    loading = loading_of(tmp_path, 1)
    next(loading)
    for folder in temporary.iterdir():
        shutil.rmtree(folder)
    with pytest.raises(LoadingError, match=r"temporary files were removed\n  the same command continues"):
        list(loading)
    assert capfd.readouterr().err == ""


def test_a_process_that_gets_no_thread_says_so_in_a_line(tmp_path, monkeypatch, capfd):
    here, start = os.getpid(), Queue._start_thread

    def only_here(queue):
        if os.getpid() != here:
            raise RuntimeError("can't start new thread")
        start(queue)

    monkeypatch.setattr(Queue, "_start_thread", only_here)
    with pytest.raises(LoadingError, match="a data-loading process ended"):
        list(loading_of(tmp_path, 1))
    assert capfd.readouterr().err == "a data-loading process: can't start new thread\n"


def test_a_batch_that_cannot_be_sent_ends_its_process_and_is_not_waited_for(tmp_path, monkeypatch, capfd):
    """As where no thread may be started that hands over a tensor's memory."""

    def no_thread(sharer):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(resource_sharer._ResourceSharer, "_start", no_thread)
    with pytest.raises(LoadingError, match="a data-loading process ended"):
        list(loading_of(tmp_path, 1))
    assert capfd.readouterr().err == "a data-loading process: can't start new thread\n"


def fail_unheard():
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 2)
    with suppress(OSError):  # as the thread that calls it goes on after an error
        _end(RuntimeError("can't start new thread"), None)


def test_a_process_whose_words_nobody_reads_ends_all_the_same():
    process = Living().Process(target=fail_unheard)
    process.start()
    process.join(30)
    assert process.exitcode == 1


def leave_while_it_hands_over():
    (address, _), key = resource_sharer._resource_sharer.register(None, bool), multiprocessing.current_process().authkey
    Client(address, authkey=key).close()
    resource_sharer.stop(5)


def test_a_trainer_that_ends_while_a_tensor_is_handed_over_costs_no_traceback(capfd):
    process = Living().Process(target=leave_while_it_hands_over)
    process.start()
    process.join(30)
    assert (process.exitcode, capfd.readouterr().err) == (0, "")


def usage(mib_free, mib=2**20):
    return SimpleNamespace(free=mib_free * 2**20, total=mib * 2**20)


@pytest.mark.parametrize(
    ("mib_free", "mib", "jobs", "enough"),
    [(100, 100, 1, True), (70, 100, 1, False), (100, 100, 2, False), (100, 200, 2, True)],
)
def test_what_is_prepared_at_the_same_time_has_to_fit_beside_that_of_other_runs(
    monkeypatch, mib_free, mib, jobs, enough
):
    """A training's batches wait while it evaluates: 2 x 2 x 8 MiB and 2 x 2 x 16 MiB, by each of some runs."""
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(mib_free, mib))
    images = SimpleNamespace(example=lambda index, rng: torch.zeros(2**20, dtype=torch.uint8))
    samples = Samples(images, lambda image, rng: (image,), seed=5, stream=TRAIN)
    beside = [(samples, [[(0, i) for i in range(n)]] * 9) for n in (8, 16)]
    if enough:
        module.check_shared(2, jobs, *beside)
    else:
        with pytest.raises(DataError, match=r"need 96 MiB (.|\n)*use --workers 1, .* --shm-size 1g"):
            module.check_shared(2, jobs, *beside)
    last = module.loader(samples, beside[0][1][:1], 2, pin_memory=False, beside=beside[1:], jobs=jobs)
    if not enough:  # also where a training has one step left, and an evaluation comes
        monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(60, 60 * jobs))
        with pytest.raises(DataError, match="need 72 MiB"):
            next(last)
    few = [(samples, batches[:1]) for samples, batches in beside]  # as at the end of a training
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(24, 24 * jobs))
    module.check_shared(2, jobs, *few)
    module.check_shared(0, jobs, *beside)  # what this process prepares itself goes through nothing


@pytest.mark.parametrize(("mib_free", "workers"), [(64, 8), (0, 1)])
def test_shared_memory_too_small_for_the_batches_is_told_before_any_work(tmp_path, monkeypatch, mib_free, workers):
    """As a container's 64 MiB for batches of 256 images of 224 pixels."""
    before = children()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(mib_free))
    images = SimpleNamespace(example=lambda index, rng: torch.zeros(3, 224, 224, dtype=torch.uint8))
    samples = Samples(images, lambda image, rng: (image,), seed=5, stream=TRAIN)
    batches = [[(0, i) for i in range(256)]] * 3
    with pytest.raises(DataError, match=rf"{mib_free} MiB are free(.|\n)*--workers 0"):
        next(iter(loader(samples, batches, workers, pin_memory=False)))
    assert children() == before
    assert len(next(iter(loader(samples, batches, 0, pin_memory=False)))[0]) == 256
