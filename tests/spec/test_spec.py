import json
from dataclasses import replace

import pytest

from afno_repro.config import Part
from afno_repro.errors import ConfigError
from afno_repro.runs import check
from afno_repro.runs.check import check_runs, metric_problems
from afno_repro.spec.plan import Choice, plan_runs, resolve_runs
from afno_repro.spec.reader import load_spec, read_spec
from tests.specs import SMALL, all_specs, write_spec


def mistakes(tmp_path, text, scale="tiny"):
    """Everything that `afno check` would say of a spec at one scale."""
    spec, problems = read_spec(write_spec(tmp_path, text), "small.yaml")
    if spec is not None:
        plan, found = resolve_runs(spec, scale)
        problems = problems + found + check_runs(plan, plan.runs)
    return [str(p) for p in problems]


def line_of(text, part):
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize("spec", all_specs(), ids=lambda s: s.name)
def test_every_committed_spec_is_sound_at_every_scale(spec):
    for scale in spec.structure.scales:
        plan, problems = resolve_runs(spec, scale)
        assert problems == []
        assert check_runs(plan, plan.runs) == metric_problems(plan) == []


def test_a_model_that_was_sound_once_is_not_built_again_unless_its_mixer_is_ones_own(tmp_path, monkeypatch):
    built, plan = [], plan_runs(load_spec(write_spec(tmp_path)), "tiny")
    monkeypatch.setattr(check, "_sound", set())
    monkeypatch.setattr(check, "check_model", lambda model, size: built.append(repr((model, size))))
    for _ in range(2):
        assert check_runs(plan, plan.runs) == []
    assert len(built) == len(set(built)) > 1
    own = replace(plan.runs[0].config.model, mixer=Part("mine:Mixer", {}))
    monkeypatch.setattr(check, "check_own_mixer", lambda model, size: None)
    for _ in range(2):
        assert check._model_problems(own, 16) == []
    assert len(built) == len(set(built)) + 1


def test_the_small_spec_is_sound(tmp_path):
    assert mistakes(tmp_path, SMALL) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("num_blocks: 2", "num_blocks: 3", "num_blocks: afno: must divide the width 8, is 3"),
        (
            "sparsity_threshold: 0.01",
            "sparsity_threshold: -0.01",
            "sparsity_threshold: afno: must be at least 0, is -0.01",
        ),
        ("keep: 1.0", "keep: 0", "keep: afno: must lie in (0, 1], is 0"),
        ("keep: 1.0", "keep_fraction: 1.0", "afno has no option 'keep_fraction'"),
        ("keep: 1.0, ", "", "afno needs the option 'keep'"),
        ("num_blocks: 2", "num_blocks: two", "num_blocks: afno: must be a whole number, is 'two'"),
        ("name: afno,", "name: afnno,", "Did you mean 'afno'?"),
        (
            "patch_size: 4, embed_dim",
            "patch_size: 5, embed_dim",
            "patch_size: vit: must divide the image size 16, is 5",
        ),
        ("epochs: 3", "epochs: three", "epochs: train: must be a whole number, is 'three'"),
        ("epochs: 3", "epochs: 0", "epochs: must be above 0, is 0"),
        ("lr: 1e-3", "lr: -1e-3", "lr: must be above 0"),
        ("lr: 1e-3", "learning_rate: 1e-3", "train has no option 'learning_rate'"),
        ("optimizer: adamw", "optimizer: adamm", "must be one of adam, adamw"),
        ("kind: pretrain", "kind: pretrian", "must be one of profile, baseline, pretrain, finetune"),
        ("steps: 16}", "steps: -1}", "walk: inpainting: steps must be a whole number of at least 0"),
        ("grid: tokens", "grid: patches", "walk: inpainting: grid must be tokens or pixels"),
        ("name: photos,", "name: fotos,", "Did you mean 'photos'?"),
        ("fraction: 1.0, seed: 0, train", "fraction: 1.0, train", "the key 'seed' is missing"),
        ("name: flip", "name: flop", "Did you mean 'flip'?"),
        ("fill: mean", "fill: median", "there is no fill 'median'"),
        ("attention_products: 1, ", "attention_products: 1, fft: true, ", "count has no option 'fft'"),
        ("attention_products: 1, ", "attention_products: 3, ", "must be 0, 1 or 2, is 3"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(tmp_path, old, new, says):
    text = SMALL.replace(old, new, 1)
    assert text != SMALL
    found = mistakes(tmp_path, text)
    assert any(says in each for each in found), found
    assert all(each.startswith("small.yaml:") for each in found)
    if new and new in text and "needs the option" not in says and "missing" not in says:
        assert any(each.startswith(f"small.yaml:{line_of(text, new)}:") for each in found), found


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("title: A small table", "titel: A small table", "Did you mean 'title'?"),
        ("digits: 2,", "digit: 2,", "Did you mean 'digits'?"),
        ("digits: 2,", "digits: two,", "columns.1.digits"),
        ("psnr: 20.0", "psnr: high", "rows.0.paper.psnr"),
        ("better: afno", "better: afnn", "there is no row 'afnn'"),
        ("source: pretrain/psnr", "source: pretrian/psnr", "there is no stage 'pretrian'"),
        ("    cost: null", "    costs: null", "there is no stage 'costs'"),
        ("tiny: {seeds: [0]}", "tinny: {seeds: [0]}", "scales"),
        ("key: gfn\n", "key: afno\n", "duplicate row 'afno'"),
        ("group: inpainting", "group: inpainting\ngroup: other", "duplicate key 'group'"),
        (
            "claims:",
            "figures: [{name: training, stage: pretrain}, {name: training, stage: pretrain}]\nclaims:",
            "duplicate suffix ''",
        ),
    ],
)
def test_a_wrong_structure_is_named_with_its_line(tmp_path, old, new, says):
    text = SMALL.replace(old, new, 1)
    assert text != SMALL
    with pytest.raises(ConfigError) as error:
        load_spec(write_spec(tmp_path, text), "small.yaml")
    assert says in str(error.value)
    assert all(p.place.startswith("small.yaml:") for p in error.value.problems)


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        (
            "pretrain/psnr",
            "pretrain/psrn",
            "best_psnr, loss, psnr, psnr_masked, ssim, ssim_masked. Did you mean 'psnr'?",
        ),
        ("pretrain/psnr", "pretrain/best_ssim", "best_psnr"),
        ("cost/gflops", "cost/gflop", "Did you mean 'gflops'?"),
        ("cost/gflops", "cost/latency_s", "params_m"),
    ],
)
def test_a_metric_that_no_row_of_a_stage_has_is_named_with_its_line(tmp_path, old, new, allowed):
    text = SMALL.replace(f"source: {old},", f"source: {new},")
    (mistake,) = map(str, metric_problems(plan_runs(load_spec(write_spec(tmp_path, text), "small.yaml"), "tiny")))
    assert f"small.yaml:{line_of(text, new)}:" in mistake
    stage, metric = new.split("/")
    assert f"source: the stage '{stage}' has no metric '{metric}'" in mistake
    assert allowed in mistake


