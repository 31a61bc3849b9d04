import math

import pytest

from persona_leakage.pipelines.correlation import correlation


@pytest.mark.parametrize(
    ("one", "other", "rho"),
    [
        ([1, 2, 3, 4, 5], [10, 20, 30, 40, 500], 1.0),
        ([1, 2, 3, 4, 5], [9, 7, 5, 3, 1], -1.0),
        ([1, 2, 3, 4, 5], [1, 3, 2, 5, 4], 0.8),
        ([1, 1, 2, 3], [1, 2, 3, 4], 0.9487),
        ([0, 0, 0, 1], [1, 2, 3, 3], 0.5443),
    ],
)
def test_rho_is_spearmans_with_mean_ranks_for_ties(one, other, rho):
    result = correlation(one, other)

    assert (result.n, result.rho) == (len(one), pytest.approx(rho, abs=5e-5))


@pytest.mark.parametrize(("other", "rho"), [([2, 4, 6, 8, 10], 1.0), ([10, 8, 6, 4, 2], -1.0)])
def test_a_perfect_order_has_an_interval_of_one_point(other, rho):
    result = correlation([1, 2, 3, 4, 5], other)

    assert (result.low, result.high) == pytest.approx((rho, rho))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([], []),
        ([1, 2], [2, 1]),
        ([1, 1, 1, 1], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [5, 5, 5, 5]),
        ([1, math.nan, 3, 4], [1, 2, 3, 4]),
    ],
    ids=["no pairs", "two pairs", "one side constant", "other side constant", "a value not measured"],
)
def test_what_is_undefined_is_nan(one, other):
    result = correlation(one, other)

    assert result.n == len(one)
    assert [math.isnan(value) for value in (result.rho, result.p, result.low, result.high)] == [True] * 4


def test_the_interval_is_reproducible_and_moves_with_the_seed():
    one, other = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [2, 1, 6, 3, 5, 10, 4, 9, 7, 8]

    first = correlation(one, other)

    assert correlation(one, other) == first
    assert correlation(one, other, resamples=50, seed=1)[3:5] != correlation(one, other, resamples=50, seed=2)[3:5]
    assert first.low < first.rho < first.high


def test_p_value_is_that_of_the_t_approximation():
    result = correlation([1, 2, 3, 4, 5], [1, 3, 2, 5, 4])

    assert result.p == pytest.approx(0.1041, abs=5e-5)


def test_resamples_without_variation_are_left_out_of_the_interval():
    result = correlation([0, 0, 0, 0, 1], [0, 0, 0, 0, 1], resamples=200)

    assert (result.rho, result.low, result.high) == pytest.approx((1.0, 1.0, 1.0))
