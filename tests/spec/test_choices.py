"""The specs that test Table 2's claims under other choices: they change those choices, and nothing else."""

import pytest

from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.specs import ROOT

TABLE2, RESIDUALS, CHOICES, SEARCH = (
    load_spec(ROOT / "experiments" / f"{name}.yaml") for name in ("table2", "residuals", "choices", "search")
)
MIXERS = ("self_attention", "long_short", "gfn", "afno")


def trained(spec, scale, row):
    return plan_runs(spec, scale).needs[row, "pretrain", 0]


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_rows_with_two_residuals_are_table_2_s_own_runs(scale, mixer):
    assert trained(RESIDUALS, scale, f"{mixer}_two").digest == trained(TABLE2, scale, mixer).digest


@pytest.mark.parametrize("mixer", MIXERS)
def test_rows_as_in_table_2_are_its_own_runs(mixer):
    assert trained(CHOICES, "tiny", mixer).digest == trained(TABLE2, "tiny", mixer).digest


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
@pytest.mark.parametrize("mixer", [*MIXERS, "afno_identity", "afno_none"])
def test_one_residual_is_all_that_differs(scale, mixer):
    two, one = (trained(RESIDUALS, scale, f"{mixer}_{number}").config for number in ("two", "one"))
    assert (two.model.backbone.options["skips"], one.model.backbone.options["skips"]) == (2, 1)
    assert one.model.backbone.options | {"skips": 2} == two.model.backbone.options
    assert (one.model.mixer, one.train, one.data, one.task) == (two.model.mixer, two.train, two.data, two.task)


def leaves(tree, key=""):
    if not isinstance(tree, dict):
        return {key: tree}
    return {name: value for part, each in tree.items() for name, value in leaves(each, f"{key}.{part}").items()}


def options(run):
    model = run.config.model
    return leaves({"backbone": model.backbone.options, "mixer": model.mixer.options, "train": vars(run.config.train)})


def test_each_other_choice_differs_from_table_2_in_one_thing():
    for row in CHOICES.rows:
        mixer = next((each for each in MIXERS if row.key.startswith(each)), None)
        if mixer is None or row.key == mixer:
            continue
        ours, theirs = options(trained(CHOICES, "tiny", row.key)), options(trained(TABLE2, "tiny", mixer))
        assert len({key for key in ours | theirs if ours.get(key) != theirs.get(key)}) == 1, row.key


@pytest.mark.parametrize("spec", [RESIDUALS, CHOICES], ids=lambda spec: spec.name)
def test_claims_are_table_2_s_sentences_with_its_columns_and_margins(spec):
    own = {claim.claim: claim for claim in TABLE2.structure.claims}
    for claim in spec.structure.claims:
        assert claim.column == own[claim.claim].column
        assert (claim.where, type(claim)) == (own[claim.claim].where, type(own[claim.claim]))
        margins = getattr(own[claim.claim], "margin", {})
        assert getattr(claim, "margin", {}) == {scale: margins[scale] for scale in spec.structure.scales if margins}


def test_every_mixer_has_as_many_settings_to_choose_from_and_none_sees_the_validation_images():
    rows = [row.key for row in SEARCH.rows]
    assert {sum(key.startswith(mixer) for key in rows) for mixer in MIXERS} == {3}
    assert all(run.config.data.options["tuning"] == 9 for run in plan_runs(SEARCH, "small").runs if run.stage != "cost")
