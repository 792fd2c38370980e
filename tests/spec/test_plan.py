import hashlib
import json
from dataclasses import asdict, replace

import pytest

from afno_repro.backbones import BACKBONES
from afno_repro.config import (
    ADDED,
    RunConfig,
    TrainConfig,
    canonical_json,
    completed,
    config_from_json,
    digest,
    identifying,
)
from afno_repro.data import DATASETS
from afno_repro.data.transforms import AUGMENTS
from afno_repro.errors import ConfigError
from afno_repro.heads import HEADS
from afno_repro.mixers import MIXERS
from afno_repro.options import fits, keywords
from afno_repro.spec.plan import Choice, plan_runs
from afno_repro.spec.reader import load_spec
from tests.specs import ROOT, SMALL, all_specs, write_spec

pytestmark = pytest.mark.fast


@pytest.fixture
def spec(tmp_path):
    return load_spec(write_spec(tmp_path))


def config(spec, row="afno", stage="pretrain", scale="tiny", seed=0, **choice):
    return plan_runs(spec, scale, Choice(**choice)).needs[row, stage, seed].config


def test_spec_then_row_then_scale_then_the_scales_row(tmp_path):
    text = SMALL.replace(
        "tiny: {seeds: [0]}",
        "tiny: {seeds: [0], pretrain: {train: {lr: 2e-3, batch_size: 6}}, "
        "rows: {afno: {pretrain: {train: {lr: 3e-3}}}}}",
    )
    text = text.replace(
        "    paper: {gflops: 0.6", "    pretrain: {train: {lr: 9e-3, epochs: 5}}\n    paper: {gflops: 0.6"
    )
    spec = load_spec(write_spec(tmp_path, text))
    afno, gfn = config(spec).train, config(spec, "gfn").train
    assert (afno.lr, afno.batch_size, afno.epochs) == (3e-3, 6, 5)
    assert (gfn.lr, gfn.batch_size, gfn.epochs) == (2e-3, 6, 3)


def test_costs_come_from_the_papers_own_model_at_every_scale(spec):
    assert config(spec, stage="cost").model.backbone.options["embed_dim"] == 16
    assert config(spec, stage="pretrain").model.backbone.options["embed_dim"] == 8
    assert config(spec, stage="cost") == config(spec, stage="cost", scale="paper")


def test_a_scale_has_its_say_of_a_stage_whose_model_is_the_papers(tmp_path):
    said = "tiny: {seeds: [0], model: {backbone: {depth: 2}}, cost: {data: {image_size: 24}}}"
    spec = load_spec(write_spec(tmp_path, SMALL.replace("tiny: {seeds: [0]}", said)))
    paper, tiny = config(spec, stage="cost", scale="paper"), config(spec, stage="cost")
    assert (paper.data.image_size, tiny.data.image_size) == (16, 24)
    assert replace(tiny, data=paper.data) == paper
    assert config(spec, stage="pretrain").model.backbone.options["depth"] == 2


def test_equal_configs_are_one_run(tmp_path):
    text = SMALL.replace("claims:", "claims: []\nunused:").split("unused:")[0]
    text = text.replace(
        "scales:", "  - key: twin\n    title: [ViT, GFN again]\n    model: {mixer: {name: gfn}}\nscales:"
    )
    plan = plan_runs(load_spec(write_spec(tmp_path, text)), "tiny")
    assert plan.needs["gfn", "pretrain", 0] is not plan.needs["twin", "pretrain", 0]
    assert plan.needs["gfn", "pretrain", 0].digest == plan.needs["twin", "pretrain", 0].digest
    assert len([run for run in plan.runs if run.config.kind == "pretrain"]) == 2


def test_a_row_that_leaves_a_stage_out_has_no_run_for_it(spec):
    assert ("fill_mean", "cost", 0) not in plan_runs(spec, "tiny").needs


def test_profiles_and_baselines_have_one_run_whatever_the_seeds(spec):
    needs = plan_runs(spec, "paper").needs
    assert ("afno", "pretrain", 1) in needs
    assert ("afno", "cost", 1) not in needs
    assert ("fill_mean", "pretrain", 1) not in needs


@pytest.mark.parametrize(("figures", "seeds"), [("", [0, 1, 2]), ("figures: [{name: triptychs, stage: look}]\n", [0])])
def test_what_a_figure_draws_is_of_one_seed_and_a_number_of_all(tmp_path, figures, seeds):
    look = "  look: {kind: visualize, init: pretrain, task: {name: resolution, images: 2, factor: 2}, data: DATA}\n"
    data = next(line.split(": ", 1)[1] for line in SMALL.splitlines() if line.startswith("    data: {name"))
    look = look.replace("DATA", f"{data} train_crops: 24, test_crops: 8, side: [32, 200]}}")
    text = SMALL.replace("columns:\n", f"{look}columns:\n").replace("claims:\n", f"{figures}claims:\n")
    text = text.replace("    cost: null\n", "    cost: null\n    look: null\n")
    needs = plan_runs(
        load_spec(write_spec(tmp_path, text.replace("tiny: {seeds: [0]", "tiny: {seeds: [0, 1, 2]"))), "tiny"
    ).needs
    assert [seed for row, stage, seed in needs if (row, stage) == ("afno", "look")] == seeds
    assert [seed for row, stage, seed in needs if (row, stage) == ("afno", "pretrain")] == [0, 1, 2]


