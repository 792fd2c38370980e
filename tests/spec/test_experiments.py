"""What the committed specs say, held to each other and to the paper."""

import itertools
import re

import pytest
import torch

from afno_repro.models import build_model
from afno_repro.spec.plan import plan_runs
from afno_repro.tables.claims import sides
from tests.specs import all_specs

SPECS = {spec.name: spec for spec in all_specs()}
TRAINED = ("table2", "table3", "table4", "table5", "table6", "fig1", "fig5")
AT_ALL = ["smoke", "tiny", "small", "paper"]


def run(table, row, stage, scale="paper", seed=0):
    return plan_runs(SPECS[table], scale).needs[row, stage, seed]


def params(table, scale, row, stage):
    config = run(table, row, stage, scale).config
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(config.model, config.data.image_size).parameters())


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("row", ["self_attention", "long_short", "gfn", "afno"])
def test_few_shot_starts_from_table_2_s_networks(scale, row):
    parent = run("table3", row, "celeba_faces", scale).parent
    assert parent.digest == run("table2", row, "pretrain", scale).digest


@pytest.mark.parametrize("scale", ["tiny", "paper"])
@pytest.mark.parametrize(
    ("ours", "theirs"), [("esa_b3", "efficient_self_attention"), ("gfn_b3", "gfn"), ("afno_b3", "afno_100")]
)
def test_figure_1_s_largest_networks_are_table_4_s(scale, ours, theirs):
    assert run("fig1", ours, "finetune", scale).digest == run("table4", theirs, "finetune", scale).digest


@pytest.mark.parametrize("scale", ["smoke", "tiny", "paper"])
def test_the_threshold_of_table_6_is_a_point_of_figure_4(scale):
    for stage in ("pretrain", "celeba_faces"):
        assert run("fig4_sparsity", "lambda_0.01", stage, scale).digest == run("table6", "afno", stage, scale).digest


@pytest.mark.parametrize("scale", ["smoke", "tiny", "paper"])
def test_afno_25_pretrains_with_all_modes_and_keeps_half_of_each_axis_afterwards(scale):
    finetuned = run("table4", "afno_25", "finetune", scale)
    assert finetuned.config.model.mixer.options["keep"] == 0.5
    assert finetuned.parent.config.model.mixer.options["keep"] == 1.0
    assert finetuned.parent.digest == run("table4", "afno_100", "pretrain", scale).digest


def test_what_is_trained_from_scratch_differs_in_nothing_else():
    for scale in AT_ALL:
        plan = plan_runs(SPECS["table3"], scale)
        for (row, stage, seed), found in plan.needs.items():
            if stage.endswith("_scratch"):
                tuned = plan.needs[row, stage.removesuffix("_scratch"), seed].config
                assert found.parent is None
                assert (found.config.task, found.config.model, found.config.data, found.config.train) == (
                    tuned.task,
                    tuned.model,
                    tuned.data,
                    tuned.train,
                )


@pytest.mark.parametrize(("scale", "stage"), [("paper", "cost"), ("tiny", "pretrain")])
def test_block_counts_are_compared_at_equal_parameters(scale, stage):
    sizes = [params("fig4_blocks", scale, row.key, stage) for row in SPECS["fig4_blocks"].rows if row.model]
    middle = (max(sizes) + min(sizes)) / 2
    assert max(abs(size / middle - 1) for size in sizes) < 0.05


@pytest.mark.parametrize(
    ("table", "stage"),
    [(f"table{number}", "pretrain") for number in range(2, 7)],
)
def test_rows_of_a_tiny_table_have_equal_parameters(table, stage):
    rows = [
        row.key
        for row in SPECS[table].rows
        if (row.key, stage, 0) in plan_runs(SPECS[table], "tiny").needs and row.model
    ]
    sizes = [params(table, "tiny", row, stage) for row in rows]
    middle = (max(sizes) + min(sizes)) / 2
    assert max(abs(size / middle - 1) for size in sizes) < 0.08


def test_sizes_that_assumptions_tell_are_those_of_the_networks_trained():
    """Millions of parameters, over all rows that train, of the specs whose costs are of other networks."""
    told = set()
    for name, spec in SPECS.items():
        (text,) = [each.choice for each in spec.structure.assumptions if each.key == "scales"] or [""]
        for low, high, scale in re.findall(r"of (\d\.\d+) to (\d\.\d+)(?: million parameters)? at (\w+)", text):
            needs = plan_runs(spec, scale).needs
            rows = {row for (row, stage, _), run in needs.items() if stage == "pretrain" and run.config.model}
            sizes = [params(name, scale, row, "pretrain") / 1e6 for row in rows]
            digits = len(low) - 2
            assert (low, high) == (f"{min(sizes):.{digits}f}", f"{max(sizes):.{digits}f}"), (name, scale)
            told.add((name, scale))
    assert {name for name, scale in told if scale == "tiny"} == {*TRAINED}


@pytest.mark.parametrize(
    ("scale", "stages"),
    [("small", set()), ("paper", set()), ("tiny", {"pretrain", "finetune"}), ("smoke", {"pretrain", "finetune"})],
)
def test_self_attention_is_trained_on_streets_where_it_can_be(scale, stages):
    found = {stage for row, stage, _ in plan_runs(SPECS["table4"], scale).needs if row == "self_attention"}
    assert found - {"cost", "pretrained_cost", "overlays"} == stages


def test_no_test_mosaic_is_cut_from_a_half_that_is_trained_on_with_labels():
    for spec in SPECS.values():
        for scale in ("smoke", "tiny"):
            for found in plan_runs(spec, scale).runs:
                if found.config.data.name == "textures" and found.config.task.name == "segmentation":
                    assert len(found.config.data.options["textures"]) == found.config.task.options["num_classes"]


