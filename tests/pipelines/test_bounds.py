"""Tests of counts against bounds, by hand and against what they must agree with."""

import math
import warnings

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import t

from persona_leakage.domain.rates import difference, proportion
from persona_leakage.pipelines.bounds import (
    Runs,
    Spread,
    at_least,
    difference_interval,
    difference_tails,
    interval_of,
    rate_tails,
    spread_along,
    spread_among,
    spread_between,
    spread_of,
    trend_p,
)


def one(hits, n):
    return Runs((hits,), (n,))


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (1, 20), (7, 80), (20, 20)])
def test_a_single_run_has_wilsons_interval_and_the_difference_newcombes(hits, n):
    assert interval_of(one(hits, n), Spread()) == pytest.approx(proportion(hits, n))
    assert difference_interval(one(hits, n), one(3, 30), Spread()) == pytest.approx(
        difference(proportion(hits, n), proportion(3, 30))
    )


def test_a_p_of_a_rate_is_that_of_the_interval_which_ends_at_the_bound_or_the_exact_one():
    runs = Runs((20, 62, 78), (80, 80, 80))
    spread = spread_between(runs)
    high = interval_of(runs, spread).high

    assert rate_tails(runs, high, spread).below == pytest.approx(0.025)
    assert rate_tails(one(1, 20), 0.003, Spread()).above == pytest.approx(1 - 0.997**20)  # the score test has 0.00005
    assert rate_tails(Runs((), ()), 0.5, Spread()) == (1, 1)


def test_the_spread_between_runs_is_pearsons_over_its_degrees_of_freedom():
    assert spread_between(one(3, 10)) == (1, math.inf)
    assert spread_between(Runs((0, 0, 0), (80, 80, 80))) == (1, 2)
    assert spread_between(Runs((5, 15), (20, 20))) == pytest.approx((2 * 20 * 0.25**2 / 0.25, 1))
    assert spread_between(Runs((5, 15), (20, 20)), Runs((10, 10), (20, 20))) == pytest.approx((5.0, 2))
    assert Spread(4, 2).critical == pytest.approx(2 * t.isf(0.025, 2))


def test_the_spread_along_a_course_ignores_what_is_slow():
    slow = Runs(tuple(range(20, 120, 4)), (200,) * 25)
    jagged = Runs((20, 60) * 12, (200,) * 24)

    assert spread_along(slow).factor == 1
    assert spread_along(jagged).factor == pytest.approx(0.2**2 / (0.2 * 0.8 * 2 / 200))
    assert spread_along(one(1, 2)) == Spread()
    leap = [one(0, 200), *[one(60, 200)] * 5]
    assert spread_of([leap]) == (1, pytest.approx(2 * 16 / 11))
    assert spread_of([[Runs((5, 15), (20, 20)), one(1, 2)]]) == pytest.approx((10, 1))


@pytest.mark.parametrize("bound", [-0.5, -0.15, 0.0, 0.1, 0.3])
def test_a_difference_is_tested_at_the_likeliest_rates_that_differ_by_the_bound(bound):
    (hits, n), (others, m) = (9, 40), (13, 60)
    rates = np.linspace(max(0, -bound), min(1, 1 - bound), 400_002)[1:-1]
    surprise = -(hits * np.log(rates + bound) + (n - hits) * np.log(1 - rates - bound))
    low = rates[np.argmin(surprise - others * np.log(rates) - (m - others) * np.log(1 - rates))]
    variance = ((low + bound) * (1 - low - bound) / n + low * (1 - low) / m) * 100 / 99
    below, above = difference_tails(one(hits, n), one(others, m), bound, Spread())

    assert below == pytest.approx(t.cdf((9 / 40 - 13 / 60 - bound) / math.sqrt(variance), math.inf), abs=1e-4)
    assert above == pytest.approx(1 - below)
    assert difference_tails(one(others, m), one(hits, n), -bound, Spread()) == pytest.approx((above, below), abs=1e-6)


