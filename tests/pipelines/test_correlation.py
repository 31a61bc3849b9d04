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


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_has_no_interval_and_never_p_0(sign):
    result = correlation(range(12), [sign * value**3 for value in range(12)])

    assert (result.rho, result.no_interval) == (pytest.approx(sign), "no width")
    assert [math.isnan(bound) for bound in (result.low, result.high)] == [True, True]
    assert result.p == result.permutation_p == pytest.approx(1 / 2001)


@pytest.mark.parametrize(("n", "said"), [(3, "3 pairs"), (6, "6 pairs"), (7, "")])
def test_too_few_pairs_have_no_interval(n, said):
    result = correlation([1, 2, 4, 3, 5, 7, 6][:n], range(n))

    assert (result.no_interval, math.isnan(result.low), math.isnan(result.r_low)) == (said, bool(said), bool(said))
    assert 0 < result.p <= 1


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
    assert result.no_interval == "undefined"


def test_the_interval_is_reproducible_and_moves_with_the_seed():
    one, other = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [2, 1, 6, 3, 5, 10, 4, 9, 7, 8]

    first = correlation(one, other)

    assert correlation(one, other) == first
    assert correlation(one, other, resamples=50, seed=1)[3:5] != correlation(one, other, resamples=50, seed=2)[3:5]
    assert first.low < first.rho < first.high


def test_p_value_of_few_pairs_is_exact_for_both_coefficients():
    result = correlation([1, 2, 3, 4, 5], [1, 3, 2, 5, 4])

    assert result.p == result.permutation_p == pytest.approx(16 / 120)  # 1, 4 and 3 orders on each side at 1.0, 0.9 and 0.8
    assert correlation([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]).r_p == pytest.approx(2 / 120)


def test_resamples_without_variation_are_left_out_of_the_interval():
    result = correlation([0, 0, 0, 0, 0, 0, 1], [0, 0.1, 0, 0, 0, 0, 1], resamples=200)

    assert 0 < result.low < result.high == pytest.approx(1.0)