def test_recipes_are_the_paper_s():
    inpainting, afno = (
        run("table2", "self_attention", "pretrain").config.train,
        run("table2", "afno", "pretrain").config.train,
    )
    assert (inpainting.lr, afno.lr, afno.min_lr, afno.epochs, afno.weight_decay, afno.clip_norm) == (
        1e-4,
        1e-3,
        1e-5,
        100,
        0.01,
        1.0,
    )
    few = run("table3", "afno", "celeba_faces").config.train
    assert (few.epochs, few.eval_every, few.lr, few.weight_decay, few.clip_norm) == (2000, 100, 1e-3, 0.0, None)
    assert run("table3", "self_attention", "ade_cars").config.train.lr == 1e-4
    names = run("table5", "afno", "pretrain").config.train
    assert (names.epochs, names.warmup, names.lr, names.weight_decay) == (
        300,
        {"epochs": 5},
        names.batch_size / 512 * 5e-4,
        0.05,
    )
    streets = run("table4", "afno_100", "finetune")
    assert (streets.config.train.epochs, streets.config.train.lr, streets.config.data.image_size) == (450, 1.2e-4, 1024)
    assert streets.parent.config.train.warmup == {"steps": 6250}
    assert streets.parent.config.train.batch_size == 1024


def test_weight_decay_spares_at_paper_scale_what_the_named_recipes_exempt():
    gfn, segformer = "all_but_vectors_and_positions", "all_but_norms_biases_and_positions"
    recipes = {("table4", "pretrain"): gfn, ("table4", "finetune"): segformer, ("table5", "pretrain"): gfn}
    recipes |= {("fig1", "pretrain"): gfn, ("fig1", "finetune"): segformer}
    for table, spec in SPECS.items():
        for scale in AT_ALL:
            for (_, stage, _), found in plan_runs(spec, scale).needs.items():
                expected = recipes.get((table, stage), "all") if scale == "paper" else "all"
                assert found.config.train is None or found.config.train.decay == expected


def test_segformer_drops_paths_at_paper_scale_and_swin_as_its_rows_say():
    for table in ("table4", "fig1"):
        for scale in AT_ALL:
            for found in plan_runs(SPECS[table], scale).needs.values():
                if found.config.train and found.config.model.backbone.name == "segformer":
                    assert found.config.model.backbone.options["drop_path"] == (0.1 if scale == "paper" else 0.0)
    swins = [("swin_tiny", 0.2), ("swin_base", 0.5)]
    for row, rate in swins:
        for stage in ("pretrain", "finetune"):
            assert run("fig1", row, stage).config.model.backbone.options["drop_path"] == rate


def test_what_is_evaluated_is_resized_as_training_images_are():
    for spec in SPECS.values():
        for found in plan_runs(spec, "paper").runs:
            if found.config.kind == "pretrain" and found.config.data.name == "imagenet":
                bicubic = found.config.train.augment["name"] == "rand_augment"
                assert found.config.data.options["interpolation"] == ("bicubic" if bicubic else "bilinear")


def test_linear_layers_start_as_in_their_origins_at_paper_scale_alone():
    for spec in SPECS.values():
        for scale in AT_ALL:
            for (_, _, _), found in plan_runs(spec, scale).needs.items():
                if found.config.kind in ("pretrain", "finetune") and found.parent is None:
                    parts = found.config.model.backbone, found.config.model.head
                    said = {part.options["linear_std"] for part in parts if "linear_std" in part.options}
                    assert said <= {0.02 if scale == "paper" else None}


def test_all_rows_of_a_table_have_as_many_residuals_as_the_network_that_the_paper_names():
    named = dict.fromkeys(["table2", "table3", "table6", "fig4_blocks", "fig4_sparsity", "fig5", "fig6"], 2)
    for table, skips in {**named, "table5": 1}.items():
        for scale in AT_ALL:
            models = [found.config.model for found in plan_runs(SPECS[table], scale).runs]
            assert {model.backbone.options["skips"] for model in models if model} <= {skips}
            assert scale == "small" or models
        assert "model.backbone.skips" in {assumption.key for assumption in SPECS[table].structure.assumptions}


def test_a_spec_of_other_choices_repeats_claims_of_the_spec_that_it_names_with_one_row_for_each_row():
    for spec in SPECS.values():
        if of := spec.structure.choices_of:
            said = {claim.claim: claim for claim in SPECS[of].structure.claims}
            instead = {}  # the choice and the other spec's row -> the rows that stand for it here
            for claim in spec.structure.claims:
                theirs = said[claim.claim]
                rows = [
                    pair
                    for here, there in zip(sides(claim), sides(theirs), strict=True)
                    for pair in zip(here, there, strict=True)
                ]
                for here, there in rows:
                    instead.setdefault((claim.under, there), set()).add(here)
                assert type(claim) is type(theirs)
                assert (claim.where, claim.column) == (theirs.where, theirs.column)
                assert getattr(claim, "by", None) == getattr(theirs, "by", None)
                margins = getattr(claim, "margin", {})
                assert margins.items() <= getattr(theirs, "margin", {}).items()
            assert all(len(rows) == 1 for rows in instead.values()), spec.name
            columns = {column.key for column in spec.structure.columns}
            for choice in {claim.under for claim in spec.structure.claims}:
                other = {there for (under, there), here in instead.items() if under == choice and here != {there}}
                tested = [claim.claim for claim in spec.structure.claims if claim.under == choice]
                assert sorted(tested) == sorted(
                    claim.claim
                    for claim in said.values()
                    if set(claim.column) <= columns and other & set(itertools.chain(*sides(claim)))
                )
