"""One training in this process: parts of a batch, recomputed activations, where it starts, what it warns of."""

import copy
import csv
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from afno_repro.backbones.layers import Block
from afno_repro.data import load_data
from afno_repro.data.samples import TrainingBatches
from afno_repro.errors import ConfigError, DataError, Diverged
from afno_repro.mixers import EfficientSelfAttention
from afno_repro.models import build_model
from afno_repro.runs import execute, executors
from afno_repro.runs.machine import COMPILERS
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.tasks import TASKS
from afno_repro.training import blocks, engine, evaluation, loop
from afno_repro.training.optim import make_optimizer
from tests.machine import machine_at
from tests.specs import SMALL, write_spec

FINETUNE = """\
  finetune:
    kind: finetune
    init: pretrain
    task: {name: segmentation, num_classes: 3, input: image_mean, stride: 16, absent: skip}
    model: {head: {name: linear_segmentation, num_classes: 3}}
    data: {name: textures, image_size: 16, fraction: 1.0, seed: 0, textures: [brick, grass, gravel],
           side: 16, train_images: 12, test_images: 5, regions: 3, zoom: 0.5, border: 1}
    train: {epochs: 2, batch_size: 5, optimizer: adam, schedule: constant, lr: 1e-3, min_lr: 0.0, warmup: {steps: 0},
            head_lr_factor: 1.0, weight_decay: 0.0, clip_norm: null, precision: float32,
            augment: {name: flip}, eval_every: 1}
"""
DIGITS = "{name: digits, image_size: 16, fraction: 1.0, seed: 0, train_images: 40}"
COLUMN = "columns:\n  - {key: miou, title: mIoU, source: finetune/miou, digits: 1, higher_is_better: true}\n"
FINETUNED = SMALL.replace("columns:\n", FINETUNE + COLUMN).replace(
    "    cost: null\n", "    cost: null\n    finetune: null\n"
)

MIXED = (
    SMALL.replace(
        "task: {name: inpainting, walk: {grid: tokens, patch_size: 4, steps: 16}}",
        "task: {name: classification, num_classes: 10, input: image_mean, mixup: 0.8, cutmix: 1.0,\n"
        "           label_smoothing: 0.1}\n"
        "    model: {head: {name: classification, num_classes: 10}}",
    )
    .replace(SMALL[SMALL.index("{name: photos") : SMALL.index("    train:")], f"{DIGITS}\n")
    .replace("batch_size: 4", "batch_size: 8")
    .replace("epochs: 3", "epochs: 2")
    .replace("psnr, title: PSNR, unit: dB, source: pretrain/psnr", "top1, title: Top-1, source: pretrain/top1")
    .replace("psnr", "top1")
    .replace(SMALL[SMALL.index("  - key: fill_mean") : SMALL.index("scales:")], "")
)


def needs(tmp_path, text=FINETUNED):
    return plan_runs(load_spec(write_spec(tmp_path, text)), "tiny").needs


def train(config, directory, report=lambda step: None, start=None, **machine):
    """The final weights and the log of a run."""
    loop.train(config, load_data(config.data, directory), machine_at(directory, **machine), directory, report, start)
    return left(directory)


def left(directory):
    rows = csv.DictReader((directory / "log.csv").read_text().splitlines())
    return load_file(directory / "weights.safetensors"), [
        {key: float(value) for key, value in row.items()} for row in rows
    ]


def assert_same_training(one, other, apart=()):
    """The same to float tolerance, but for the columns that look at one part of a batch."""
    torch.testing.assert_close(one[0], other[0], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(one[1], other[1], strict=True):
        assert {key: mine[key] for key in mine if key not in apart} == pytest.approx(
            {key: theirs[key] for key in theirs if key not in apart}, rel=1e-4
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each stage's training, its whole batch at once."""
    folder = tmp_path_factory.mktemp("whole")
    return {stage: train(needs(folder)["afno", stage, 0].config, folder / stage) for stage in ("pretrain", "finetune")}


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 64])
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(tmp_path, whole, stage, micro_batch):
    config = needs(tmp_path)["afno", stage, 0].config
    assert_same_training(train(config, tmp_path / "run", micro_batch=micro_batch), whole[stage], apart=("alive_1",))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A training that mixes whole batches of eight."""
    folder = tmp_path_factory.mktemp("mixed")
    return train(needs(folder, MIXED)["afno", "pretrain", 0].config, folder / "run")


@pytest.mark.parametrize("batch_size", [8, 15, 16])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("micro_batch", [None, 1, 2, 3, 64])
def test_all_processes_cut_their_shares_into_as_many_parts(monkeypatch, batch_size, ranks, micro_batch):
    """For batch norm's statistics, which they average part by part."""
    monkeypatch.setattr(engine, "ranks", lambda: ranks)
    shares = [TrainingBatches(32, batch_size, 1, 0, 0, rank, ranks).share for rank in range(ranks)]
    cut = [evaluation.parts_of((torch.arange(len(share)),), batch_size, micro_batch) for share in shares]
    assert len({len(parts) for parts in cut}) == 1
    for share, parts in zip(shares, cut, strict=True):
        assert torch.equal(torch.cat([part for (part,) in parts]), torch.arange(len(share)))
        allowed = micro_batch or len(share)
        uneven = allowed == 1 and len({len(each) for each in shares}) > 1
        assert all(1 <= len(part) <= allowed + uneven for (part,) in parts)


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_micro_batches_are_mixed_as_the_whole_batch_is(tmp_path, mixed, micro_batch):
    config = needs(tmp_path, MIXED)["afno", "pretrain", 0].config
    assert_same_training(train(config, tmp_path / "run", micro_batch=micro_batch), mixed, apart=("alive_1",))


