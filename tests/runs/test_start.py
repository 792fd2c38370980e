"""Runs that start from a file of published weights: checked before any work, known by what the file holds."""

import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from afno_repro.errors import StorageError
from afno_repro.runs import execute, executors
from afno_repro.runs.check import check_runs
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs, resolve_runs
from afno_repro.spec.reader import load_spec
from tests.command import afno
from tests.machine import machine_at
from tests.specs import SMALL, write_spec
from tests.weights.test_convert import AFNO, tensors, vit_shapes, write

ROW = "    paper: {gflops: 0.6, psnr: 21.0}\n"
# A learning rate that moves no weight: what is written at the end is what the run began with.
STILL = (
    SMALL.replace(ROW, f"    pretrain: {{kind: finetune, init: {{weights: theirs.safetensors}}}}\n{ROW}")
    .replace(", model: {backbone: {embed_dim: 16}}", "")
    .replace("embed_dim: 8, depth: 1, mlp_ratio: 2, skips: 2", "embed_dim: 8, depth: 2, mlp_ratio: 3, skips: 1")
    .replace("lr: 1e-3", "lr: 1e-30")
    .replace("min_lr: 1e-5", "min_lr: 0.0")
    .replace("weight_decay: 0.01", "weight_decay: 0.0")
)
NETWORK = ("--row", "afno", "--scale", "smoke")


@pytest.fixture
def root(tmp_path):
    """A folder with a spec whose stage starts from a made-up published file, converted by the command."""
    torch.manual_seed(0)
    write(tmp_path, tensors(vit_shapes(AFNO)))
    afno("convert", "theirs.pth", "--format", "afno", "--residuals", "1", "--out", "theirs.safetensors", root=tmp_path)
    write_spec(tmp_path, STILL)
    return tmp_path


def planned(root):
    spec = load_spec(root / "experiments/small.yaml", root=root)
    return plan_runs(spec, "smoke").needs["afno", "pretrain", 0]


def problems(root):
    plan, found = resolve_runs(load_spec(root / "experiments/small.yaml", root=root), "smoke")
    return [*found, *check_runs(plan, [run for run in plan.runs if run.row == "afno"])]


def test_a_run_starts_from_the_converted_weights_of_a_published_file(root):
    afno("finetune", "small", *NETWORK, "--jobs", "1", "--device", "cpu", root=root, expect=0)
    run, theirs = planned(root), load_file(root / "theirs.safetensors")
    weights = load_file(Store(root / "runs").find(run.digest) / "weights.safetensors")
    trunk = {name for name in theirs if name.startswith("backbone.")}
    assert trunk == {name for name in weights if name.startswith("backbone.")}
    for name in trunk:
        assert torch.equal(weights[name], theirs[name]), name
    published = torch.load(root / "theirs.pth")
    assert torch.equal(weights["backbone.blocks.1.norm2.weight"], published["blocks.1.norm2.weight"])


def test_a_run_is_known_by_what_its_file_holds_not_by_where_it_lies(root):
    before = planned(root)
    (root / "elsewhere").mkdir()
    shutil.move(root / "theirs.safetensors", root / "elsewhere/other.safetensors")
    write_spec(root, STILL.replace("theirs.safetensors", str(root / "elsewhere/other.safetensors")))
    assert planned(root).digest == before.digest
    changed = load_file(root / "elsewhere/other.safetensors")
    changed["backbone.norm.bias"] += 1
    save_file(changed, root / "elsewhere/other.safetensors")
    assert planned(root).digest != before.digest
    assert planned(root).config.init.startswith("sha256:")


def test_a_file_that_changes_between_plan_and_run_is_refused(root):
    run = planned(root)
    changed = load_file(root / "theirs.safetensors")
    changed["backbone.norm.bias"] += 1
    save_file(changed, root / "theirs.safetensors")
    with pytest.raises(StorageError, match="changed since the run was planned"):
        execute.run_one(run, machine_at(root), lambda step: None)


@pytest.mark.parametrize(
    ("init", "says"),
    [
        ("{weights: absent.safetensors}", "absent.safetensors: No such file"),
        ("{weights: experiments}", "experiments: is no|Is a directory"),
        ("{weights: 3}", "must be an earlier stage or {weights: FILE}"),
        ("{weight: theirs.safetensors}", "must be an earlier stage or {weights: FILE}"),
        ("{weights: theirs.pth}", "does not fit this network"),
        ("{weights: experiments/small.yaml}", "is no"),
    ],
)
def test_a_file_that_cannot_be_started_from_is_named_with_its_place_before_any_work(root, init, says):
    write_spec(root, STILL.replace("{weights: theirs.safetensors}", init))
    line = 1 + STILL[: STILL.index("init: {weights")].count("\n")
    found = afno("check", "small", root=root, expect=2).stderr
    assert f"experiments/small.yaml:{line}:" in found
    assert re.search(says, found), found


def test_weights_of_another_network_are_refused_before_any_work(root):
    write_spec(root, STILL.replace("mlp_ratio: 3", "mlp_ratio: 4"))
    (found,) = problems(root)
    assert "does not fit this network" in found.message
    assert "backbone.blocks.0.mlp.0.weight: expected (32, 8), found (24, 8)" in found.message
    assert found.key[-2:] == ("init", "weights")


def test_every_seed_starts_from_the_same_file(root):
    write_spec(root, STILL.replace("smoke: {seeds: [0]", "smoke: {seeds: [0, 1]"))
    needs = plan_runs(load_spec(root / "experiments/small.yaml", root=root), "smoke").needs
    first, second = (needs["afno", "pretrain", seed] for seed in (0, 1))
    assert first.config.init == second.config.init
    assert first.weights == second.weights == root / "theirs.safetensors"
    assert first.digest != second.digest
    assert executors.weights_in(second.weights, second.config).keys() == load_file(second.weights).keys()