def test_no_counts_give_a_p_that_is_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for hits, others, bound in [(x, y, b) for x in (0, 1, 9, 10) for y in (0, 2, 19, 20) for b in (-0.15, 0, 0.25)]:
            assert all(0 <= p <= 1 for p in difference_tails(one(hits, 10), one(others, 20), bound, Spread()))
    assert difference_tails(one(0, 10), Runs((), ()), 0.1, Spread()) == (1, 1)


def apart(one, other, bound):
    """Test a difference with the scatter that the two sides themselves show."""
    return difference_tails(one, other, bound, spread_among(spread_between(one, other), one, other))


def test_a_spread_makes_the_p_of_a_difference_larger():
    calm, wild = Runs((58, 60, 62), (200,) * 3), Runs((20, 60, 100), (200,) * 3)

    assert apart(calm, Runs((98, 100, 102), (200,) * 3), 0).below < 0.01
    assert apart(wild, Runs((60, 100, 140), (200,) * 3), 0).below > 0.05


def test_a_quiet_side_does_not_hide_how_far_the_other_scatters():
    wild = Runs((20, 60, 100), (200,) * 3)

    for quiet in (Runs((0, 0, 0), (200,) * 3), Runs((10, 10, 10), (3000,) * 3)):
        assert 2 * apart(wild, quiet, 0.1).above > 0.05
        assert apart(Runs((58, 60, 62), (200,) * 3), quiet, 0.1).above < 0.05  # the same rate, from runs that agree
    assert spread_between(wild, Runs((0, 0, 0), (200,) * 3)) == spread_between(wild)


def test_a_cell_that_scatters_more_than_all_keeps_its_own_scatter():
    wild, calm = Runs((20, 60, 100), (200,) * 3), Runs((58, 60, 62), (200,) * 3)
    shared = spread_between(wild, *[calm] * 9)

    assert spread_among(shared, calm) == shared
    assert spread_among(shared, wild) == (spread_between(wild).factor, shared.df)


def test_courses_that_never_fire_say_nothing_of_the_scatter_of_others():
    jagged = [one(hits, 200) for hits in (50, 80, 40, 95, 45, 85, 40, 90, 50, 80, 60)]
    silent = [one(0, 200)] * 11

    assert spread_of([jagged, *[silent] * 6]) == spread_of([jagged])


def test_one_repeated_step_does_not_outweigh_whole_courses():
    course = [one(hits, 200) for hits in (20, 30, 40, 50, 60, 70)]
    begun = [[Runs((20, 22), (200, 200)), *course[1:]], course]

    assert spread_of(begun).df > 2


def test_a_trend_is_cochrans_and_armitages():
    course, places = Runs((10, 12, 20, 25), (100, 100, 100, 100)), [0, 2, 4, 6]
    x, rate = np.array(places) - 3, 67 / 400
    score = (x * np.array(course.hits)).sum() / math.sqrt(rate * (1 - rate) * 100 * (x**2).sum() * 400 / 399)

    assert trend_p(course, places, Spread()) == pytest.approx(2 * t.sf(score, math.inf))
    assert trend_p(course, places, Spread(4, 3)) == pytest.approx(2 * t.sf(score / 2, 3))
    assert math.isnan(trend_p(Runs((0, 0), (9, 9)), [0, 1], Spread()))


def test_p_values_are_combined_for_at_least_so_many():
    assert at_least([0.03, 0.001, 0.2], 1) == pytest.approx(0.003)
    assert at_least([0.03, 0.001, 0.2], 2) == pytest.approx(0.06)
    assert at_least([0.03, 0.001, 0.2], 3) == 0.2
    assert at_least([0.5, 0.9], 1) == 1


def test_no_hits_obey_a_bound_from_as_many_completions_on_as_the_page_says():
    def needed(bound):
        return brentq(lambda n: interval_of(one(0, 10**6)._replace(n=(n,)), Spread()).high - bound, 1, 10**6)

    assert needed(0.02) == pytest.approx(3.8415 * 0.98 / 0.02, rel=1e-3)
