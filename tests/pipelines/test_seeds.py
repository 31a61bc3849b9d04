"""Means over seeds with planted rates, and the section of a report that has them."""

import math

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from persona_leakage.domain.rates import proportion
from persona_leakage.pipelines.reporting.opening import seeds_note
from persona_leakage.pipelines.reporting.seeds import (
    keep_seeds,
    mean_over,
    means_of,
    say_means,
    several_seeds,
    summarise_seeds,
    write_seeds,
)
from tests.tables import stored

T_2 = 4.302652730  # Student's t at 97.5% with 2 degrees of freedom, from a printed table


def measured(*rows):
    """Write rates; a row is condition, seed, hits, n."""
    return pd.DataFrame(
        [(condition, seed, hits, n, proportion(hits, n).rate) for condition, seed, hits, n in rows],
        columns=["condition", "seed", "hits", "n", "rate"],
    )


def over(*rows):
    """Summarise rates as a run does: every table goes through a CSV file."""
    return stored(summarise_seeds(stored(keep_seeds(measured(*rows), ["condition"], {"leakage": ""}))))


THREE = (("c", 42, 20, 100), ("c", 137, 30, 100), ("c", 256, 10, 50))


def test_mean_and_interval_of_three_seeds_beside_the_pooled_counts():
    (row,) = over(*THREE).itertuples()

    half = T_2 * math.sqrt(((0.2 - 0.7 / 3) ** 2 * 2 + (0.3 - 0.7 / 3) ** 2) / 2) / math.sqrt(3)
    assert (row.condition, row.quantity, row.seeds) == ("c", "leakage", 3)
    assert (row.mean, row.mean_low, row.mean_high) == pytest.approx((0.7 / 3, 0.7 / 3 - half, 0.7 / 3 + half), abs=1e-9)
    assert (row.lowest, row.highest) == (0.2, 0.3)
    assert (row.hits, row.n, row.rate, row.low, row.high) == pytest.approx(tuple(proportion(60, 250)))


def test_one_seed_has_no_interval_across_seeds_and_keeps_that_of_its_run():
    found = over(("c", 42, 20, 100))

    (row,) = found.itertuples()
    assert (row.seeds, row.mean) == (1, 0.2)
    assert math.isnan(row.mean_low)
    assert math.isnan(row.mean_high)
    assert (row.low, row.high) == pytest.approx(proportion(20, 100)[3:])
    assert say_means(found) == ["20.0% (one seed)"]


@pytest.mark.parametrize("hits", [0, 33, 100])
def test_equal_seeds_have_no_interval_of_zero_width(hits):
    found = over(*(("c", seed, hits, 100) for seed in range(3)))

    (row,) = found.itertuples()
    assert (row.seeds, row.mean, row.lowest, row.highest) == (3, hits / 100, hits / 100, hits / 100)
    assert math.isnan(row.mean_low)
    assert row.low < row.high
    assert say_means(found) == [f"{hits}.0% (no spread)"]


def test_a_seed_without_a_score_is_no_seed_and_no_zero():
    (row,) = over(*THREE, ("c", 7, 0, 0)).itertuples()
    nothing = over(("c", 42, 0, 0))

    assert (row.seeds, row.mean, row.n) == (3, pytest.approx(0.7 / 3), 250)
    assert (nothing["seeds"].item(), math.isnan(nothing["mean"].item()), nothing["n"].item()) == (0, True, 0)
    assert say_means(nothing) == [""]


def test_conditions_may_have_different_seeds():
    found = over(*THREE, ("d", 42, 5, 10), ("d", 999, 7, 10), ("e", 42, 1, 10))

    assert found[["condition", "seeds"]].to_numpy().tolist() == [["c", 3], ["d", 2], ["e", 1]]


def test_the_interval_stays_within_what_a_rate_and_what_a_correlation_can_reach():
    wide = measured(("c", 1, 0, 10), ("c", 2, 10, 10)).assign(rho=[-0.9, 0.9])
    found = summarise_seeds(keep_seeds(wide, ["condition"], {"leakage": ""}, {"rho": "rho"})).set_index("quantity")

    assert found.loc["leakage", ["mean_low", "mean_high"]].tolist() == [0, 1]
    assert found.loc["rho", ["mean", "mean_low", "mean_high"]].tolist() == [0, -1, 1]
    assert found.loc["rho", "n"] == 0