def test_mixing_changes_what_is_learned(tmp_path, mixed):
    config = needs(tmp_path, MIXED.replace("mixup: 0.8, cutmix: 1.0", "mixup: 0.0, cutmix: 0.0"))
    plain = train(config["afno", "pretrain", 0].config, tmp_path / "run")
    assert abs(plain[1][0]["loss"] - mixed[1][0]["loss"]) > 1e-3


def test_recomputing_activations_changes_nothing(tmp_path, whole, monkeypatch):
    passes = []
    recompute = blocks.checkpoint
    monkeypatch.setattr(
        blocks, "checkpoint", lambda *arguments, **options: passes.append(1) or recompute(*arguments, **options)
    )
    config = needs(tmp_path)["afno", "pretrain", 0].config
    assert_same_training(train(config, tmp_path / "run", activation_checkpointing=True), whole["pretrain"])
    assert passes


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler")
def test_a_compiled_backbone_learns_the_same_and_is_watched_all_the_same(tmp_path, whole, monkeypatch):
    compiled = []
    compiler = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module, **how: compiled.append(type(module)) or compiler(module, **how)
    )
    config = needs(tmp_path)["afno", "pretrain", 0].config
    assert_same_training(train(config, tmp_path / "run", compile=True), whole["pretrain"])
    assert set(compiled) == {Block}


@pytest.mark.slow  # the compiler's minute
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler")
def test_a_compiled_backbone_learns_at_a_second_size():
    torch.manual_seed(0)
    backbone = EfficientSelfAttention(8, (4, 4), num_heads=2, reduction=2)
    model, plain = torch.nn.ModuleDict({"backbone": backbone}), copy.deepcopy(backbone)
    blocks.compile_backbone(model)
    for grid in ((4, 4), (6, 5)):
        x = torch.randn(2, *grid, 8, requires_grad=True)
        found, expected = (torch.autograd.grad(one(x).square().sum(), x) for one in (backbone, plain))
        torch.testing.assert_close(found, expected)


def finish(run, tmp_path):
    return execute.run_one(run, machine_at(tmp_path), lambda step: None)


def test_finetuning_starts_from_the_trunk_that_was_pretrained_with_a_new_head(tmp_path):
    runs = needs(tmp_path)
    parent, child = runs["afno", "pretrain", 0], runs["afno", "finetune", 0]
    finish(parent, tmp_path)
    trunk = executors.trunk_weights(child.config.init, machine_at(tmp_path))
    assert set(trunk) == {
        name for name in build_model(parent.config.model, 16).state_dict() if name.startswith("backbone.")
    }
    still = replace(child.config, train=replace(child.config.train, epochs=1, batch_size=12, lr=1e-30))
    weights, log = train(still, tmp_path / "child", start=trunk)
    assert [row["step"] for row in log] == [1]
    for name, value in trunk.items():
        assert torch.equal(weights[name], value), name
    engine.seed_everything(child.config.seed)
    fresh = build_model(child.config.model, 16).state_dict()
    assert {name for name in weights if torch.equal(weights[name], fresh[name]) and name not in trunk} == {
        "head.project.weight",
        "head.project.bias",
    }
    assert any(not torch.equal(trunk[name], fresh[name]) for name in trunk)


