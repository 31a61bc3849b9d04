"""How strongly counts from one or several runs say that a rate, or the difference of two, lies on one side of a bound.

Completions of one run share its training, so runs differ by more than sampling (in toxicology, the litter effect). Every test
here is a score test of the pooled counts whose statistic is divided by the square root of a `Spread`: how many times more the
runs scatter than sampling alone would have them (quasi-likelihood; Williams 1982, McCullagh & Nelder 1989, section 4.5).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from persona_leakage.domain.rates import Difference, Proportion, difference

LEVEL = 0.05


class Runs(NamedTuple):
    """Hits of n in every run that something was counted in; runs in which nothing was scored are left out."""

    hits: tuple[int, ...]
    n: tuple[int, ...]

    @property
    def pooled(self) -> tuple[int, int]:
        """Hits of n over all runs."""
        return sum(self.hits), sum(self.n)


class Spread(NamedTuple):
    """How far runs scatter.

    Attributes:
        factor: variance between runs over what sampling alone gives, at least 1.
        df: degrees of freedom that it was estimated with; infinite where nothing is repeated and sampling is all that is known.
    """

    factor: float = 1.0
    df: float = math.inf

    @property
    def critical(self) -> float:
        """How many binomial standard errors a 95% interval reaches to either side: 1.96 where nothing is repeated."""
        from scipy.stats import t

        return float(t.isf(LEVEL / 2, self.df)) * math.sqrt(self.factor)


class Tails(NamedTuple):
    """One-sided p values.

    Attributes:
        below: of the hypothesis that the quantity is at the bound or above; small where it lies below.
        above: of the hypothesis that it is at the bound or below.
    """

    below: float
    above: float


def spread_between(*groups: Runs) -> Spread:
    """Estimate from repeated runs how far they scatter: Pearson's chi-squared within groups over its degrees of freedom.

    Groups at 0 or 1 cannot show any scatter, and say nothing of that of others; among themselves they have the factor 1.

    Args:
        *groups: runs of the same, which differ by training and sampling only.
    """
    repeated = [group for group in groups if len(group.n) > 1]
    varied = [group for group in repeated if 0 < group.pooled[0] < group.pooled[1]]
    chi, df = 0.0, sum(len(group.n) - 1 for group in varied or repeated)
    for group in varied:
        hits, n = np.array(group.hits), np.array(group.n)
        rate = hits.sum() / n.sum()
        chi += float((n * (hits / n - rate) ** 2).sum() / (rate * (1 - rate)))
    return Spread(max(1.0, chi / df), df) if df else Spread()


def spread_along(*courses: Runs) -> Spread:
    """Estimate from courses of runs, each run its own training, how far they scatter about their course.

    What is slow in a course drops out, since only neighbours are compared: the mean squared successive difference over what
    sampling alone gives (von Neumann 1941, who also has its degrees of freedom). Courses that stay at 0 or 1 show nothing.
    """
    ratios: list[float] = []
    df = 0.0
    for course in courses:
        hits, n = np.array(course.hits), np.array(course.n)
        if (steps := len(n) - 1) < 1 or hits.sum() in (0, n.sum()):
            continue
        rate = (hits[1:] + hits[:-1]) / (n[1:] + n[:-1])
        sampled = rate * (1 - rate) * (1 / n[1:] + 1 / n[:-1])
        ratios += list(np.divide(np.diff(hits / n) ** 2, sampled, out=np.zeros(steps), where=sampled > 0))
        df += 2 * steps**2 / (3 * steps - 1)
    return Spread(max(1.0, float(np.mean(ratios))), df) if ratios else Spread()


def spread_of(courses: Sequence[Sequence[Runs]]) -> Spread:
    """Estimate how far the runs of courses scatter: from repeated runs or from the courses themselves, which say more.

    Args:
        courses: step by step the runs of each. The first step, from which a course often leaps, is no part of the scatter.
    """
    later = [[step.pooled for step in course[1:] if step.n] for course in courses]
    found = [
        spread_between(*(step for course in courses for step in course)),
        spread_along(*(Runs(*zip(*steps, strict=True)) for steps in later if steps)),
    ]
    known = [one for one in found if one.df < math.inf]
    return max(known, key=lambda one: one.df) if known else Spread()


def spread_among(shared: Spread, *own: Runs) -> Spread:
    """Estimate how far the runs of a cell scatter from those of all cells, since two or three runs alone hardly tell.

    Where the cell's own runs scatter more than those of all, the factor is theirs, for cells need not scatter alike.

    Args:
        shared: of all cells, see `spread_between`.
        *own: runs of the cell, or of the two that are compared.
    """
    return shared._replace(factor=max(shared.factor, *(spread_between(runs).factor for runs in own)))


def interval_of(runs: Runs, spread: Spread) -> Proportion:
    """Compute the pooled rate with its 95% interval: Wilson's, as wide as the spread of runs asks."""
    hits, n = runs.pooled
    if not n:
        return Proportion(0, 0, math.nan, math.nan, math.nan)
    squared = spread.critical**2
    centre = (hits + squared / 2) / (n + squared)
    half = math.sqrt(squared * (hits * (n - hits) / n + squared / 4)) / (n + squared)
    return Proportion(hits, n, hits / n, min(max(0.0, centre - half), hits / n), max(min(1.0, centre + half), hits / n))


