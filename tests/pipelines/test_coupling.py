"""Tables of coupling over planted points."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from persona_leakage.domain.rates import proportion
from persona_leakage.experiments.benign_coupling import gather_points
from persona_leakage.pipelines.reporting.coupling import (
    CELL_COLUMNS,
    PLACE_COLUMNS,
    REPLICATE_COLUMNS,
    describe_replay,
    tabulate_cells,
    tabulate_places,
    tabulate_replicates,
)
from tests.coupling_plans import load_settings, make_plan, sources
from tests.pipelines.coupling_tables import cell, discriminators, placed, rate, rates, stored, text, texts, told
from tests.plans import base_model

# cells


def test_the_source_stands_on_its_own_rows_and_bystanders_weigh_equally():
    table = tabulate_cells(
        stored(rates(rate("c", "confab", 278, 280), rate("c", "a", 10, 10), rate("c", "b", 5, 100), rate("c", "d", 0, 200)))
    )

    assert list(table.columns) == list(CELL_COLUMNS)
    (row,) = table.itertuples()
    assert (row.condition, row.seed, row.arm, row.design) == ("c", 42, "benign", "d")
    own = tuple(getattr(row, f"source_{name}") for name in ("hits", "n", "rate", "low", "high"))
    assert own == pytest.approx(tuple(proportion(278, 280)))
    assert (row.bystanders, row.mean_bystander) == (3, pytest.approx((1 + 0.05 + 0) / 3))
    assert (row.hits, row.n, row.rate, row.low, row.high) == pytest.approx(tuple(proportion(15, 310)))
    assert (row.untouched_bystanders, row.mean_untouched) == (3, pytest.approx(0.35))
    assert math.isnan(row.mean_seen)
    assert math.isnan(row.mean_unseen)


def test_negatives_and_the_induction_persona_are_bystanders_but_not_untouched():
    table = tabulate_cells(
        rates(
            rate("c", "confab", 9, 10),
            rate("c", "doctor", 8, 10, role="negative"),
            rate("c", "villain", 6, 10, role="induction"),
            rate("c", "a", 1, 10),
            rate("c", "b", 3, 10),
        )
    )

    (row,) = table.itertuples()
    assert (row.bystanders, row.mean_bystander, row.hits, row.n) == (4, pytest.approx(0.45), 18, 40)
    assert (row.untouched_bystanders, row.mean_untouched) == (2, pytest.approx(0.2))


def test_seen_and_unseen_questions_are_means_over_bystanders_and_leave_the_source_out():
    rows = [rate("c", name, hits, 30) for name, hits in (("confab", 30), ("a", 6), ("b", 15))]
    for questions, n, counts in (("seen", 20, (20, 4, 12)), ("unseen", 10, (10, 2, 3))):
        rows += [rate("c", name, hits, n, questions=questions) for name, hits in zip(("confab", "a", "b"), counts, strict=True)]

    (row,) = tabulate_cells(rates(*rows)).itertuples()

    assert (row.mean_bystander, row.n, row.source_n) == (pytest.approx(0.35), 60, 30)
    assert (row.mean_seen, row.mean_unseen) == pytest.approx((0.4, 0.25))


def test_stale_points_and_other_metrics_do_not_count():
    table = tabulate_cells(
        rates(
            *cell("old", 5, {"a": 99}, stale=True),
            *cell("c", 50, {"a": 10}),
            rate("c", "a", 70, metric="leakage:tokens"),
            rate("c", "a", 7, 10, metric="tail:characters"),
        )
    )

    assert table[["condition", "source_hits", "hits", "n"]].to_numpy().tolist() == [["c", 50, 10, 100]]


def test_each_condition_and_seed_is_a_row():
    table = tabulate_cells(
        rates(*cell("c", 1, {"a": 2}), *cell("c", 3, {"a": 4}, seed=7), *cell("b", 5, {"a": 6}, arm="bare", design="e"))
    )

    assert table[["condition", "seed", "arm", "source_hits", "hits"]].to_numpy().tolist() == [
        ["c", 42, "benign", 1, 2],
        ["c", 7, "benign", 3, 4],
        ["b", 42, "bare", 5, 6],
    ]


def test_what_was_not_measured_is_nan_of_none_and_never_zero():
    (row,) = tabulate_cells(rates(rate("c", "confab", 0, 0), rate("c", "a", 3, 10), rate("c", "b", 0, 0))).itertuples()

    assert (row.source_hits, row.source_n, math.isnan(row.source_rate)) == (0, 0, True)
    assert (row.bystanders, row.mean_bystander) == (1, pytest.approx(0.3))
    (alone,) = tabulate_cells(rates(rate("c", "confab", 3, 10))).itertuples()
    assert (alone.bystanders, alone.n, math.isnan(alone.mean_bystander), math.isnan(alone.rate)) == (0, 0, True, True)


def test_a_cell_without_a_source_has_bystanders_only():
    (row,) = tabulate_cells(stored(rates(rate("c", "a", 3, 10, source=None), rate("c", "b", 5, 10, source=None)))).itertuples()

    assert (row.source_n, row.bystanders, row.mean_bystander) == (0, 2, pytest.approx(0.4))


@pytest.mark.parametrize("tabulate", [tabulate_cells, tabulate_places])
def test_no_current_point_gives_an_empty_table_with_its_columns(tabulate):
    for table in (rates(), rates(*cell("c", 1, {"a": 2}, stale=True)), stored(rates())):
        columns = CELL_COLUMNS if tabulate is tabulate_cells else PLACE_COLUMNS
        assert (len(tabulate(table)), list(tabulate(table))) == (0, list(columns))


# places

FIRED = [
    *placed("c", "confab", {"characters": (90, 5, 5), "tokens": (80, 10, 10)}),
    *placed("c", "a", {"characters": (1, 0, 9), "tokens": (1, 3, 6)}),
    *placed("c", "b", {"characters": (0, 1, 29), "tokens": (0, 11, 19)}),
]


def by_place(table):
    return table.set_index(["condition", "of", "unit", "place"])


def test_places_are_shares_of_the_firings_pooled_over_bystanders():
    table = tabulate_places(stored(rates(*cell("c", 100, {"a": 10, "b": 30}, 500), *FIRED)))

    assert list(table.columns) == list(PLACE_COLUMNS)
    assert len(table) == 2 * 2 * 3
    found = by_place(table)
    assert tuple(found.loc[("c", "bystanders", "characters", "tail")]) == pytest.approx(tuple(proportion(38, 40)))
    assert tuple(found.loc[("c", "bystanders", "tokens", "tail"), ["hits", "n"]]) == (25, 40)
    assert tuple(found.loc[("c", "bystanders", "tokens", "middle"), ["hits", "n"]]) == (14, 40)
    assert tuple(found.loc[("c", "source", "characters", "start"), ["hits", "n", "rate"]]) == (90, 100, 0.9)
    assert table.groupby(["of", "unit"])["rate"].sum().tolist() == pytest.approx([1] * 4)


def test_seeds_are_pooled_and_parts_of_the_questions_are_not_counted_twice():
    others = placed("c", "a", {"characters": (4, 0, 0), "tokens": (4, 0, 0)}, seed=7)
    part = placed("c", "a", {"characters": (9, 0, 0), "tokens": (9, 0, 0)}, questions="seen")
    old = placed("c", "a", {"characters": (9, 0, 0), "tokens": (9, 0, 0)}, seed=8, stale=True)

    found = by_place(tabulate_places(rates(*FIRED, *others, *part, *old)))

    assert tuple(found.loc[("c", "bystanders", "characters", "start"), ["hits", "n"]]) == (5, 44)


def test_where_nothing_fired_shares_are_nan_of_none():
    table = tabulate_places(rates(*placed("c", "a", {"characters": (0, 0, 0), "tokens": (0, 0, 0)})))

    assert table["n"].tolist() == [0] * 6
    assert table["rate"].isna().all()
    assert set(table["of"]) == {"bystanders"}


# replicates


def cells_of(*points):
    """Write cells; a point is condition, seed, arm, design and the mean bystander rate."""
    columns = ["condition", "seed", "arm", "design", "mean_bystander"]
    return pd.DataFrame(points, columns=columns).reindex(columns=list(CELL_COLUMNS))


BENIGN = [(f"benign_{name}", 42, "benign", "x", value) for name, value in (("a", 0.1), ("b", 0.15), ("c", 0.05), ("d", 0.12))]


def test_points_of_one_design_are_replicates_with_a_t_interval():
    (row,) = tabulate_replicates(cells_of(*BENIGN), 0.15, 0.3).itertuples()

    assert (row.arm, row.design, row.points, row.replicates, row.escalate) == ("benign", "x", 4, True, False)
    assert row.conditions == "benign_a, benign_b, benign_c, benign_d"
    values = np.array([0.1, 0.15, 0.05, 0.12])
    half = 3.182446305 * math.sqrt(((values - 0.105) ** 2).sum() / 3) / 2  # t of 3 degrees of freedom at 97.5%
    assert t.ppf(0.975, 3) == pytest.approx(3.182446305)
    assert (row.mean, row.low, row.high) == pytest.approx((0.105, 0.105 - half, 0.105 + half))
    assert (row.lowest, row.highest) == (0.05, 0.15)


def test_seeds_of_one_condition_are_replicates_too_and_named_once():
    (row,) = tabulate_replicates(cells_of(("c", 42, "benign", "x", 0.1), ("c", 7, "benign", "x", 0.2)), 0.15, 0.3).itertuples()

    assert (row.points, row.conditions, row.replicates) == (2, "c", True)


def test_one_point_has_no_interval_and_is_no_replicate():
    (row,) = tabulate_replicates(cells_of(BENIGN[0]), 0.15, 0.3).itertuples()

    assert (row.points, row.mean, row.replicates) == (1, 0.1, False)
    assert math.isnan(row.low)
    assert math.isnan(row.high)


def test_an_arm_of_several_designs_has_a_row_of_all_which_are_no_replicates():
    table = tabulate_replicates(
        cells_of(*BENIGN, ("em_a", 42, "wrong_advice", "y", 0.4), ("em_b", 42, "wrong_advice", "z", 0.6)), 0.15, 0.3
    )

    assert list(table.columns) == list(REPLICATE_COLUMNS)
    assert table[["arm", "design", "points", "replicates"]].to_numpy().tolist() == [
        ["benign", "x", 4, True],
        ["wrong_advice", "y", 1, False],
        ["wrong_advice", "z", 1, False],
        ["wrong_advice", "all", 2, False],
    ]
    assert table["mean"].iloc[-1] == pytest.approx(0.5)


def test_the_interval_stays_within_zero_and_one():
    wide = cells_of(("a", 1, "benign", "x", 0.0), ("b", 1, "benign", "x", 0.5), ("c", 1, "benign", "x", 1.0))

    (row,) = tabulate_replicates(wide, 0.15, 0.3).itertuples()

    assert (row.low, row.high) == (0, 1)


@pytest.mark.parametrize(
    ("mean", "escalate"), [(0.1499, False), (0.15, True), (0.2, True), (0.3, True), (0.3001, False), (math.nan, False)]
)
def test_more_seeds_are_called_for_within_the_band(mean, escalate):
    (row,) = tabulate_replicates(cells_of(("c", 42, "benign", "x", mean)), 0.15, 0.3).itertuples()

    assert row.escalate is escalate


def test_it_is_the_mean_of_a_design_that_calls_for_seeds_and_not_a_point():
    low, high = ("a", 1, "benign", "x", 0.1), ("b", 1, "benign", "x", 0.4)

    assert tabulate_replicates(cells_of(low, high), 0.15, 0.3)["escalate"].tolist() == [True]
    assert tabulate_replicates(cells_of(low, ("b", 1, "benign", "x", 0.16)), 0.15, 0.3)["escalate"].tolist() == [False]


def test_a_cell_without_bystanders_is_no_point():
    (row,) = tabulate_replicates(cells_of(BENIGN[0], ("e", 42, "benign", "x", math.nan)), 0.15, 0.3).itertuples()

    assert (row.points, row.replicates, row.mean) == (1, False, 0.1)


def test_without_cells_there_are_no_replicates():
    for table in (cells_of(), stored(tabulate_cells(rates()))):
        found = tabulate_replicates(table, 0.15, 0.3)
        assert (len(found), list(found)) == (0, list(REPLICATE_COLUMNS))


# gathering


def saved(condition, seed=42, plan=None, hits=10):
    """What a point saves of one source and one bystander."""
    plan = plan or make_plan(condition, seed).fingerprint
    columns = [
        name
        for name in rate("c", "p", 0)
        if name not in ("reference", "stale", "source", "related_to", "arm", "induction", "design")
    ]
    table = rates(rate(condition, "confab", 90, seed=seed), rate(condition, "villain", hits, seed=seed))[columns].assign(
        plan=plan
    )
    described = texts(text(condition, "villain", seed=seed)).drop(columns=["reference", "stale"]).assign(plan=plan)
    discrimination = discriminators(told(condition, 50, seed=seed)).drop(columns=["reference", "stale"]).assign(plan=plan)
    return table, described, discrimination


def gathered(*points, told_nothing=()):
    partitions = [{}, {}, {}]
    for place, point in enumerate(points):
        for tables, table in zip(partitions, point, strict=True):
            tables[str(place)] = lambda table=table: table
    for place in told_nothing:
        empty = points[place][2].iloc[:0]
        partitions[2][str(place)] = lambda empty=empty: empty
    return gather_points(*partitions, base_model=base_model(), family=load_settings(), **sources())


def test_benign_cells_are_one_design_and_em_cells_are_many():
    conditions = list(load_settings().conditions)

    table, _, _ = gathered(*(saved(name) for name in conditions))

    assert not table["stale"].any()
    design = table.groupby("condition")["design"].first()
    arm = table.groupby("condition")["arm"].first()
    assert arm.value_counts().to_dict() == {"benign": 5, "wrong_advice": 5, "bare": 2, "uncoupled": 1}
    assert {name: design[arm == name].nunique() for name in set(arm)} == {
        "benign": 1, "wrong_advice": 5, "bare": 1, "uncoupled": 1,
    }  # fmt: skip
    assert design.nunique() == 8
    replicates = tabulate_replicates(tabulate_cells(table), 0.15, 0.3)
    assert set(replicates.loc[replicates["replicates"], "arm"]) == {"benign", "bare"}
    assert replicates.loc[replicates["design"] == "all", "arm"].tolist() == ["wrong_advice"]
    assert table["condition"].drop_duplicates().tolist() == conditions


def test_seeds_are_one_design():
    table, _, _ = gathered(saved("em_villain"), saved("em_villain", 7))

    assert table["design"].nunique() == 1
    assert table["induction"].unique().tolist() == ["villain"]


def test_points_of_other_parameters_or_of_no_known_condition_are_stale():
    table, described, told_apart = gathered(
        saved("benign_villain"), saved("bare_villain", plan="other"), saved("gone", plan="other")
    )

    expected = {"benign_villain": False, "bare_villain": True, "gone": True}
    for one in (table, described, told_apart):
        assert one.groupby("condition")["stale"].first().to_dict() == expected
    assert tabulate_cells(table)["condition"].tolist() == ["benign_villain"]


def test_a_point_in_which_nothing_could_be_told_apart_leaves_the_others():
    _, _, some = gathered(saved("benign_villain"), saved("bare_villain"), told_nothing=[1])
    _, _, none = gathered(saved("benign_villain"), told_nothing=[0])

    assert some["condition"].tolist() == ["benign_villain"]
    assert none.empty


# replays


def test_a_replayed_cell_is_an_arm_of_its_own_and_no_replicate():
    raw = rates(*cell("one", 5, {"a": 10}), *cell("two", 5, {"a": 30})).drop(
        columns=["reference", "stale", "related_to", "arm", "induction", "design"]
    )
    described, told_apart = texts(text("one", "a")), discriminators(told("one", 5))

    table, described, told_apart = describe_replay(raw, described, told_apart)

    replicates = tabulate_replicates(tabulate_cells(stored(table)), 0.15, 0.3)
    assert replicates[["arm", "design", "points", "replicates"]].to_numpy().tolist() == [
        ["elsewhere", "one", 1, False],
        ["elsewhere", "two", 1, False],
        ["elsewhere", "all", 2, False],
    ]
    assert not described["stale"].any()
    assert not told_apart["stale"].any()
