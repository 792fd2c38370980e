"""What a dry run says of runs: counts that follow from the config, whether or not the data are there."""

from dataclasses import replace

import pytest
import torch

from afno_repro.commands.dry_run import planned
from afno_repro.commands.reproduce import Prepared, prepare
from afno_repro.config import DataConfig, ModelConfig, Part, RunConfig, TrainConfig, digest
from afno_repro.mixers import afno
from afno_repro.models import build_model
from afno_repro.profiling.kept import network
from afno_repro.runs import estimate
from afno_repro.runs.estimate import PUBLISHED, Estimate, estimates, image_counts, windows
from afno_repro.runs.provenance import device_name
from afno_repro.runs.record import Record
from afno_repro.runs.show import Show
from afno_repro.spec.places import Places
from afno_repro.spec.plan import EVERYTHING, Run, plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.tasks.inpainting import Inpainting
from benchmarks.estimates import autocast_anywhere
from tests.command import answer
from tests.machine import machine_at
from tests.specs import ROOT, write_spec

MIXER = Part("self_attention", {"num_heads": 2})
VIT = ModelConfig(
    Part("vit", {"patch_size": 4, "embed_dim": 16, "depth": 2, "mlp_ratio": 2, "skips": 2}),
    MIXER,
    Part("inpainting", {}),
)
TRAIN = TrainConfig(
    epochs=4,
    batch_size=256,
    optimizer="adamw",
    schedule="cosine",
    lr=1e-3,
    min_lr=0.0,
    warmup={},
    head_lr_factor=1.0,
    weight_decay=0.0,
    decay="all",
    clip_norm=None,
    precision="float32",
    augment={"name": "flip"},
    eval_every=2,
)
INPAINTING = Part("inpainting", {"walk": {"grid": "tokens", "patch_size": 4, "steps": 16}})
IMAGENET = DataConfig("imagenet", 16, 1.0, 0, {"crop_fraction": 0.875, "skip": []})
PRETRAIN = RunConfig(kind="pretrain", task=INPAINTING, model=VIT, data=IMAGENET, train=TRAIN, seed=0, init=None)


@pytest.fixture(autouse=True)
def _same_speed(monkeypatch):
    monkeypatch.setattr(estimate, "product_flops_per_s", lambda *_: 1e9)


def a_run(config: RunConfig) -> Run:
    return Run(digest(config), config, "row", config.kind)


def estimated(config: RunConfig, machine, before=()) -> Estimate:
    return estimates([a_run(config)], before, machine)[digest(config)]


def test_absent_images_have_published_sizes(tmp_path):
    found = estimated(PRETRAIN, machine_at(tmp_path))
    assert found.steps == 4 * (1_281_167 // 256)
    assert "1,281,167" in found.published_sizes
    half = estimated(replace(PRETRAIN, data=replace(IMAGENET, fraction=0.5)), machine_at(tmp_path))
    assert half.steps == 4 * (640_584 // 256)


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("cityscapes", {}, (2975, 500)),
        ("camvid", {"validation": "val"}, (367, 101)),
        ("camvid", {"validation": "test"}, (367, 233)),
        ("datasetgan", {"part": "cat", "num_classes": 16, "min_pixels": 0}, (30, 20)),
        ("fewshot", {"folder": "mine", "num_classes": 3, "min_pixels": 0}, None),
    ],
)
def test_every_absent_set_is_as_large_as_published_or_unknown(name, options, sizes, tmp_path):
    counts, said = image_counts(DataConfig(name, 64, 1.0, 0, options), machine_at(tmp_path))
    assert counts == sizes
    assert bool(said) == (sizes is not None)
    assert ("about" in said) == (name == "datasetgan")


def test_images_that_are_there_are_counted(tmp_path):
    counts, said = image_counts(DataConfig("digits", 16, 1.0, 0, {"train_images": 600}), machine_at(tmp_path))
    assert counts is not None
    assert (counts[0], said) == (600, "")
    assert "digits" not in PUBLISHED


def test_absent_images_of_no_published_size_leave_the_time_unknown(tmp_path):
    data = DataConfig("fewshot", 16, 1.0, 0, {"folder": "mine", "num_classes": 3, "min_pixels": 0})
    found = estimated(replace(PRETRAIN, data=data), machine_at(tmp_path))
    assert (found.steps, found.device_s, found.wall_s) == (None, None, None)
    assert found.memory_bytes


def test_twice_the_epochs_take_twice_the_time_and_no_more_memory(tmp_path):
    once = estimated(PRETRAIN, machine_at(tmp_path))
    twice = estimated(replace(PRETRAIN, train=replace(TRAIN, epochs=8)), machine_at(tmp_path))
    assert twice.steps == 2 * once.steps
    assert twice.device_s == pytest.approx(2 * once.device_s)
    assert (twice.memory_bytes, twice.disk_bytes) == (once.memory_bytes, once.disk_bytes)


