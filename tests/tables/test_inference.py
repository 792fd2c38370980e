"""Student's t, Welch's, power and Holm's correction against scipy's own tests and published numbers."""

import numpy as np
import pytest
from scipy.stats import nct, t, ttest_1samp, ttest_ind

from afno_repro.tables.inference import Estimate, estimate, exactly, holm, power, welch

pytestmark = pytest.mark.fast
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_interval_and_p_are_those_of_scipys_t_test(n):
    values = RNG.normal(0.3, 2.0, n)
    found, theirs = estimate(list(values)), ttest_1samp(values, 0.0)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.p(found.mean) == pytest.approx(theirs.pvalue)
    assert found.p(found.mean - 1.0) == pytest.approx(ttest_1samp(values, 1.0).pvalue)
    assert (found.n, found.freedom) == (n, n - 1)


def test_students_sleep_data_have_the_interval_and_p_that_r_prints():
    """Hours of sleep gained by two drugs, in pairs (Student 1908): t 4.0621, p 0.002833 in R's page on t.test."""
    dextro = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    laevo = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = estimate([b - a for a, b in zip(dextro, laevo, strict=True)])
    assert found.mean / found.error == pytest.approx(4.0621, abs=5e-5)
    assert found.p(found.mean) == pytest.approx(0.002833, abs=5e-7)
    assert found.interval == pytest.approx((0.7001142, 2.4598858), abs=5e-8)


@pytest.mark.parametrize(("m", "n"), [(3, 3), (5, 5), (2, 7)])
def test_what_is_no_pairs_has_welchs_interval(m, n):
    ours, theirs = RNG.normal(1.0, 0.1, m), RNG.normal(1.2, 3.0, n)
    found, test = welch(list(ours), list(theirs)), ttest_ind(ours, theirs, equal_var=False)
    assert found.interval == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert (found.p(found.mean), found.freedom) == (pytest.approx(test.pvalue), pytest.approx(test.df))


def test_one_number_has_no_interval_and_a_count_no_error():
    assert estimate([3.0]).interval == (-np.inf, np.inf)
    assert exactly(3.0).interval == (3.0, 3.0)
    assert (exactly(3.0).p(3.0), exactly(0.0).p(0.0)) == (0.0, 1.0)
    assert welch([1.0, 1.0], [2.0, 2.0]).interval == (-1.0, -1.0)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_detectable_effect_is_shown_four_times_in_five(n):
    found = Estimate(0.0, 0.7, n - 1, n)
    assert nct.sf(t.ppf(0.975, n - 1), n - 1, found.detectable / 0.7) == pytest.approx(0.8, abs=1e-6)
    draws = np.random.default_rng(n).normal(found.detectable, 0.7 * n**0.5, (40_000, n))
    test = ttest_1samp(draws, 0.0, axis=1)
    assert ((test.pvalue < 0.05) & (test.statistic > 0)).mean() == pytest.approx(0.8, abs=0.01)


def test_the_needed_number_is_the_textbooks():
    """Cohen (1988), tables for the t test of one mean: a medium effect of half a standard deviation needs 34."""
    assert Estimate(0.5, 1 / 5**0.5, 4, 5).needed(0.5) == 34
    assert Estimate(0.5, 1 / 5**0.5, 4, 5).needed(-0.5) == 34  # whichever side
    assert Estimate(0.5, 1.0, 4, 5).needed(0.0) is None
    assert Estimate(9.0, 1e-3, 2, 3).needed(9.0) == 2


def test_every_effect_needs_about_as_many_as_of_the_normal_distribution():
    """(1.960 + 0.842)^2 / d^2 where the standard deviation is known, up to 4 more where it is not (Guenther 1981)."""
    for effect in RNG.uniform(0.05, 2.5, 1500):
        wanted = (1.95996 + 0.84162) ** 2 / effect**2
        assert wanted < Estimate(effect, 1 / 3**0.5, 2, 3).needed(effect) < wanted + 4, effect


def test_a_distance_that_is_no_number_needs_none():
    assert Estimate(9.0, 1e-3, 2, 3).needed(float("nan")) is None


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_an_equivalence_needs_as_many_as_show_both_of_its_edges_four_times_in_five(mean):
    n = Estimate(mean, 1 / 3**0.5, 2, 3).needed(1 - mean, 1 + mean)
    assert n is not None
    draws = np.random.default_rng(n).normal(mean, 1.0, (40_000, n))
    low, high = ttest_1samp(draws, 0.0, axis=1).confidence_interval(0.95)
    assert ((low > -1) & (high < 1)).mean() == pytest.approx(0.8, abs=0.05)


def test_more_than_anybody_trains_is_no_number():
    found = Estimate(1.0, 1.0, 2, 3)
    assert found.needed(3**0.5 * 0.0283) == pytest.approx(9802, rel=0.01)  # (1.960 + 0.842)^2 / 0.0283^2
    assert found.needed(3**0.5 * 0.0279) is None  # 10,086


@pytest.mark.parametrize(("effect", "n"), [(0.5, 3), (2.0, 5), (0.1, 400)])
def test_power_is_that_of_the_noncentral_t(effect, n):
    assert power(effect, n) == pytest.approx(nct.sf(t.ppf(0.975, n - 1), n - 1, effect * n**0.5), abs=1e-9)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Wikipedia, Holm-Bonferroni method, Example
        ([0.5, 0.003, 0.32, 0.054, 0.0003], [0.64, 0.012, 0.64, 0.162, 0.0015]),  # the manual of pingouin (Vallat 2018)
        ([0.001, 0.8, 0.9], [0.003, 1.0, 1.0]),
        ([0.2, 0.01, 0.2], [0.4, 0.03, 0.4]),
        ([], []),
    ],
)
def test_holms_correction(p, adjusted):
    assert holm(p) == pytest.approx(adjusted)