def test_a_run_whose_parent_diverged_diverges_and_one_without_parent_is_told(tmp_path):
    wild = FINETUNED.replace("lr: 1e-3\n", "lr: 1e30\n").replace("clip_norm: 1.0", "clip_norm: null")
    runs = needs(tmp_path, wild)
    with pytest.raises(DataError, match="from which this one starts, is not finished"):
        finish(runs["afno", "finetune", 0], tmp_path)
    assert [finish(runs["afno", stage, 0], tmp_path).outcome for stage in ("pretrain", "finetune")] == [
        "diverged",
        "diverged",
    ]
    with pytest.raises(Diverged, match="diverged"):
        executors.trunk_weights(runs["afno", "finetune", 0].config.init, machine_at(tmp_path))


@pytest.mark.parametrize(("threshold", "warned"), [("0.01", False), ("100.0", True)])
def test_a_layer_that_soft_thresholding_empties_is_told_at_the_first_step(tmp_path, threshold, warned):
    notes = []
    config = needs(tmp_path, SMALL.replace("sparsity_threshold: 0.01", f"sparsity_threshold: {threshold}"))[
        "afno", "pretrain", 0
    ].config
    train(
        replace(config, train=replace(config.train, epochs=1)),
        tmp_path / "run",
        report=lambda step: notes.append(step.note),
    )
    assert bool(notes[0]) == warned
    assert not any(notes[1:])
    if warned:
        assert notes[0] == "warning: soft-thresholding leaves under 1% of the spectrum alive in AFNO layer 1 (0%)"


class Waits(TorchDispatchMode):
    """Counts the times that the host asks a tensor for its value, which on a GPU waits for the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += operator.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.masked_select,
        )
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_host_waits_for_the_device_when_it_looks_and_at_no_other_step(tmp_path, monkeypatch, stage):
    config = needs(tmp_path)[("afno", stage, 0)].config
    monkeypatch.setattr(loop, "LOOK_EVERY_S", float("inf"))
    waits = {}
    for batch_size in (4, 2, 1):
        with Waits() as waits[batch_size]:
            train(
                replace(config, train=replace(config.train, epochs=1, batch_size=batch_size)),
                tmp_path / str(batch_size),
            )
    evaluated = {size: mode.count for size, mode in waits.items()}
    assert evaluated[1] == evaluated[2] == evaluated[4]


def test_a_step_whose_loss_is_not_finite_changes_nothing(tmp_path):
    config = needs(tmp_path)["afno", "pretrain", 0].config
    task = TASKS[config.task.name](config.data.image_size, **config.task.options)
    model = build_model(config.model, config.data.image_size)
    optimizer = make_optimizer(model, config.train)
    images, masks = torch.rand(2, 3, 16, 16), torch.rand(2, 16, 16) < 0.5
    for value, changes in ((float("nan"), False), (float("inf"), False), (0.5, True)):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        loss = loop.optimise(model, optimizer, task, [(torch.full_like(images, value), masks)], config.train)
        assert bool(loss.isfinite()) == changes
        assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()) == changes
    assert {int(state["step"]) for state in optimizer.state.values()} == {1}


def test_running_out_of_memory_while_resuming_is_no_fault_of_the_checkpoint(tmp_path):
    config = needs(tmp_path)["afno", "pretrain", 0].config
    train(replace(config, train=replace(config.train, epochs=1)), tmp_path / "run")

    class Full(torch.nn.Module):
        def load_state_dict(self, *_):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        loop.resume(tmp_path / "run", Full(), None, machine_at(tmp_path), {}, print)


def test_a_training_that_continues_needs_no_room_for_the_checkpoints_that_it_has(tmp_path, monkeypatch):
    config = needs(tmp_path)["afno", "pretrain", 0].config
    asked = []
    monkeypatch.setattr(loop, "check_space", lambda folder, needed: asked.append(needed))
    for _ in range(2):
        train(config, tmp_path / "run")
    held = sum(file.stat().st_size for file in (tmp_path / "run" / "checkpoints").rglob("*.*"))
    assert asked[0] > asked[1] >= asked[0] - held


def test_a_training_whose_last_checkpoint_has_all_steps_says_that_it_continues_too(tmp_path):
    config, told = needs(tmp_path)["afno", "pretrain", 0].config, []
    whole = train(config, tmp_path / "run")
    again = train(config, tmp_path / "run", told.append)
    assert [(each.step, each.note) for each in told] == [(told[0].total, f"continues at step {told[0].total}")]
    assert_same_training(whole, again)


def test_a_batch_that_is_smaller_than_the_number_of_processes_is_refused(tmp_path, monkeypatch):
    config = needs(tmp_path)["afno", "pretrain", 0].config
    monkeypatch.setattr(engine, "ranks", lambda: 5)
    monkeypatch.setattr(engine, "share", lambda model, device: model)
    with pytest.raises(ConfigError, match="at least the 5 processes that share it, is 4"):
        train(config, tmp_path / "run")
