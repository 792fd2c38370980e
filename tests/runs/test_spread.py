"""Runs side by side, each in a process that sees one GPU; here GPUs are names, and the processes say what they see."""

import itertools
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from afno_repro.errors import LockedError
from afno_repro.runs import schedule, workers
from afno_repro.runs.devices import told
from afno_repro.runs.order import longest_first
from afno_repro.runs.record import Record
from afno_repro.runs.schedule import Failure, execute
from afno_repro.runs.show import Show
from afno_repro.runs.store import is_latency
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.spec.resolve import SEEDED
from tests.machine import machine_at
from tests.runs.test_devices import computer  # noqa: F401 (a fixture)
from tests.specs import all_specs, write_spec
from tests.training.test_loop import FINETUNED

TORCH_SAW = os.environ.get("CUDA_VISIBLE_DEVICES") if "torch" in sys.modules else None  # when this process imported it


def tell(run, machine, send):
    """What a process was given, in a line of a file; a run is over after a while; one of them fails with its GPU."""
    seen, root = os.environ.get("CUDA_VISIBLE_DEVICES"), machine.runs_root.parent
    with (root / "given").open("a") as file:
        file.write(f"begun {run.stage} {run.row} {run.config.seed} {os.getpid()} {seen} {TORCH_SAW}\n")
    time.sleep(0.3)
    with (root / "given").open("a") as file:
        file.write(f"ended {run.stage} {run.row} {run.config.seed} {os.getpid()} {seen} {TORCH_SAW}\n")
    lost = run.row == "gfn" and run.stage == "pretrain" and (root / "broken").exists()
    lost |= seen == "1" and (root / "dead").exists()
    failure = Failure(run, "CUDA error: unspecified", 1, stays=True) if lost else None
    send((failure, None if lost else Record(run.id, run.digest, run.config, "ok", {}, {}, {"seconds": 1.0})))


def stubborn(pipe):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe.send("deaf")
    time.sleep(60)


@pytest.fixture
def runs(tmp_path):
    """Two rows and seeds, pretrained and finetuned; AFNO takes longer, for it trains longer."""
    text = FINETUNED.replace("seeds: [0]", "seeds: [0, 1]").replace(
        "    paper: {gflops: 0.6", "    pretrain: {train: {epochs: 9}}\n    paper: {gflops: 0.6"
    )
    plan = plan_runs(load_spec(write_spec(tmp_path, text)), "tiny")
    return [run for run in plan.runs if run.config.kind in ("pretrain", "finetune")]


def given(tmp_path: Path) -> list[list[str]]:
    return [line.split() for line in (tmp_path / "given").read_text().splitlines()]


@pytest.mark.parametrize("per_gpu", [1, 2])
def test_each_process_sees_one_gpu_before_torch_is_imported_and_takes_run_after_run(
    tmp_path, runs, monkeypatch, per_gpu
):
    monkeypatch.setattr(schedule, "_work", tell)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    machine = machine_at(tmp_path, jobs=2 * per_gpu, gpus=("3", "GPU-5"))
    assert execute(runs, machine, Show()) == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,GPU-5"
    lines = given(tmp_path)
    processes = {line[4]: (line[5], line[6]) for line in lines}
    assert len(processes) == 2 * per_gpu
    assert sorted(gpu for gpu, _ in processes.values()) == sorted(["3", "GPU-5"] * per_gpu)
    assert all(seen == when_imported for seen, when_imported in processes.values())
    assert len(lines) == 2 * len(runs)