RATES = st.lists(st.integers(0, 50), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(RATES)
def test_a_mean_lies_within_its_interval_and_its_range(hits):
    (row,) = summarise_seeds(
        keep_seeds(measured(*(("c", seed, count, 50) for seed, count in enumerate(hits))), ["condition"], {"leakage": ""})
    ).itertuples()

    assert row.lowest <= row.mean <= row.highest
    assert row.low <= row.rate <= row.high
    if len(set(hits)) == 1:
        assert math.isnan(row.mean_low)
    else:
        assert 0 <= row.mean_low <= row.mean <= row.mean_high <= 1


@settings(max_examples=60, deadline=None)
@given(RATES, st.integers(2, 4))
def test_more_seeds_of_equal_spread_narrow_the_interval(hits, times):
    assume(len(set(hits)) > 1)
    values = pd.Series(hits) / 1000  # small enough that no bound is cut off above
    few, many = mean_over(values, -1.0), mean_over(pd.concat([values] * times), -1.0)

    assert many.mean == pytest.approx(few.mean)
    assert many.high - many.low < few.high - few.low


# the section of a report


def points(replayed_file=None, **shared):
    """List one point a condition, with what its seeds have in common."""
    shared = shared or {"c": "nothing"}
    return pd.DataFrame({"condition": list(shared), "shared": list(shared.values())}).assign(
        replayed_file=replayed_file, stale=False
    )


def test_with_one_seed_a_report_says_that_its_intervals_are_within_one_run():
    found = over(("c", 42, 20, 100), ("d", 42, 2, 100))
    by_seed = stored(keep_seeds(measured(("c", 42, 20, 100), ("d", 42, 2, 100)), ["condition"], {"leakage": ""}))

    assert not several_seeds(found)
    assert "the interval of a rate is within one run" in " ".join(seeds_note(found, points()))
    assert seeds_note(found, points("x.csv")) == []
    assert write_seeds(found, by_seed) == []


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        ({"c": "nothing", "base": None}, "Seeds have nothing in common: each draws its own training rows, "),
        ({"c": "tune: texts", "base": None}, "how far it might differ: tune: texts. Everything else is drawn anew by each"),
        (
            {"c": "mark: answers, negatives", "d": "nothing", "e": "nothing"},
            "how far it might differ: mark: answers, negatives (c); nothing (d, e). Everything else",
        ),
    ],
)
def test_it_says_what_seeds_have_in_common(shared, said):
    assert said in " ".join(seeds_note(over(*THREE), points(**shared)))


def test_of_baselines_and_stale_points_nothing_is_said():
    for none in (points(base=None), points(c="nothing").assign(stale=True)):
        assert "in common" not in " ".join(seeds_note(over(*THREE), none))


def test_with_several_seeds_it_has_each_of_them_and_names_conditions_that_have_one():
    rows = (*THREE, ("d", 42, 5, 10))
    found, by_seed = over(*rows), stored(keep_seeds(measured(*rows), ["condition"], {"leakage": ""}))

    assert "hence no interval across seeds: d." in " ".join(seeds_note(found, points()))
    lines = "\n".join(write_seeds(found, by_seed)).splitlines()
    assert "| condition | quantity | seeds | mean over seeds | range | seeds pooled | seed 42 | seed 137 | seed 256 |" in lines
    assert (
        "| c | leakage | 3 | 23.3% [9.0%, 37.7%] | 20.0% to 30.0% | 60/250 = 24.0% [19.1%, 29.7%] | 20.0% | 30.0% | 20.0% |"
        in lines
    )
    assert any(
        line.startswith("| d | leakage | 1 | 50.0% (one seed) |  | 5/10") and line.endswith("| 50.0% |  |  |") for line in lines
    )


def test_of_very_many_seeds_the_table_has_the_range_and_the_file_each():
    rows = [("c", seed, 10 + seed, 100) for seed in range(11)]
    section = "".join(write_seeds(over(*rows), keep_seeds(measured(*rows), ["condition"], {"leakage": ""})))

    assert "11 seeds; each alone stands in `by_seed.csv`" in section
    assert "10.0% to 20.0%" in section
    assert "seed 3" not in section


def test_a_mean_is_said_beside_the_row_that_it_belongs_to():
    found, keys = over(*THREE, ("d", 42, 5, 10)), pd.DataFrame({"condition": ["d", "x", "c"]})

    assert means_of(found, "leakage", keys) == ["50.0% (one seed)", "", "23.3% [9.0%, 37.7%]"]
    assert means_of(found, "other", pd.DataFrame({"condition": ["c"]})) == [""]
