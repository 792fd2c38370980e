import math

import numpy as np
import pytest
import yaml

from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError
from afno_repro.profiling.growth import Growth, growth
from afno_repro.runs.check import check_runs
from afno_repro.spec.plan import Choice, plan_runs
from afno_repro.spec.reader import load_spec
from tests.specs import ROOT

SIZES = [16, 32, 64, 128]  # pixels, 4 to 32 tokens a side
DIM = 24


def grown(mixer, depth=1):
    backbone = Part("vit", {"patch_size": 4, "embed_dim": DIM, "depth": depth, "mlp_ratio": 4, "skips": 2})
    return growth(ModelConfig(backbone, mixer, Part("inpainting", {})), SIZES[0], Growth(len(SIZES) - 1))


def fitted(cost):
    """The power of the number of tokens in a cost of so many tokens a side, by NumPy."""
    sides = np.array(SIZES) // 4
    return np.polyfit(np.log(sides**2.0), np.log([float(cost(int(side))) for side in sides]), 1)[0]


def modes(side):
    return side * (side // 2 + 1)


def transforms(side):
    """Floating-point operations of a real transform and its inverse, a channel."""
    n, m = side**2, modes(side)
    return 2.5 * n * math.log2(n) + 2.5 * n * math.log2(side) + 5 * m * math.log2(side)


@pytest.mark.fast
def test_self_attention_grows_as_its_closed_form_keeps_no_scores_and_its_weights_do_not_grow():
    got = grown(Part("self_attention", {"num_heads": 4}))
    assert got["flops_growth"] == pytest.approx(fitted(lambda s: 8 * s**2 * DIM**2 + 4 * s**4 * DIM))
    assert got["memory_growth"] == pytest.approx(1.0)  # queries, keys, values and what they give, a token each
    assert got["params_growth"] == 0.0


def test_the_filter_of_gfn_grows_with_its_modes():
    got = grown(Part("gfn", {"init_std": 0.02}))
    assert got["flops_growth"] == pytest.approx(fitted(lambda s: DIM * (transforms(s) + 6 * modes(s))))
    assert got["params_growth"] == pytest.approx(fitted(modes))
    assert got["memory_growth"] == pytest.approx(fitted(modes))  # the spectrum alone


@pytest.mark.parametrize("depth", [1, 3])
def test_afno_grows_as_its_closed_form_and_its_weights_do_not(depth):
    options = {"num_blocks": 3, "sparsity_threshold": 0.01, "keep": 1.0, "bias": "identity", "init_std": 0.02}
    got = grown(Part("afno", options), depth)
    layer = fitted(lambda s: DIM * transforms(s) + 16 * modes(s) * DIM**2 / 3 + 16 * modes(s) * DIM)
    assert got["flops_growth"] == pytest.approx(layer)
    assert got["memory_growth"] == pytest.approx(fitted(modes))
    assert got["params_growth"] == 0.0


def test_what_table_1_calls_quasi_linear_is_what_n_log_n_fits_as_over_its_own_grids():
    spec = yaml.safe_load((ROOT / "experiments" / "table1.yaml").read_text())
    stage = spec["stages"]["growth"]
    first = stage["data"]["image_size"] // spec["model"]["backbone"]["patch_size"]
    tokens = np.array([(first * 2**k) ** 2.0 for k in range(stage["task"]["doublings"] + 1)])
    bound = next(claim["below"] for claim in spec["claims"] if claim["column"] == "flops_growth")
    assert bound == round(np.polyfit(np.log(tokens), np.log(tokens * np.log(tokens)), 1)[0], 3)


@pytest.mark.parametrize(("doublings", "sound"), [(10, True), (11, False), (10**18, False)])
def test_sizes_beyond_any_network_s_are_told_before_any_work(doublings, sound):
    choice = Choice(rows=("self_attention",), changes=(f"growth.task.doublings={doublings}",))
    plan = plan_runs(load_spec(ROOT / "experiments" / "table1.yaml"), "tiny", choice)
    told = [problem.message for problem in check_runs(plan, list(plan.runs))]
    assert told == ([] if sound else [f"{doublings} make images of more than 65536 pixels a side"])


def test_one_size_tells_no_growth():
    with pytest.raises(ConfigError, match="growth: must be at least 1, is 0"):
        Growth(0)
