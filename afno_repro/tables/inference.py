"""What a few numbers say of the mean behind them: Student's t, Welch's t, power, Holm's correction.

Numbers count as independent draws of one normal distribution, as differences between two networks over seeds do. Of a
mean difference d from n of them, with sample standard deviation s, standard error e = s / sqrt(n) and f = n - 1,

    d +- q e                            is the 95% interval, q the 97.5% quantile of Student's t with f (Student 1908),
    p = 2 P(T > |d| / e)                is two-sided: below 0.05 exactly where the interval leaves zero out.

Every test is two-sided in this sense, so that interval, p and verdict never contradict each other. A test of being no
worse asks whether d + margin is above zero; a test of equivalence asks the same of d + margin and of margin - d, whose
smaller one is margin - |d| (two one-sided tests, Schuirmann 1987). Each of these one-sided tests is at 2.5%, as ICH E9
(1998) asks, which is stricter than the 90% interval of two tests at 5%.
"""

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import nctdtr, nctdtrinc, stdtr, stdtrit

LEVEL, POWER = 0.95, 0.80
MOST = 10_000  # seeds beyond which nobody trains


@dataclass(frozen=True)
class Estimate:
    """A mean of n numbers and its standard error, with so many degrees of freedom.

    The error is 0 of what is exact, infinite of a single number.
    """

    mean: float
    error: float
    freedom: float
    n: int

    @property
    def reach(self) -> float:
        """Half the width of the 95% interval."""
        return self.error * quantile(self.freedom) if self.error else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the mean."""
        return self.mean - self.reach, self.mean + self.reach

    def p(self, slack: float) -> float:
        """How probable a distance of at least |slack| is, to either side, where the true one is zero."""
        if self.error == 0:
            return float(slack == 0)
        return 2 * float(stdtr(self.freedom, -abs(slack) / self.error))

    @property
    def detectable(self) -> float:
        """The smallest true distance from zero that n numbers with this spread show with 80% power."""
        return self.error * float(nctdtrinc(self.freedom, 1 - POWER, quantile(self.freedom)))

    def needed(self, *distances: float) -> int | None:
        """How many numbers with this spread show true distances from one edge or from both; None: more than MOST.

        With 80% power; what misses one edge seldom misses the other, so that chances of missing add up.
        """
        effects = [abs(distance) / (self.error * math.sqrt(self.n)) for distance in distances]  # in standard deviations

        def shows(n: int) -> bool:
            return sum(1 - power(effect, n) for effect in effects) <= 1 - POWER

        if not shows(MOST):
            return None
        return bisect_left(range(MOST), True, lo=2, key=shows)


def quantile(freedom: float) -> float:
    """The 97.5% quantile of Student's t."""
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def power(effect: float, n: int) -> float:
    """How often n numbers show an effect in standard deviations to the right side: 1 - P(T' < q), T' noncentral.

    scipy has no number where that is certain, at some of its noncentralities above 35.
    """
    missed = float(nctdtr(n - 1, effect * math.sqrt(n), quantile(n - 1)))
    return 1.0 if math.isnan(missed) and not math.isnan(effect) else 1 - missed


def exactly(value: float) -> Estimate:
    """What has no error, like a count."""
    return Estimate(value, 0.0, math.inf, 1)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of some numbers; one alone says nothing of its error."""
    n = len(values)
    if n == 1:
        return Estimate(values[0], math.inf, 1, 1)
    return Estimate(statistics.fmean(values), statistics.stdev(values) / math.sqrt(n), n - 1, n)


def welch(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """The difference of two means of numbers that are no pairs (Welch 1947); n is the smaller one's."""
    a, b = (statistics.variance(values) / len(values) for values in (ours, theirs))
    freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1)) if a + b else math.inf
    difference = statistics.fmean(ours) - statistics.fmean(theirs)
    return Estimate(difference, math.sqrt(a + b), freedom, min(len(ours), len(theirs)))


def holm(p: Sequence[float]) -> list[float]:
    """p of a family of tests, adjusted so that one of them is below 0.05 by chance at most once in 20 (Holm 1979)."""
    adjusted, largest = [1.0] * len(p), 0.0
    for i, which in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - i) * p[which]))
        adjusted[which] = largest
    return adjusted
