"""Training on a GPU: killed and continued, moved, fed by processes, out of memory, in a group.

Each on a GPU where there is one; on the CPU, too, so that what a GPU is held to holds somewhere.
"""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch

from afno_repro.data import load_data
from afno_repro.errors import Interrupted
from afno_repro.runs import execute
from afno_repro.training import loop
from tests.command import afno, start
from tests.machine import machine_at
from tests.specs import ROOT, SMALL, write_spec
from tests.test_gpu import GPU
from tests.training.test_loop import left, needs, train
from tests.training.test_resume import LONG, outcome, wait_for_checkpoint

FRESH = {**os.environ, "PYTHONUNBUFFERED": "1", "AFNO_CHECKPOINT_EVERY_S": "0"}  # an interpreter that opened no GPU yet
ROOM_MIB = 256  # that a training has where memory is to run out


def command(device: str, workers: int) -> tuple[str, ...]:
    return "run", "small", "--row", "afno", "--device", device, "--jobs", "1", "--workers", str(workers)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What a command on a device leaves that loads its images itself and that nobody killed."""

    @cache
    def on(device: str):
        root = tmp_path_factory.mktemp(device)
        write_spec(root, LONG)
        afno(*command(device, 0), root=root, env=FRESH)
        return outcome(root)

    return on


@pytest.mark.parametrize(
    ("device", "workers"),
    [
        pytest.param("cpu", 2, marks=pytest.mark.slow),
        *(pytest.param("cuda", workers, marks=GPU.marks) for workers in (0, 4)),
    ],
)
def test_killed_and_continued_with_any_loading_processes_it_ends_bit_for_bit(tmp_path, uninterrupted, device, workers):
    write_spec(tmp_path, LONG)
    process = start(*command(device, workers), root=tmp_path, env=FRESH)
    wait_for_checkpoint(tmp_path, process, newer_than=0)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("runs/pretrain-afno-*/record.json")), "it was over before it was killed"
    assert "continues at step " in afno(*command(device, workers), root=tmp_path, env=FRESH).stderr
    assert outcome(tmp_path) == uninterrupted(device)


@pytest.mark.parametrize(
    ("first", "then"),
    [("cpu", "cpu"), *(pytest.param(*each, marks=GPU.marks) for each in (("cuda", "cpu"), ("cpu", "cuda")))],
)
def test_a_training_begun_on_one_device_is_continued_on_another(tmp_path, first, then):
    def stop(step):
        if step.step == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    config, said = needs(tmp_path)["afno", "pretrain", 0].config, list[str]()
    data = load_data(config.data, tmp_path)
    with pytest.raises(Interrupted):
        loop.train(config, data, machine_at(tmp_path, device=first, checkpoint_every_s=0.0), tmp_path / "run", stop)
    machine = machine_at(tmp_path, device=then)
    loop.train(config, data, machine, tmp_path / "run", lambda step: said.append(step.note))
    assert "continues at step " in said[0]
    assert (f"device {first}, now {then}" in said[0]) == (first != then)
    _, rows = train(config, tmp_path)
    assert [row["loss"] for row in left(tmp_path / "run")[1]] == pytest.approx([row["loss"] for row in rows], rel=1e-3)


@contextmanager
def little_memory(device: str):
    """Inside, this process cannot take more than ROOM_MIB of a device."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(ROOM_MIB * 2**20 / torch.cuda.mem_get_info()[1])
        yield
        torch.cuda.set_per_process_memory_fraction(1.0)
    else:
        before, pages = resource.getrlimit(resource.RLIMIT_AS), int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM_MIB * 2**20, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_what_a_device_has_no_memory_for_is_an_outcome_and_the_next_row_is_trained(tmp_path, monkeypatch, device):
    monkeypatch.setattr(execute, "held_by_others_bytes", lambda device: 0)  # other tests may use the same GPU
    large = "    model: {backbone: {embed_dim: 4000}, mixer: {name: afno,"
    runs = needs(tmp_path, SMALL.replace("    model: {mixer: {name: afno,", large))
    machine = machine_at(tmp_path, device=device)
    with little_memory(device):
        found = [execute.run_one(runs[row, "pretrain", 0], machine, lambda step: None) for row in ("afno", "gfn")]
    assert [record.outcome for record in found] == ["out_of_memory", "ok"]
    assert set(found[0].metrics) == {"peak_memory_mib"}


GROUP = """
import copy, os, sys, torch, torch.distributed as dist
from afno_repro.training import engine
address, kind = sys.argv[1:]
engine.join(engine.Place(0, 1, 0, address, os.getppid()), kind)
device = torch.device(kind)
print(dist.get_backend_config(), flush=True)
torch.manual_seed(0)
alone = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 1, 3)).to(device)
x, twin = torch.randn(4, 3, 8, 8, device=device), copy.deepcopy(alone)
engine.ranks = lambda: 2  # as where others take part, of whom there is none here
shared = engine.share(twin, torch.device(kind, 0) if kind == "cuda" else device)
assert shared is not twin
for model in (alone, shared):
    model(x).square().mean().backward()
for one, other in zip(alone.parameters(), shared.parameters()):
    torch.testing.assert_close(other.grad, one.grad)
engine.same_buffers(shared)
assert engine.total(torch.ones(3, device=device)).tolist() == [1.0, 1.0, 1.0]
assert engine.anywhere(True, False) == [True, False]
"""


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), pytest.param("cuda", "nccl", marks=GPU.marks)])
def test_a_group_of_one_process_averages_over_itself(tmp_path, device, backend):
    done = subprocess.run(
        [sys.executable, "-c", GROUP, str(tmp_path / "meeting"), device],
        cwd=ROOT,
        env=FRESH,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert f"{device}:{backend}" in done.stdout
