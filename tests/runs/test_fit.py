"""How many images a device takes at a time where nobody says, and what a lack of memory comes to; GPUs simulated."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from afno_repro import memory
from afno_repro.commands.evaluate import _evaluate
from afno_repro.errors import AfnoError, DataError, LockedError
from afno_repro.profiling.kept import network
from afno_repro.runs import execute, executors, fit, schedule, store
from afno_repro.runs.estimate import memory_bytes
from afno_repro.runs.record import Record
from afno_repro.runs.show import Show
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.machine import machine_at
from tests.specs import ROOT, write_spec

pytestmark = pytest.mark.fast
GIB = 2**30


@pytest.fixture
def run(tmp_path):
    return plan_runs(load_spec(write_spec(tmp_path)), "smoke").needs["afno", "pretrain", 0]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with so many bytes free, of so many in all, of which this process has reserved some."""

    def build(free=80 * GIB, total=80 * GIB, reserved=0):
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, total))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: reserved)
        for module in (execute, store):
            monkeypatch.setattr(module, "device_name", lambda device: "a GPU")

    return build


def kept(config, machine):
    return memory_bytes(network(config), config.train.batch_size, machine)


@pytest.fixture
def layer():
    """Table 2's AFNO at paper scale, 256 images, with one layer of its twelve."""
    config = plan_runs(load_spec(ROOT / "experiments/table2.yaml"), "paper").needs["afno", "pretrain", 0].config
    backbone = config.model.backbone
    backbone = replace(backbone, options={**backbone.options, "depth": 1})
    return replace(config, model=replace(config.model, backbone=backbone))