def rate_tails(runs: Runs, bound: float, spread: Spread) -> Tails:
    """Test a rate against a bound between 0 and 1, given how far runs scatter.

    Each p is the larger of two: the score test's, which belongs to `interval_of`, and the exact binomial one of the pooled
    counts, since the former is too sure of a few hits where none are expected.
    """
    from scipy.stats import binom, t

    hits, n = runs.pooled
    if not n:
        return Tails(1.0, 1.0)
    statistic = (hits / n - bound) / math.sqrt(bound * (1 - bound) / n * spread.factor)
    below, above = float(t.cdf(statistic, spread.df)), float(t.sf(statistic, spread.df))
    return Tails(max(below, float(binom.cdf(hits, n, bound))), max(above, float(binom.sf(hits - 1, n, bound))))


def difference_tails(one: Runs, other: Runs, bound: float, spread: Spread) -> Tails:
    """Test the difference `one - other` of two rates against a bound between -1 and 1 (Miettinen & Nurminen 1985).

    Args:
        one: runs of the first rate.
        other: runs of the second.
        bound: of the difference.
        spread: of runs.
    """
    from scipy.stats import t

    (hits, n), (others, m) = one.pooled, other.pooled
    if not (n and m):
        return Tails(1.0, 1.0)
    if bound == 0 and hits + others in (0, n + m):  # both rates are 0, or both 1
        return Tails(0.5, 0.5)
    lower = _likeliest(hits, n, others, m, bound)
    variance = ((lower + bound) * (1 - lower - bound) / n + lower * (1 - lower) / m) * (n + m) / (n + m - 1)
    statistic = (hits / n - others / m - bound) / math.sqrt(variance * spread.factor)
    return Tails(float(t.cdf(statistic, spread.df)), float(t.sf(statistic, spread.df)))


def _likeliest(hits: int, n: int, others: int, m: int, bound: float) -> float:
    """Find the second rate that is likeliest if the first is greater by just the bound.

    The closed form of statsmodels 0.14 departs from it, and is NaN for some counts.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import xlog1py, xlogy

    def surprise(rate: float) -> float:
        raised = rate + bound
        return float(-xlogy(hits, raised) - xlog1py(n - hits, -raised) - xlogy(others, rate) - xlog1py(m - others, -rate))

    span = max(0.0, -bound), min(1.0, 1 - bound)
    return float(minimize_scalar(surprise, bounds=span, method="bounded", options={"xatol": 1e-10}).x)


def difference_interval(one: Runs, other: Runs, spread: Spread) -> Difference:
    """Compute the difference of two pooled rates with Newcombe's 95% interval, as wide as the spread of runs asks."""
    return difference(interval_of(one, spread), interval_of(other, spread))


def trend_p(course: Runs, places: Sequence[float], spread: Spread) -> float:
    """Test whether a rate rises or falls along a course (Cochran 1954, Armitage 1955): two-sided p; NaN where it never varies.

    Args:
        course: runs in order.
        places: where each lies, such as its epoch.
        spread: of runs.
    """
    from scipy.stats import t
    from statsmodels.stats.contingency_tables import Table

    hits, n = np.array(course.hits), np.array(course.n)
    if not 0 < hits.sum() < n.sum():
        return math.nan
    table = Table(np.column_stack([hits, n - hits]), shift_zeros=False)
    found = table.test_ordinal_association(np.array(places, dtype=float), np.array([1.0, 0.0]))
    return float(2 * t.sf(abs(found.zscore) / math.sqrt(spread.factor), spread.df))


def at_least(p_values: Sequence[float], count: int) -> float:
    """Combine p values into one that at least so many of their hypotheses are false (Benjamini & Heller 2008).

    With `count` 1 it is Bonferroni's, the first step of Holm's; with all of them the largest p, of an intersection-union test.
    """
    return min(1.0, (len(p_values) - count + 1) * sorted(p_values)[count - 1])


def holm(p_values: pd.Series) -> pd.Series:
    """Adjust p values for their number (Holm 1979), on the same index; an unknown one stays so and counts as a further one."""
    from statsmodels.stats.multitest import multipletests

    if p_values.empty:
        return p_values.astype(float)
    adjusted = multipletests(p_values.astype(float).fillna(1), method="holm")[1]
    return pd.Series(adjusted, p_values.index).where(p_values.notna())