def test_the_longest_run_begins_first_and_parents_before_what_starts_from_them(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(schedule, "_work", tell)
    machine = machine_at(tmp_path, device="cuda", jobs=2, gpus=("0", "1"))
    assert execute(list(reversed(runs)), machine, Show()) == []
    lines = given(tmp_path)
    assert {tuple(line[1:3]) for line in lines[:2]} == {("pretrain", "afno")}
    for line in lines:
        if line[:2] == ["begun", "finetune"]:
            before = [each[:4] for each in lines[: lines.index(line)]]
            assert ["ended", "pretrain", *line[2:4]] in before
    assert longest_first(runs, machine_at(tmp_path)) == runs  # on a CPU as they stand in the plan


def test_a_gpu_that_fails_ends_its_process_and_its_run_and_not_the_table(tmp_path, runs, monkeypatch):
    (tmp_path / "broken").touch()
    monkeypatch.setattr(schedule, "_work", tell)
    failures = execute(runs, machine_at(tmp_path, jobs=2, gpus=("0", "1")), Show())
    assert {(f.run.row, f.run.stage) for f in failures} == {("gfn", "pretrain")}
    assert not any(f.exit_code == LockedError.exit_code for f in failures)
    begun = [line for line in given(tmp_path) if line[0] == "begun"]
    tried = [(line[3], line[5]) for line in begun if line[1:3] == ["pretrain", "gfn"]]  # by seed and GPU
    assert any({(seed, "0"), (seed, "1")} <= {*tried} for seed in ("0", "1"))
    assert len(begun) == len(runs) - 2 + len(tried)
    assert len({line[4] for line in begun}) > 2  # others took its place
    assert {line[5] for line in begun} == {"0", "1"}


@pytest.mark.parametrize("per_gpu", [1, 2])
def test_a_gpu_on_which_one_run_fails_that_does_well_on_another_has_no_further_run(
    tmp_path, runs, monkeypatch, per_gpu
):
    (tmp_path / "dead").touch()
    monkeypatch.setattr(schedule, "_work", tell)
    assert execute(runs, machine_at(tmp_path, jobs=2 * per_gpu, gpus=("0", "1")), Show()) == []
    begun = [line[5] for line in given(tmp_path) if line[0] == "begun"]
    assert (begun.count("0"), begun.count("1")) == (len(runs), per_gpu)


def test_of_a_single_gpu_that_is_lost_every_run_is_told(tmp_path, runs, monkeypatch):
    (tmp_path / "dead").touch()
    monkeypatch.setattr(schedule, "_work", tell)
    assert len(execute(runs, machine_at(tmp_path, jobs=2, gpus=("1",)), Show())) == len(runs)


def test_a_process_that_does_not_end_is_waited_for_a_while_alone(monkeypatch):
    monkeypatch.setattr(workers, "END_S", 0.2)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=stubborn, args=(theirs,))
    process.start()
    assert ours.recv() == "deaf"
    workers.Worker(process, ours).abandon()
    assert process not in multiprocessing.active_children()  # whom Python waits for at its end


def test_latencies_come_one_at_a_time_and_leave_a_lost_gpu_out(tmp_path, monkeypatch):
    (tmp_path / "dead").touch()
    monkeypatch.setattr(schedule, "_work", tell)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    plan = plan_runs(next(spec for spec in all_specs() if spec.name == "table2"), "tiny")
    runs = [run for run in plan.runs if is_latency(run)]
    assert execute(runs, machine_at(tmp_path, device="cuda", jobs=2, gpus=("1", "2")), Show()) == []
    lines = given(tmp_path)
    assert [line[0] for line in lines] == ["begun", "ended"] * (len(runs) + 1)
    assert [line[5] for line in lines] == ["1"] * 2 + ["2"] * 2 * len(runs)


def test_no_gpu_waits_for_a_filling(tmp_path, monkeypatch):
    """Which may take an hour, of all validation images of paper scale."""
    done = []
    monkeypatch.setattr(schedule, "_attempt", lambda run, *_: (done.append(run.config.kind), (None, None))[1])
    plan = plan_runs(next(spec for spec in all_specs() if spec.name == "table2"), "tiny")
    assert execute(list(plan.runs), machine_at(tmp_path), Show()) == []
    kinds = [kind for kind, _ in itertools.groupby("network" if kind in SEEDED else kind for kind in done)]
    assert kinds == ["profile", "network", "baseline", "profile"]  # counts first, latencies last
    assert len(done) == len(plan.runs)


@pytest.mark.parametrize(
    ("gpus", "asked", "spread", "jobs"),
    [
        (4, {}, ("0", "1", "2", "3"), 4),
        (2, {"visible": "3,5"}, ("3", "5"), 2),
        (2, {"per_gpu": 3}, ("0", "1"), 6),
        (4, {"jobs": 2}, ("0", "1", "2", "3"), 2),
        (4, {"devices": 4}, (), 1),
        (4, {"device": "cuda:1"}, (), 1),
        (4, {"device": "cuda:1", "per_gpu": 4}, (), 4),
        (4, {"device": "cuda:1", "per_gpu": 4, "jobs": 2}, (), 2),
        (4, {"devices": 4, "per_gpu": 4}, (), 1),
    ],
)
def test_one_run_for_each_visible_gpu_is_the_default(computer, gpus, asked, spread, jobs):  # noqa: F811
    machine = computer("nvidia0", gpus=gpus)(**asked)
    assert (machine.gpus, machine.jobs) == (spread, jobs)
    assert jobs == 1 or f"{jobs} runs side by side" in told(machine)