def test_devices_share_the_time_and_the_batch(tmp_path):
    one, four = (estimated(PRETRAIN, machine_at(tmp_path, devices=n)) for n in (1, 4))
    assert four.device_s == one.device_s == one.wall_s
    assert four.wall_s == pytest.approx(one.wall_s / 4)
    weights = 16 * sum(p.numel() for p in build_model(VIT, 16).parameters())
    assert one.memory_bytes - weights == pytest.approx(4 * (four.memory_bytes - weights), rel=0.01)
    assert four == estimated(PRETRAIN, machine_at(tmp_path, devices=4, micro_batch=1000))


def test_memory_is_sixteen_bytes_a_parameter_and_a_micro_batch_of_what_is_kept_and_passed_back(tmp_path):
    params = sum(p.numel() for p in build_model(VIT, 16).parameters())
    step = network(PRETRAIN).step(8, "cpu")
    expected = 16 * params + step.kept_bytes(again=False) + step.operators.largest_bytes
    assert estimated(PRETRAIN, machine_at(tmp_path, micro_batch=8)).memory_bytes == expected
    assert estimated(PRETRAIN, machine_at(tmp_path)).disk_bytes == 2 * 12 * params + 4 * params


AFNO = Part("afno", {"num_blocks": 2, "sparsity_threshold": 0.01, "keep": 1.0, "bias": "conv", "init_std": 0.02})
FNO = Part("fno", {"modes": [4, 3], "init_std": 0.02})


def of(mixer: Part, image_size: int = 16, precision: str = "float32") -> RunConfig:
    """An inpainting with another mixer, image or precision."""
    data, train = replace(IMAGENET, image_size=image_size), replace(TRAIN, precision=precision)
    return replace(PRETRAIN, model=replace(VIT, mixer=mixer), data=data, train=train)


def kept(config: RunConfig, images: int = 1, device: str = "cpu") -> int:
    return network(config).step(images, device).kept_bytes(again=False)


@pytest.mark.parametrize("images", [1, 7])
@pytest.mark.parametrize("mixer", [Part("gfn", {"init_std": 0.02}), AFNO, FNO], ids=lambda mixer: mixer.name)
def test_what_is_kept_on_meta_is_what_is_kept_in_fact(mixer, images, monkeypatch):
    monkeypatch.setattr(afno, "prefers_products", lambda x, modes: False)  # as on a GPU
    model, task = build_model(of(mixer).model, 16), Inpainting(16, **INPAINTING.options)
    own, found = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = task.loss(model, (torch.randn(images, 3, 16, 16), torch.rand(images, 16, 16) < 0.5))
    assert held.requires_grad
    assert kept(of(mixer), images) == sum(
        t.untyped_storage().nbytes() for place, t in found.items() if place not in own
    )


def test_attention_keeps_no_scores():
    assert kept(of(MIXER, 64)) == pytest.approx(16 * kept(of(MIXER, 16)), rel=0.02)


@pytest.mark.parametrize("mixer", [MIXER, AFNO], ids=lambda mixer: mixer.name)
def test_a_gpu_keeps_half_of_what_is_multiplied_in_half_precision_and_the_weights_in_it_once(mixer):
    with autocast_anywhere():
        few, many = (
            [kept(of(mixer, 32, precision), images, "cuda") for precision in ("float32", "bf16")] for images in (2, 12)
        )
    whole, half = (after - before for before, after in zip(few, many, strict=True))  # of ten images
    assert whole / 2 < half < whole
    params = sum(p.numel() for p in build_model(of(mixer).model, 32).parameters())
    assert 0 < few[1] - half / 5 <= few[0] - whole / 5 + 2 * params


def test_what_does_not_grow_with_images_is_counted_once():
    net, weights = network(of(FNO)), 16 * network(of(FNO)).params
    four, eight = (net.training_bytes(images, "cpu") - weights for images in (4, 8))
    assert four < eight < 2 * four


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_scores_of_a_segmentation_and_their_two_gradients_are_counted(precision):
    """In float32, whatever the precision."""

    def taken(classes: int) -> int:
        task = Part("segmentation", {"num_classes": classes, "input": "unit", "stride": 32, "absent": "skip"})
        head = Part("linear_segmentation", {"num_classes": classes})
        config = of(AFNO, 32, precision)
        config = replace(config, task=task, model=replace(config.model, head=head))
        with autocast_anywhere():
            return network(config).training_bytes(4, "cuda")

    assert taken(150) - taken(50) >= 3 * 4 * 100 * 32**2 * 4


def test_a_mixer_that_launches_kernels_is_counted_without_launching_one():
    fused = replace(AFNO, name="afno_repro.mixers.afno_fused:FusedAFNO")
    assert kept(of(fused, 32, "tf32"), device="cuda") == kept(of(AFNO, 32))