def test_a_batch_that_no_gpu_holds_is_cut_by_the_estimate(layer, gpu, tmp_path):
    config, machine = layer, machine_at(tmp_path, device="cuda")
    gpu(free=10 * GIB)
    found = fit.fitted(config, machine)
    parts = -(-256 // found.micro_batch)
    assert found.fitted
    assert 1 < found.micro_batch < 256
    assert kept(config, found) <= fit.ROOM * 10 * GIB < kept(config, replace(found, micro_batch=-(-256 // (parts - 1))))
    shared = replace(machine, devices=8)
    assert fit.fitted(config, replace(shared, micro_batch=32)) == replace(shared, micro_batch=32)  # as the user says
    gpu(free=10**13, total=10**13)
    assert fit.fitted(config, machine) == machine
    gpu(free=GIB // 64)
    assert fit.fitted(config, machine) == machine  # not even one image has room


def test_an_evaluation_takes_as_many_images_at_a_time_as_the_memory_has_room_for(layer, gpu, tmp_path, monkeypatch):
    gpu(free=10 * GIB)
    seen = []

    def evaluated(config, machine):
        seen.append(machine.micro_batch)
        raise LockedError("enough was seen")

    monkeypatch.setattr(executors, "evaluated", evaluated)
    machine, run = machine_at(tmp_path, device="cuda"), SimpleNamespace(config=layer, digest="")
    made = Record("", "", layer, "ok", {}, {}, {})
    finished = SimpleNamespace(record=lambda digest: made, lock=lambda run: nullcontext(tmp_path))
    with pytest.raises(LockedError):
        _evaluate(run, finished, machine)
    assert seen == [fit.fitted(layer, machine).micro_batch] != [None]


@pytest.mark.parametrize(("there", "expected"), [(1.0, None), (0.9, 2), (None, None)])
def test_on_a_cpu_only_a_batch_that_exceeds_all_there_is_is_cut(run, tmp_path, monkeypatch, there, expected):
    machine = machine_at(tmp_path)
    needed = kept(run.config, machine)
    monkeypatch.setattr(fit, "available_bytes", lambda *_: None if there is None else int(there * needed) + 1)
    assert fit.fitted(run.config, machine).micro_batch == expected


def lacking(monkeypatch, holds, error=None):
    """Trainings run out of memory with more images at a time than a GPU holds; returns what they tried."""
    tried = []

    def train(run, machine, directory, report):
        tried.append(machine.micro_batch or run.config.train.batch_size)
        if tried[-1] > holds:
            raise error or torch.OutOfMemoryError("CUDA out of memory")
        return execute.Outcome({"psnr": 1.0})

    monkeypatch.setitem(execute.EXECUTORS, "pretrain", train)
    return tried


@pytest.mark.parametrize(("holds", "tried", "outcome"), [(1, [4, 2, 1], "ok"), (0, [4, 2, 1], "out_of_memory")])
def test_a_gpu_without_memory_tries_fewer_images_before_that_is_a_result(
    run, gpu, tmp_path, monkeypatch, holds, tried, outcome
):
    gpu()
    machine = machine_at(tmp_path, device="cuda")
    assert lacking(monkeypatch, holds) == []
    found = lacking(monkeypatch, holds)
    record = execute.run_one(run, machine, lambda step: None)
    assert (found, record.outcome) == (tried, outcome)
    assert (record.provenance["micro_batch"], record.provenance["fitted"]) == (1, True)
    assert Store(tmp_path / "runs").finished(run, machine) is not None  # the same command would end the same


@pytest.mark.parametrize(
    "words",
    [
        "cuFFT error: CUFFT_INTERNAL_ERROR",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "FIND was unable to find an engine to execute this computation",
    ],
)
def test_what_may_mean_little_memory_is_tried_with_less_and_is_no_result(run, gpu, tmp_path, monkeypatch, words):
    gpu()
    machine = machine_at(tmp_path, device="cuda")
    tried = lacking(monkeypatch, 1, RuntimeError(words))
    assert execute.run_one(run, machine, lambda step: None).outcome == "ok"
    assert tried == [4, 2, 1]
    lacking(monkeypatch, 0, RuntimeError(words))
    with pytest.raises(RuntimeError, match=words[:12]):
        execute.run_one(run, machine_at(tmp_path / "none", device="cuda"), lambda step: None)


def test_what_a_user_chose_and_what_a_cpu_lacks_is_a_result_at_once(run, gpu, tmp_path, monkeypatch):
    gpu()
    for machine in (machine_at(tmp_path, device="cuda", micro_batch=2), machine_at(tmp_path / "cpu")):
        found = lacking(monkeypatch, 0)
        assert execute.run_one(run, machine, lambda step: None).outcome == "out_of_memory"
        assert len(found) == 1


def test_memory_that_another_process_holds_is_no_result(run, gpu, tmp_path, monkeypatch):
    gpu(free=GIB, total=80 * GIB, reserved=20 * GIB)
    lacking(monkeypatch, 0)
    with pytest.raises(DataError, match=r"while other processes held 57.0 GiB"):
        execute.run_one(run, machine_at(tmp_path, device="cuda"), lambda step: None)
    assert Store(tmp_path / "runs").record(run.digest) is None


def test_fewer_images_are_tried_before_others_that_hold_memory_are_told(run, gpu, tmp_path, monkeypatch):
    """As the processes of `--per-gpu` are to each other."""
    gpu(free=GIB, total=80 * GIB, reserved=20 * GIB)
    tried = lacking(monkeypatch, 1)
    record = execute.run_one(run, machine_at(tmp_path, device="cuda"), lambda step: None)
    assert (tried, record.outcome) == ([4, 2, 1], "ok")


@pytest.mark.parametrize(
    ("jobs", "gpus", "sharing"), [(4, (), 4), (4, ("0",), 4), (4, ("0", "1"), 2), (3, ("0", "1"), 2)]
)
def test_so_many_processes_share_a_gpu(tmp_path, jobs, gpus, sharing):
    assert machine_at(tmp_path, device="cuda", jobs=jobs, gpus=gpus).per_gpu == sharing


def test_processes_that_share_a_gpu_have_room_for_all_of_them(layer, gpu, tmp_path):
    machine = machine_at(tmp_path, device="cuda", jobs=4)
    gpu(free=40 * GIB, total=40 * GIB)  # each finds all of it free
    assert 4 * kept(layer, fit.fitted(layer, machine)) <= fit.ROOM * 40 * GIB
    gpu(free=2 * GIB)  # and no more than is free, whatever its part
    assert kept(layer, fit.fitted(layer, machine)) <= fit.ROOM * 2 * GIB


def test_a_lone_run_shares_its_gpu_with_nobody(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        schedule, "_side_by_side", lambda runs, machine, _: seen.extend([machine.per_gpu] * len(runs)) or []
    )
    schedule.execute([run], machine_at(tmp_path, device="cuda", jobs=4, gpus=("0",)), Show())
    assert seen == [1]


def test_a_peak_is_that_of_the_run_and_not_of_those_before():
    cpu = torch.device("cpu")
    if memory.start_peak(cpu) is None:
        pytest.skip("this system does not forget a peak")
    large = torch.ones(64 * 2**20)
    before = memory.peak_mib(cpu)
    del large
    memory.start_peak(cpu)
    assert memory.peak_mib(cpu) < before - 200


def test_a_gpu_s_error_that_stays_stops_the_command_instead_of_failing_every_run_after_it(run, tmp_path, monkeypatch):
    tried = []

    def broken(*arguments):
        tried.append(1)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(execute.EXECUTORS, "pretrain", broken)
    with pytest.raises(AfnoError, match="error that stays"):
        schedule.execute([run, run], machine_at(tmp_path), Show())
    assert tried == [1]
