"""One run from its lock to its record, with executors that go wrong on purpose."""

import json

import pytest
import torch
from PIL import Image

from afno_repro.errors import DataError, Diverged
from afno_repro.runs import execute
from afno_repro.runs.executors import Outcome
from afno_repro.runs.record import Record
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.command import afno
from tests.machine import machine_at
from tests.specs import SMALL, write_spec


@pytest.fixture
def run(tmp_path):
    return plan_runs(load_spec(write_spec(tmp_path)), "smoke").needs["afno", "pretrain", 0]


def attempt(run, tmp_path, monkeypatch, error):
    def broken(*arguments):
        raise error

    monkeypatch.setitem(execute.EXECUTORS, "pretrain", broken)
    return execute.run_one(run, machine_at(tmp_path), lambda step: None)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Diverged("nan"), "diverged"),
        (torch.OutOfMemoryError("no memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        *(
            (RuntimeError(words), "out_of_memory")
            for words in (
                "CUDA error: out of memory",
                "HIP out of memory. Tried to allocate 2.00 GiB",
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "cuFFT error: CUFFT_ALLOC_FAILED",
                "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
                "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
                "HIP error: HIPBLAS_STATUS_ALLOC_FAILED",
            )
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), "out_of_memory"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_divergence_and_lack_of_memory_are_outcomes(run, tmp_path, monkeypatch, error, outcome):
    assert attempt(run, tmp_path, monkeypatch, error).outcome == outcome
    assert Store(tmp_path / "runs").record(run.digest).outcome == outcome


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), DataError("a broken image")], ids=str)
def test_another_error_leaves_its_text_and_no_record(run, tmp_path, monkeypatch, error):
    with pytest.raises(type(error)):
        attempt(run, tmp_path, monkeypatch, error)
    store = Store(tmp_path / "runs")
    assert store.record(run.digest) is None
    assert str(error) in (store.directory(run) / "error.txt").read_text()


def test_a_diverged_row_is_a_state_and_the_others_go_on(tmp_path):
    wild = SMALL.replace(
        "    paper: {gflops: 0.6", "    pretrain: {train: {lr: 1e30, clip_norm: null}}\n    paper: {gflops: 0.6"
    )
    write_spec(tmp_path, wild)
    done = afno("run", "small", "--device", "cpu", "--jobs", "1", root=tmp_path, expect=4)
    assert "diverged" in done.stdout
    cells = {
        tuple(line.split(",")[1:3]): line.split(",")[-3]
        for line in (tmp_path / "results/tiny/cells.csv").read_text().splitlines()[1:]
    }
    assert (cells["afno", "psnr"], cells["gfn", "psnr"]) == ("diverged", "measured")
    afno("run", "small", "--device", "cpu", root=tmp_path, expect=4)  # the outcome stands; it is not tried again


def test_a_broken_training_image_is_named_and_the_other_rows_go_on(tmp_path):
    from tests.commands.test_commands import IMAGENET
    from tests.data.test_samples import make_imagenet

    write_spec(tmp_path, IMAGENET)
    make_imagenet(tmp_path / "data")
    (tmp_path / "data/imagenet/train/n00000001/2.JPEG").write_bytes(b"no image")
    done = afno("run", "small", "--device", "cpu", root=tmp_path, expect=4)
    assert "n00000001/2.JPEG: not a readable image" in done.stderr
    assert "mean fill" in done.stdout


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("found", [lambda x: Outcome({"psnr": x}), lambda x: Outcome({"psnr": 1.0}, {"psnr": [x]})])
def test_a_number_that_is_not_finite_is_the_outcome_diverged(run, tmp_path, monkeypatch, number, found):
    monkeypatch.setitem(execute.EXECUTORS, "pretrain", lambda *arguments: found(number))
    assert execute.run_one(run, machine_at(tmp_path), lambda step: None).outcome == "diverged"
    written = (Store(tmp_path / "runs").directory(run) / "record.json").read_text()
    assert not any(word in written for word in ("NaN", "Infinity"))


def test_a_record_with_a_number_that_is_none_is_no_record(run, tmp_path, monkeypatch):
    monkeypatch.setitem(execute.EXECUTORS, "pretrain", lambda *arguments: Outcome({"psnr": 12.25}))
    text = execute.run_one(run, machine_at(tmp_path), lambda step: None).to_json()
    for word in ("NaN", "Infinity", "-Infinity"):
        with pytest.raises(ValueError, match=f"{word} is no number"):
            Record.from_json(text.replace("12.25", word))


def test_an_all_white_image_leaves_numbers_that_json_has(tmp_path):
    from tests.commands.test_commands import IMAGENET
    from tests.data.test_samples import make_imagenet

    write_spec(tmp_path, IMAGENET)
    make_imagenet(tmp_path / "data")
    for file in (tmp_path / "data/imagenet/val").rglob("*.JPEG"):
        Image.new("RGB", (40, 40), "white").save(file)
    told = afno("run", "small", "--device", "cpu", "--row", "fill_mean", "--json", root=tmp_path).stdout
    (record,) = (tmp_path / "runs").glob("baseline-*/record.json")
    for text in (told, record.read_text()):
        json.loads(text, parse_constant=pytest.fail)
    assert json.loads(record.read_text())["metrics"]["psnr"] == 100.0