def test_computing_activations_again_takes_less_memory_and_more_time(tmp_path):
    whole, again = (estimated(PRETRAIN, machine_at(tmp_path, activation_checkpointing=on)) for on in (False, True))
    assert again.memory_bytes < whole.memory_bytes
    assert whole.device_s < again.device_s < 4 / 3 * whole.device_s + 1e-9


def recorded(seconds: float, device: str) -> Record:
    made_with = {"seconds": seconds, "device": device, "devices": 2}
    return Record("run", digest(PRETRAIN), PRETRAIN, "ok", {}, {}, made_with)


def test_a_record_counts_for_its_own_digest_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "device_name", lambda device: "a GPU")
    same, other = (
        estimated(config, machine_at(tmp_path, devices=4), [recorded(100.0, "a GPU")])
        for config in (PRETRAIN, replace(PRETRAIN, seed=1))
    )
    assert (same.device_s, same.wall_s, same.basis) == (200.0, 50.0, "as before on a GPU")
    assert "matrix products" in other.basis


def test_a_record_of_another_device_says_nothing_of_this_one(tmp_path):
    machine, here = machine_at(tmp_path), device_name("cpu")
    elsewhere, mine = recorded(0.1, "a GPU"), recorded(100.0, here)
    assert estimated(PRETRAIN, machine, [elsewhere]) == estimated(PRETRAIN, machine)
    assert estimated(PRETRAIN, machine, [mine, elsewhere]).device_s == 200.0  # whichever was found last


def test_whole_frames_are_evaluated_in_windows():
    task = Part("segmentation", {"num_classes": 19, "input": "imagenet", "stride": 512, "absent": "skip"})
    config = replace(PRETRAIN, task=task, data=DataConfig("cityscapes", 1024, 1.0, 0, {}))
    assert windows(config) == 3
    assert windows(PRETRAIN) == 1


def test_the_plan_counts_equal_runs_once_and_ends_with_the_totals(tmp_path, capsys):
    plan = plan_runs(load_spec(write_spec(tmp_path)), "tiny")
    places, machine = Places(tmp_path, tmp_path / "runs"), machine_at(tmp_path)
    prepared = Prepared([plan, plan], pending=plan.runs)
    answer = planned(places, prepared, "tiny", machine)
    *entries, whole = answer.value
    assert whole["table"] == "total"
    for key in ("steps", "device_hours", "disk_gib"):
        assert whole[key] == pytest.approx(sum(e[key] or 0 for e in {e["run"]: e for e in entries}.values()))
    answer.show()
    assert "5 runs to do" in capsys.readouterr().out
    done = planned(places, replace(prepared, pending=[]), "tiny", machine)
    assert {e["state"] for e in done.value[:-1]} == {"done"}
    done.show()
    assert "everything is done" in capsys.readouterr().out


def test_the_paper_scale_of_table_2_is_readable_in_80_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    places, machine = Places(ROOT, tmp_path / "runs"), machine_at(tmp_path)
    answer = planned(places, prepare(places, "table2", "paper", EVERYTHING, machine, Show()), "paper", machine)
    lacking = [e for e in answer.value if e["state"] == "no data" and (e["row"], e["stage"]) == ("afno", "pretrain")]
    assert [(e["stage"], e["steps"]) for e in lacking] == [("pretrain", 500_400)]
    assert lacking[0]["device_hours"] > 0
    assert "imagenet" in lacking[0]["missing"]
    answer.show()
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert any("afno pretrain" in line and "500,400" in line for line in lines)
    assert all(
        len(line) <= 80 for line in lines[: next(i for i, line in enumerate(lines) if line.startswith("total")) + 1]
    )
    assert "1,281,167" in shown


@pytest.mark.fast
def test_a_count_of_a_network_that_is_trained_too_takes_no_time(tmp_path):
    needs = plan_runs(load_spec(write_spec(tmp_path)), "paper").needs
    runs = [needs["afno", stage, 0] for stage in ("pretrain", "cost")]
    assert runs[0].config.model == runs[1].config.model
    found = estimates(runs, [], machine_at(tmp_path))
    assert (found[runs[1].digest].device_s, found[runs[1].digest].steps) == (0.0, None)


@pytest.mark.parametrize(
    "scale", ["smoke", *(pytest.param(scale, marks=pytest.mark.slow) for scale in ("tiny", "small", "paper"))]
)
def test_everything_is_planned_where_nothing_was_run(scale, tmp_path):
    """The larger scales build their networks and look at their products: minutes."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    plan = answer("run", "all", "--scale", scale, "--dry-run", "--device", "cpu", root=tmp_path)
    assert {entry["state"] for entry in plan[:-1]} <= {"to do", "no data"}
    assert plan[-1]["table"] == "total"
