"""Means over seeds with planted rates, and what each report makes of them."""

import math

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from persona_leakage.domain.plan import RateBound, SameRates
from persona_leakage.domain.rates import proportion
from persona_leakage.pipelines.reporting.coupling import tabulate_cell_seeds, tabulate_cells, tabulate_replicates
from persona_leakage.pipelines.reporting.leakage import (
    correlate_leakage,
    judge_leakage_claims,
    tabulate_leakage_seeds,
    tabulate_sources,
)
from persona_leakage.pipelines.reporting.seeds import (
    keep_seeds,
    mean_over,
    means_of,
    said_means,
    seeds_note,
    several_seeds,
    summarise_seeds,
    write_seeds,
)
from persona_leakage.pipelines.reporting.spill import tabulate_spill_seeds
from persona_leakage.pipelines.reporting.trajectories import tabulate_text_ranges, tabulate_trajectory_seeds
from tests.pipelines import coupling_tables, leakage_tables, trajectory_tables
from tests.pipelines.tables import cell, stored, table
from tests.plans import SPEAK

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
    assert said_means(found) == ["20.0% (one seed)"]


@pytest.mark.parametrize("hits", [0, 33, 100])
def test_equal_seeds_have_no_interval_of_zero_width(hits):
    found = over(*(("c", seed, hits, 100) for seed in range(3)))

    (row,) = found.itertuples()
    assert (row.seeds, row.mean, row.lowest, row.highest) == (3, hits / 100, hits / 100, hits / 100)
    assert math.isnan(row.mean_low)
    assert row.low < row.high
    assert said_means(found) == [f"{hits}.0% (no spread)"]


def test_a_seed_without_a_score_is_no_seed_and_no_zero():
    (row,) = over(*THREE, ("c", 7, 0, 0)).itertuples()
    nothing = over(("c", 42, 0, 0))

    assert (row.seeds, row.mean, row.n) == (3, pytest.approx(0.7 / 3), 250)
    assert (nothing["seeds"].item(), math.isnan(nothing["mean"].item()), nothing["n"].item()) == (0, True, 0)
    assert said_means(nothing) == [""]


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


def plan(**more):
    return leakage_tables.plan_of().model_copy(update=more)


def test_with_one_seed_a_report_says_that_its_intervals_are_within_one_run():
    found = over(("c", 42, 20, 100), ("d", 42, 2, 100))
    by_seed = stored(keep_seeds(measured(("c", 42, 20, 100), ("d", 42, 2, 100)), ["condition"], {"leakage": ""}))

    assert not several_seeds(found)
    assert "every interval is within one run" in " ".join(seeds_note(found, plan()))
    assert seeds_note(found, plan(replayed_file="x.csv")) == []
    assert write_seeds(found, by_seed) == []


def test_with_several_seeds_it_has_each_of_them_and_names_conditions_that_have_one():
    rows = (*THREE, ("d", 42, 5, 10))
    found, by_seed = over(*rows), stored(keep_seeds(measured(*rows), ["condition"], {"leakage": ""}))

    assert "hence no interval across seeds: d." in " ".join(seeds_note(found, plan()))
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


# families


def test_spill_keeps_cells_and_leaves_stale_points_out():
    rates = table(
        cell("fr_it", "spanish", (8, 20), following=(10, 20)),
        cell("fr_it", "spanish", (12, 20), following=(6, 20), seed=7),
        cell("fr_it", "spanish", (20, 20), seed=8, stale=True),
        cell("fr_it", "spanish", (1, 10), following=(9, 10), phrasing=SPEAK),
    )
    found = stored(summarise_seeds(stored(tabulate_spill_seeds(rates))))

    keys = pd.DataFrame({"condition": ["fr_it"] * 2, "directive_language": "spanish", "phrasing": ["all", SPEAK]})
    assert means_of(found, "contamination", keys) == ["50.0% [0.0%, 100.0%]", "10.0% (one seed)"]
    assert means_of(found, "following", keys)[0] == "40.0% [0.0%, 100.0%]"
    whole = found[(found["phrasing"] == "all") & (found["quantity"] == "contamination")]
    assert whole[["role", "seeds", "hits", "n"]].to_numpy().tolist() == [["bystander", 2, 20, 40]]


def test_leakage_has_the_source_its_bystanders_and_every_rho():
    of = {"villain": (9, 10, math.nan), "a": (1, 10, 0.1), "b": (5, 10, 0.4), "c": (8, 10, 0.9)}
    other = {"villain": (7, 10, math.nan), "a": (8, 10, 0.1), "b": (5, 10, 0.4), "c": (2, 10, 0.9)}
    leakage = leakage_tables.leakage({"condition": "villain", "of": of}, {"condition": "villain", "seed": 7, "of": other})
    sources = tabulate_sources(leakage, leakage_tables.texts())

    by_seed = stored(tabulate_leakage_seeds(sources, correlate_leakage(leakage, plan())))
    found = summarise_seeds(by_seed).set_index("quantity")

    assert found["seeds"].tolist() == [2, 2, 2]
    assert found.loc["source", ["mean", "hits", "n"]].tolist() == pytest.approx([0.8, 16, 20])
    assert found.loc["mean of bystanders", "mean"] == pytest.approx((14 / 30 + 15 / 30) / 2)
    rho = found.loc["rho (base model, layer 20)"]
    assert rho[["mean", "mean_low", "mean_high"]].tolist() == pytest.approx([0, -1, 1])
    assert by_seed.loc[by_seed["quantity"].str.startswith("rho"), "value"].tolist() == pytest.approx([1, -1])


