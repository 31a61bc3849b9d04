"""Spearman and Pearson with a permutation p, against scipy and against counting."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from persona_leakage.pipelines.correlation import correlation


def pairs(n, seed, levels=6):
    """Draw related pairs with ties in both sides."""
    random = np.random.default_rng(seed)
    x = random.integers(levels, size=n).astype(float)
    return x.tolist(), np.round(x + random.normal(0, 2, n)).tolist()


def counted(one, other):
    """Count every reordering whose rho is at least as far from 0."""
    observed = abs(spearmanr(one, other).statistic)
    every = list(permutations(other))
    return sum(abs(spearmanr(one, order).statistic) >= observed - 1e-9 for order in every) / len(every)


@pytest.mark.parametrize(("n", "seed"), [(9, 0), (12, 1), (40, 2), (110, 3)])
def test_coefficients_and_p_values_are_those_of_scipy_with_ties(n, seed):
    one, other = pairs(n, seed)

    result = correlation(one, other)

    assert result.n == n
    assert (result.rho, result.p) == pytest.approx(tuple(spearmanr(one, other)))
    assert (result.r, result.r_p) == pytest.approx(tuple(pearsonr(one, other)))


@pytest.mark.parametrize(("n", "seed"), [(3, 0), (4, 1), (5, 2), (6, 3), (6, 9)])
def test_up_to_eight_pairs_the_permutation_p_is_exact(n, seed):
    one, other = pairs(n, seed)

    assert correlation(one, other).permutation_p == pytest.approx(counted(one, other))


def test_eight_pairs_are_still_exact_and_nine_are_not():
    order = list(range(8))

    assert correlation(order, order).permutation_p == pytest.approx(2 / math.factorial(8))
    assert correlation([*order, 8], [*order, 8], resamples=99).permutation_p == pytest.approx(1 / 100)


@pytest.mark.parametrize(("strength", "seed"), [(0.0, 0), (0.3, 1), (0.45, 4)])
def test_the_random_permutation_p_is_near_the_analytic_one(strength, seed):
    random = np.random.default_rng(seed)
    one = random.normal(size=30)
    other = strength * one + random.normal(size=30)

    result = correlation(one, other, resamples=4000)

    assert result.permutation_p == pytest.approx(result.p, abs=0.025)
    assert result.permutation_p == correlation(one, other, resamples=4000).permutation_p


def test_the_permutation_p_is_two_sided():
    one, other = [1, 2, 3, 4, 5], [1, 2, 3, 5, 4]

    assert correlation(one, other).permutation_p == correlation(one, other[::-1]).permutation_p


def test_a_permutation_p_is_never_zero():
    assert correlation(range(50), range(50), resamples=100).permutation_p == pytest.approx(1 / 101)


def test_ties_and_zeros_of_the_first_side_are_counted():
    result = correlation([0, 0, 0, 0.2, 0.2, 0.5, 1], [1, 1, 1, 1, 0, 0, 0.5])

    assert (result.tied, result.at_zero) == (5, 3)
    assert correlation([1, 2, 3], [0, 0, 1])[-3:-1] == (0, 0)


def test_intervals_hold_the_estimates_and_change_with_the_scale_for_pearson_alone():
    one, other = pairs(40, 2)
    stretched = np.exp(np.asarray(one)).tolist()

    plain, curved = correlation(one, other), correlation(stretched, other)

    assert plain.low < plain.rho < plain.high
    assert plain.r_low < plain.r < plain.r_high
    assert plain[:6] == curved[:6]
    assert plain.r != curved.r
    assert plain.r_low != plain.low


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        ([], [], (0, 0)),
        ([0], [1], (0, 1)),
        ([0, 1], [2, 1], (0, 1)),
        ([0, 0, 0, 0], [1, 2, 3, 4], (4, 4)),
        ([0, 1, 1, 4], [5, 5, 5, 5], (2, 1)),
        ([0, math.nan, 3, 4], [1, 2, 3, 4], (0, 1)),
        ([1, 2, 3, 4], [1, 2, math.nan, 4], (0, 0)),
    ],
    ids=["no pairs", "one", "two", "first constant", "second constant", "first not measured", "second not measured"],
)
def test_what_is_undefined_is_nan_and_its_counts_are_not(one, other, counts):
    result = correlation(one, other)

    assert result.n == len(one)
    assert [math.isnan(value) for value in result[1:-3]] == [True] * 9
    assert (result.tied, result.at_zero) == counts
