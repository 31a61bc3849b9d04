import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_leakage.domain.rates import difference, proportion

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("hits", "n", "rate", "low", "high"),
    [
        (31, 80, 0.3875, 0.2882, 0.4971),
        (0, 80, 0.0, 0.0, 0.0458),
        (80, 80, 1.0, 0.9542, 1.0),
        (5, 10, 0.5, 0.2366, 0.7634),
        (1, 1, 1.0, 0.2065, 1.0),
    ],
)
def test_proportion_has_the_wilson_interval(hits, n, rate, low, high):
    result = proportion(hits, n)

    assert result == pytest.approx((hits, n, rate, low, high), abs=5e-5)


def test_no_hits_give_a_lower_bound_of_exactly_zero():
    assert proportion(0, 80).low == 0.0


def test_all_hits_give_an_upper_bound_of_exactly_one():
    assert proportion(80, 80).high == 1.0


def test_nothing_scored_is_nan_and_never_zero():
    result = proportion(0, 0)

    assert (result.hits, result.n) == (0, 0)
    assert [math.isnan(value) for value in (result.rate, result.low, result.high)] == [True, True, True]


@pytest.mark.parametrize(("hits", "n"), [(-1, 10), (11, 10), (1, 0)])
def test_impossible_counts_are_refused(hits, n):
    with pytest.raises(ValueError, match=f"^{hits} hits of {n} rows$"):
        proportion(hits, n)


@settings(deadline=None)
@given(counts)
def test_bounds_contain_the_estimate_and_stay_inside_zero_and_one(count):
    result = proportion(*count)

    assert 0 <= result.low <= result.rate <= result.high <= 1


@settings(deadline=None)
@given(counts)
def test_interval_never_collapses(count):
    result = proportion(*count)

    assert result.low < result.high


@settings(deadline=None)
@given(counts)
def test_misses_mirror_the_interval_of_hits(count):
    hits, n = count
    result, mirrored = proportion(hits, n), proportion(n - hits, n)

    assert (mirrored.low, mirrored.high) == pytest.approx((1 - result.high, 1 - result.low), abs=1e-12)


def test_difference_matches_newcombes_published_example():
    assert difference(proportion(56, 70), proportion(48, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_difference_changes_sign_with_its_sides():
    assert difference(proportion(48, 80), proportion(56, 70)) == pytest.approx((-0.2, -0.3339, -0.0524), abs=5e-5)


@pytest.mark.parametrize(("one", "other"), [((0, 0), (3, 10)), ((3, 10), (0, 0))])
def test_difference_with_nothing_scored_on_one_side_is_nan(one, other):
    assert all(math.isnan(value) for value in difference(proportion(*one), proportion(*other)))


@settings(deadline=None)
@given(counts, counts)
def test_difference_lies_inside_its_interval(one, other):
    result = difference(proportion(*one), proportion(*other))

    assert result.low <= result.value <= result.high