def test_a_scale_without_seeds_is_named_with_its_line(tmp_path):
    text = SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: []}")
    (mistake,) = mistakes(tmp_path, text)
    assert f"small.yaml:{line_of(text, 'seeds: []')}:" in mistake
    assert "scales.tiny.seeds: must have a seed, as in [0]; is []" in mistake


def test_all_mistakes_are_found_at_once(tmp_path):
    changes = {
        "group: inpainting": "group: inpainting\ngroop: x",
        "title: A small table": "title: A small table\ntitle: Again",
        "psnr: 20.0": "psnr: high",
        "num_blocks: 2": "num_blocks: 3",
        "sparsity_threshold: 0.01": "sparsity_threshold: -1",
        "keep: 1.0": "keep: 0, colour: red",
        "patch_size: 4, embed_dim": "patch_size: 5, embed_dim",
        "epochs: 3": "epochs: three",
    }
    text = SMALL
    for old, new in changes.items():
        text = text.replace(old, new, 1)
    found = "\n".join(mistakes(tmp_path, text))
    for word in (
        "'groop'",
        "duplicate key 'title'",
        "paper.psnr",
        "num_blocks",
        "sparsity_threshold",
        "keep",
        "'colour'",
        "patch_size",
        "epochs",
    ):
        assert word in found, word


def test_a_scale_that_does_not_exist_is_named(tmp_path):
    spec = load_spec(write_spec(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no scale 'tin'(.|\n)*Did you mean 'tiny'"):
        plan_runs(spec, "tin")


def test_a_row_that_does_not_exist_is_named(tmp_path):
    spec = load_spec(write_spec(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no row 'afn'(.|\n)*Did you mean 'gfn'|'afno'"):
        plan_runs(spec, "tiny", Choice(rows=("afn",)))


RAND_AUGMENT = {"name": "rand_augment", "area": [0.08, 1.0], "operations": 2, "magnitude": 9}


@pytest.mark.parametrize(
    ("augment", "key", "allowed"),
    [
        ({**RAND_AUGMENT, "operations": 0}, "operations", "at least 1, is 0"),
        ({**RAND_AUGMENT, "levels": 1, "magnitude": 0}, "levels", "at least 2, is 1"),
        ({**RAND_AUGMENT, "magnitude": 31}, "magnitude", "in [0, 30], below levels, is 31"),
        ({**RAND_AUGMENT, "levels": 11, "magnitude": 11}, "magnitude", "in [0, 10], below levels, is 11"),
        ({**RAND_AUGMENT, "magnitude": -1}, "magnitude", "in [0, 30], below levels, is -1"),
        ({**RAND_AUGMENT, "translation": 1.5}, "translation", "in [0, 1], is 1.5"),
        ({**RAND_AUGMENT, "probability": -0.1}, "probability", "in [0, 1], is -0.1"),
        ({**RAND_AUGMENT, "area": [0.5, 0.1]}, "area", "two rising numbers in (0, 1], is [0.5, 0.1]"),
        ({**RAND_AUGMENT, "area": [0.5]}, "area", "two rising numbers in (0, 1], is [0.5]"),
        ({"name": "random_crop", "side": [0.0, 1.0]}, "side", "two rising numbers in (0, 1], is [0.0, 1.0]"),
        ({"name": "scale_crop", "scale": [], "photometric": False}, "scale", "two rising numbers in (0, inf], is []"),
    ],
    ids=str,
)
def test_a_value_that_no_augmentation_can_use_is_told_before_any_training(tmp_path, augment, key, allowed):
    text = SMALL.replace("augment: {name: flip}", f"augment: {json.dumps(augment)}")
    (told,) = mistakes(tmp_path, text)
    assert told.startswith(f"small.yaml:{line_of(text, 'augment:')}:")
    assert told.endswith(f"train.augment.{key}: {augment['name']}: must be {allowed}")


def test_augmentations_that_can_be_used_are_none_of_them(tmp_path):
    for augment in (RAND_AUGMENT, {"name": "scale_crop", "scale": [1.0, 4.0], "photometric": True}):
        text = SMALL.replace("augment: {name: flip}", f"augment: {json.dumps(augment)}")
        assert mistakes(tmp_path, text) == []