def test_rows_seeds_and_kinds_can_be_chosen(spec):
    needs = plan_runs(spec, "paper", Choice(rows=("afno",), seeds=(1,), kinds=("pretrain",))).needs
    assert list(needs) == [("afno", "pretrain", 1)]


def test_all_seeds_take_the_place_of_the_scales(spec):
    """Those that both have are the same runs: what is finished stays finished."""
    own, more = plan_runs(spec, "paper").needs, plan_runs(spec, "paper", Choice(all_seeds=(0, 1, 2, 3, 4))).needs
    assert [seed for row, stage, seed in more if (row, stage) == ("afno", "pretrain")] == [0, 1, 2, 3, 4]
    assert {need: run.digest for need, run in more.items() if need[2] < 2} == {n: run.digest for n, run in own.items()}
    assert len({run.digest for need, run in more.items() if need[:2] == ("afno", "pretrain")}) == 5
    assert ("afno", "cost", 1) not in more
    some = plan_runs(spec, "paper", Choice(all_seeds=(0, 1, 2, 3, 4), seeds=(4,), rows=("afno",), kinds=("pretrain",)))
    assert list(some.needs) == [("afno", "pretrain", 4)]
    with pytest.raises(ConfigError, match="--seeds 8 makes them 0 to 7"):
        plan_runs(spec, "paper", Choice(seeds=(7,)))


def test_a_change_on_the_command_line_comes_last(spec):
    changes = ("pretrain.train.lr=5e-4", "model.mixer.num_blocks=4")
    changed = config(spec, rows=("afno",), changes=changes)
    assert changed.train.lr == 5e-4
    assert changed.model.mixer.options["num_blocks"] == 4
    assert digest(changed) != digest(config(spec))


@pytest.mark.parametrize("change", ["pretrain.train.lr", "=3", "a..b=1"])
def test_a_change_that_is_no_key_and_value_is_refused(spec, change):
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        plan_runs(spec, "tiny", Choice(changes=(change,)))


def test_a_change_of_an_unknown_key_names_it(spec):
    with pytest.raises(ConfigError, match=r"--set pretrain.train.lrr=1: .*lrr"):
        plan_runs(spec, "tiny", Choice(changes=("pretrain.train.lrr=1",)))


def test_anything_that_changes_a_number_changes_the_digest(spec):
    base = config(spec)
    others = [
        replace(base, seed=1),
        replace(base, train=replace(base.train, weight_decay=0.02)),
        replace(base, train=replace(base.train, augment={"name": "random_crop", "side": [0.5, 1.0]})),
        replace(base, data=replace(base.data, image_size=32)),
        replace(base, task=replace(base.task, options={"walk": {"grid": "pixels", "steps": 16}})),
        replace(
            base,
            model=replace(
                base.model, mixer=replace(base.model.mixer, options={**base.model.mixer.options, "keep": 0.5})
            ),
        ),
    ]
    assert len({digest(each) for each in [base, *others]}) == len(others) + 1


def test_a_config_survives_its_json(spec):
    for stage in ("cost", "pretrain"):
        base = config(spec, stage=stage)
        again = config_from_json(json.loads(canonical_json(base)))
        assert asdict(again) == asdict(base)
        assert digest(again) == digest(base)


def test_no_config_field_has_a_default():
    from dataclasses import MISSING, fields

    from afno_repro.config import DataConfig, ModelConfig, Part, RunConfig, TrainConfig

    for kind in (Part, ModelConfig, DataConfig, TrainConfig, RunConfig):
        assert all(f.default is MISSING and f.default_factory is MISSING for f in fields(kind))


def plain_digest(config):
    """The hash of everything that a config says, less the options that came later."""
    tree = asdict(config)
    parts = {"run": tree, "train": tree["train"], f"data {tree['data']['name']}": tree["data"]["options"]}
    parts |= {f"{kind} {part['name']}": part["options"] for kind, part in (tree["model"] or {}).items() if part}
    parts |= {f"augment {tree['train']['augment']['name']}": tree["train"]["augment"]} if tree["train"] else {}
    for part, option, before in ADDED:
        if part in parts and parts[part] is not None and parts[part][option] == before:
            del parts[part][option]
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def test_options_that_came_later_leave_the_digests_of_runs_that_do_not_use_them():
    for one in all_specs():
        for scale in one.structure.scales:
            for found in plan_runs(one, scale).runs:
                assert digest(found.config) == plain_digest(found.config)


def test_committed_records_have_the_digests_that_they_had():
    found = list((ROOT / "results/reference").glob("*/records/*/*.json"))
    assert found
    for path in found:
        said = json.loads(path.read_text())
        assert digest(config_from_json(said["config"])) == said["digest"], path


TABLES = {"backbone": BACKBONES, "mixer": MIXERS, "head": HEADS, "data": DATASETS, "augment": AUGMENTS}


def test_every_option_that_came_later_is_one_and_its_old_value_fits():
    for part, option, before in ADDED:
        kind, _, name = part.partition(" ")
        constructor = {"run": RunConfig, "train": TrainConfig}.get(kind) or TABLES[kind][name]
        assert fits(before, keywords(constructor)[option]), (part, option)
        assert completed(part, {}) == {of: value for each, of, value in ADDED if each == part}
        assert identifying(part, {option: before}) == {}
        assert completed(part, {option: "else"})[option] == identifying(part, {option: "else"})[option] == "else"
