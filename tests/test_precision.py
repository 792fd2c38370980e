"""float32, tf32 and bf16: both of PyTorch's flags are set for each; at paper scale each table says which and why."""

from dataclasses import replace

import pytest
import torch

from afno_repro.config import digest
from afno_repro.precision import autocast, rounded, set_precision
from afno_repro.spec.plan import plan_runs
from tests.machine import machine_at
from tests.specs import all_specs
from tests.training.test_resume import config_of, train

pytestmark = pytest.mark.fast


@pytest.fixture
def flags():
    """PyTorch's defaults, which differ, before and after."""
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True


@pytest.mark.parametrize("before", [(False, True), (True, False)])
@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [("float32", "cuda", False), ("tf32", "cuda", True), ("bf16", "cuda", True), ("tf32", "cpu", False)],
)
def test_both_flags_are_set_whatever_they_were(flags, before, precision, device, expected):
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    set_precision(precision, torch.device(device))
    assert rounded() == {"products": expected, "convolutions": expected}
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (expected, expected)


@pytest.mark.parametrize("has_it", [True, False])
def test_a_gpu_without_tf32_multiplies_float32_and_so_its_record_says(flags, monkeypatch, has_it):
    """Like a V100, a T4 or an MI200."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: has_it)
    set_precision("tf32", torch.device("cuda"))
    assert rounded() == {"products": has_it, "convolutions": has_it}


def test_only_bf16_is_mixed_precision():
    a = torch.randn(4, 4)
    for precision, kind in (("float32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(torch.device("cpu"), precision):
            assert (a @ a).dtype == kind


def test_on_a_cpu_tf32_is_float32_and_says_so(tmp_path, flags):
    left = {}
    for precision in ("float32", "tf32"):
        config = config_of(tmp_path)
        config = replace(config, train=replace(config.train, precision=precision))
        said = []
        train(config, machine_at(tmp_path), tmp_path / precision, lambda step, said=said: said.append(step.note))
        left[precision] = (tmp_path / precision / "weights.safetensors").read_bytes()
        assert ("tf32 is float32 on a CPU" in said[0]) == (precision == "tf32")
    assert left["float32"] == left["tf32"]


def test_at_paper_scale_every_training_says_its_precision_and_why():
    for spec in all_specs():
        trained = [run for run in plan_runs(spec, "paper").runs if run.config.train is not None]
        assert {run.config.train.precision for run in trained} <= {"tf32"}
        assert not trained or [each.why for each in spec.structure.assumptions if each.key == "train.precision"]
        assert len({digest(run.config) for run in trained}) == len(trained)