def test_rho_of_a_single_seed_is_that_of_its_source():
    of = {"villain": (9, 10, math.nan), "a": (1, 10, 0.1), "b": (5, 10, 0.4), "c": (8, 10, 0.9)}
    leakage = leakage_tables.leakage({"condition": "villain", "of": of})
    sources = tabulate_sources(leakage, leakage_tables.texts())

    found = summarise_seeds(tabulate_leakage_seeds(sources, correlate_leakage(leakage, plan()))).set_index("quantity")

    assert found.loc["rho (base model, layer 20)", ["seeds", "mean"]].tolist() == pytest.approx([1, 1])


def test_changes_since_epoch_0_are_taken_seed_by_seed():
    rows = [
        *trajectory_tables.trajectory("c", {0: 10, 2: 50}, 100, seed=1),
        *trajectory_tables.trajectory("c", {0: 40, 2: 60}, 100, seed=2),
        *trajectory_tables.trajectory("c", {2: 99}, 100, seed=3),
    ]
    by_seed = stored(tabulate_trajectory_seeds(trajectory_tables.trajectories(*rows)))
    found = summarise_seeds(by_seed).set_index(["quantity", "checkpoint"])

    assert found.loc[("change since epoch 0", 2), ["seeds", "mean"]].tolist() == pytest.approx([2, 0.3])
    assert found.loc[("pulled", 2), ["seeds", "mean", "hits", "n"]].tolist() == pytest.approx([3, 2.09 / 3, 209, 300])
    assert found.loc[("pulled", 0), "seeds"] == 2


def test_coupling_keeps_trigger_and_bystanders():
    rates = coupling_tables.rates(
        *coupling_tables.cell("c", 98, {"a": 10, "b": 30}), *coupling_tables.cell("c", 94, {"a": 20, "b": 60}, seed=7)
    )
    found = summarise_seeds(stored(tabulate_cell_seeds(tabulate_cells(rates)))).set_index("quantity")

    assert found.loc["trigger", ["seeds", "mean", "hits", "n"]].tolist() == pytest.approx([2, 0.96, 192, 200])
    assert found.loc["mean of bystanders", ["mean", "lowest", "highest"]].tolist() == pytest.approx([0.3, 0.2, 0.4])


# seeds are not conditions, and not designs


def test_three_seeds_of_one_design_do_not_weigh_as_three_designs():
    columns = ["condition", "seed", "arm", "design", "mean_bystander"]
    points = [("em_a", seed, "wrong_advice", "y", 0.4) for seed in (1, 2, 3)] + [("em_b", 1, "wrong_advice", "z", 0.6)]

    whole = tabulate_replicates(pd.DataFrame(points, columns=columns), 0.15, 0.3).set_index("design").loc["all"]

    half = 12.706204736 * math.sqrt(0.02) / math.sqrt(2)  # t with one degree of freedom: two designs
    assert (whole["points"], whole["seeds"], whole["mean"]) == (4, 3, pytest.approx(0.5))
    assert whole["low"] == pytest.approx(max(0, 0.5 - half))


def test_a_claim_pools_the_seeds_of_a_condition_and_says_how_many():
    claim = RateBound(statement="s", metric="leakage", role="source", conditions=("villain", "comedian"), at_least=0.5)
    rates = leakage_tables.rates(
        *(leakage_tables.rate("villain", "villain", hits, seed=seed) for seed, hits in ((1, 90), (2, 60), (3, 30))),
        leakage_tables.rate("villain", "villain", 0, seed=4, stale=True),
        leakage_tables.rate("comedian", "comedian", 70),
    )

    (row,) = judge_leakage_claims(rates, leakage_tables.correlations(), {"implanted": claim}).itertuples()

    assert row.verdict == "holds"
    assert row.evidence.startswith("2 of 2 cells obey; furthest: villain under villain 180/300 = 60.0%")
    assert row.evidence.endswith("; seeds pooled: villain 3, comedian 1")


def test_a_claim_over_single_seeds_says_nothing_of_seeds_and_pairs_count_too():
    rate = leakage_tables.rate
    claim = SameRates(statement="s", metric="leakage", between="conditions", pairs=(("c", "d"),), margin=0.1)
    single = leakage_tables.rates(rate("c", "p", 50), rate("d", "p", 50))
    double = leakage_tables.rates(*(rate(name, "p", 50, seed=seed) for name in "cd" for seed in (1, 2)))

    def evidence(rates):
        return judge_leakage_claims(rates, leakage_tables.correlations(), {"same": claim})["evidence"].item()

    assert "seeds" not in evidence(single)
    assert evidence(double).endswith("; 2 seeds of each condition pooled")


# texts of trajectories


def test_texts_are_compared_with_epoch_0_of_the_same_seed():
    text = trajectory_tables.text
    found = tabulate_text_ranges(
        trajectory_tables.texts(
            text("c", 0, 40.0, "a"),
            text("c", 0, 60.0, "b"),
            text("c", 2, 50.0, "a"),
            text("c", 4, 61.0, "a", empty=3),
            text("c", 2, 61.0, "a", seed=7),
            text("c", 0, 99.0, "a", seed=8, stale=True),
        )
    )

    assert found[["seed", "checkpoint", "outside_base_range"]].to_numpy().tolist() == [
        [42, 0, ""],
        [42, 2, ""],
        [42, 4, "tokens, empty"],
        [7, 2, ""],
    ]
    assert found["tokens"].tolist() == [50, 50, 61, 61]
