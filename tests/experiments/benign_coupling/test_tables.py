"""Tables of coupling over planted points."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.domain.variants import Variants
from persona_leakage.experiments.benign_coupling.report import _texts
from persona_leakage.experiments.benign_coupling.tables import (
    ACCURACY_COLUMNS,
    CELL_COLUMNS,
    REPLICATE_COLUMNS,
    describe_replay,
    pool_bystanders,
    pool_learning,
    summarise_texts,
    tabulate_accuracies,
    tabulate_cells,
    tabulate_places,
    tabulate_replicates,
)
from persona_leakage.experiments.composition import gather_points
from persona_leakage.pipelines.reporting.by_model import for_each_model
from persona_leakage.pipelines.reporting.rates import PLACE_COLUMNS
from persona_leakage.pipelines.scoring.cells_apart import rate_cells_apart
from persona_leakage.pipelines.scoring.markers import describe_texts, rate_firings
from tests.experiments.benign_coupling.plans import bundled_roster, load_settings, load_variants, make_plan, make_replay
from tests.experiments.benign_coupling.planted_tables import (
    cell,
    discriminators,
    placed,
    rate,
    rates,
    text,
    texts,
    told,
)
from tests.tables import stored

SETTINGS = load_settings()  # more seeds are called for from 15% to 30%; a discriminator passes from 70%, borderline within 5%

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
    (row,) = tabulate_replicates(cells_of(*BENIGN), SETTINGS).itertuples()

    assert (row.arm, row.design, row.points, row.replicates, row.escalate) == ("benign", "x", 4, True, False)
    assert row.conditions == "benign_a, benign_b, benign_c, benign_d"
    values = np.array([0.1, 0.15, 0.05, 0.12])
    half = 3.182446305 * math.sqrt(((values - 0.105) ** 2).sum() / 3) / 2  # t of 3 degrees of freedom at 97.5%
    assert t.ppf(0.975, 3) == pytest.approx(3.182446305)
    assert (row.mean, row.low, row.high) == pytest.approx((0.105, 0.105 - half, 0.105 + half))
    assert (row.lowest, row.highest) == (0.05, 0.15)


def test_the_table_says_how_many_first_stages_the_points_have():
    again = {"induce": "benign", "induction": "villain", "replicate": 7, "replicate_from": "induce"}
    settings = load_settings({"conditions.own_first_stage": again})
    cells = cells_of(
        *((f"benign_{name}", seed, "benign", "x", 0.1) for name in ("assistant", "villain") for seed in (42, 137)),
        ("own_first_stage", 42, "benign", "x", 0.2),
        ("em_assistant", 42, "wrong_advice", "y", 0.4),
        ("em_villain", 42, "wrong_advice", "z", 0.5),
        ("bare_villain", 42, "bare", "b", 0.0),
        ("elsewhere", 42, "outside", "o", 0.0),
    )

    table = tabulate_replicates(cells, settings).set_index(["arm", "design"])["first_stages"]

    assert table["benign", "x"] == 3  # one a seed, and that of the replicate
    assert (table["wrong_advice", "y"], table["wrong_advice", "all"], table["bare", "b"]) == (1, 2, 0)
    assert pd.isna(table["outside", "o"])


def test_seeds_of_one_condition_are_replicates_too_and_named_once():
    (row,) = tabulate_replicates(cells_of(("c", 42, "benign", "x", 0.1), ("c", 7, "benign", "x", 0.2)), SETTINGS).itertuples()

    assert (row.points, row.conditions, row.replicates) == (2, "c", True)


def test_one_point_has_no_interval_and_is_no_replicate():
    (row,) = tabulate_replicates(cells_of(BENIGN[0]), SETTINGS).itertuples()

    assert (row.points, row.mean, row.replicates) == (1, 0.1, False)
    assert math.isnan(row.low)
    assert math.isnan(row.high)


def test_an_arm_of_several_designs_has_a_row_of_all_which_are_no_replicates():
    table = tabulate_replicates(
        cells_of(*BENIGN, ("em_a", 42, "wrong_advice", "y", 0.4), ("em_b", 42, "wrong_advice", "z", 0.6)), SETTINGS
    )

    assert list(table.columns) == list(REPLICATE_COLUMNS)
    assert table[["arm", "design", "designs", "points", "replicates"]].to_numpy().tolist() == [
        ["benign", "x", 1, 4, True],
        ["wrong_advice", "y", 1, 1, False],
        ["wrong_advice", "z", 1, 1, False],
        ["wrong_advice", "all", 2, 2, False],
    ]
    assert table["mean"].iloc[-1] == pytest.approx(0.5)


def test_the_interval_stays_within_zero_and_one():
    wide = cells_of(("a", 1, "benign", "x", 0.0), ("b", 1, "benign", "x", 0.5), ("c", 1, "benign", "x", 1.0))

    (row,) = tabulate_replicates(wide, SETTINGS).itertuples()

    assert (row.low, row.high) == (0, 1)


@pytest.mark.parametrize(
    ("mean", "escalate"), [(0.1499, False), (0.15, True), (0.2, True), (0.3, True), (0.3001, False), (math.nan, False)]
)
def test_more_seeds_are_called_for_within_the_band(mean, escalate):
    (row,) = tabulate_replicates(cells_of(("c", 42, "benign", "x", mean)), SETTINGS).itertuples()

    assert row.escalate is escalate


def test_it_is_the_mean_of_a_design_that_calls_for_seeds_and_not_a_point():
    low, high = ("a", 1, "benign", "x", 0.1), ("b", 1, "benign", "x", 0.4)

    assert tabulate_replicates(cells_of(low, high), SETTINGS)["escalate"].tolist() == [True]
    assert tabulate_replicates(cells_of(low, ("b", 1, "benign", "x", 0.16)), SETTINGS)["escalate"].tolist() == [False]


def test_a_cell_without_bystanders_is_no_point():
    (row,) = tabulate_replicates(cells_of(BENIGN[0], ("e", 42, "benign", "x", math.nan)), SETTINGS).itertuples()

    assert (row.points, row.replicates, row.mean) == (1, False, 0.1)


def test_without_cells_there_are_no_replicates():
    for table in (cells_of(), stored(tabulate_cells(rates()))):
        found = tabulate_replicates(table, SETTINGS)
        assert (len(found), list(found)) == (0, list(REPLICATE_COLUMNS))


# bystanders


def test_bystanders_are_pooled_over_seeds_and_the_source_is_none():
    table = pool_bystanders(
        stored(
            rates(
                *cell("one", 99, {"a": 10, "b": 50}),
                *cell("one", 99, {"a": 30, "b": 0}, 300, seed=7),
                rate("two", "a", 1, 10, role="negative"),
                rate("two", "b", 0, 0),
                rate("one", "a", 77, questions="seen"),
                rate("one", "a", 77, metric="leakage:tokens"),
                *cell("one", 0, {"a": 77}, seed=8, stale=True),
            )
        )
    )

    assert list(table) == ["condition", "persona", "role", *RATE_COLUMNS, "persona_mean"]
    assert table[["condition", "persona", "role", "hits", "n"]].to_numpy().tolist() == [
        ["one", "a", "bystander", 40, 400],
        ["one", "b", "bystander", 50, 400],
        ["two", "a", "negative", 1, 10],
    ]
    assert table.loc[0, list(RATE_COLUMNS)].tolist() == pytest.approx(list(proportion(40, 400)))
    assert table["persona_mean"].tolist() == pytest.approx([0.1, 0.125, 0.1])


def test_the_mean_of_a_persona_is_over_conditions_and_not_over_completions():
    table = pool_bystanders(rates(rate("one", "a", 10, 10), rate("two", "a", 0, 1000), rate("two", "b", 500, 1000)))

    assert table["persona_mean"].tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_a_bystander_that_is_a_negative_of_one_seed_alone_is_pooled_into_one_row():
    table = pool_bystanders(rates(rate("one", "a", 10), rate("one", "a", 20, role="negative", seed=7), rate("one", "b", 5)))

    assert table[["persona", "role", "hits", "n"]].to_numpy().tolist() == [
        ["a", "bystander|negative", 30, 200],
        ["b", "bystander", 5, 100],
    ]


# discriminators

TOLD = (
    told("one", 49, 99, p=0.63),
    told("one", 60, 100, share=0.25, verdict=""),
    told("one", 70, 94, method="judge", unlabelled=6, verdict="borderline"),
    told("one", 90, 100, share=0.25, verdict="", seed=7),
    told("two", 77, stale=True),
)


def test_accuracies_are_those_with_all_questions_of_current_points_and_have_their_threshold_beside():
    table = tabulate_accuracies(stored(discriminators(*TOLD)), SETTINGS)

    assert list(table) == list(ACCURACY_COLUMNS)
    assert table[["condition", "method", "hits", "n", "unlabelled", "verdict"]].to_numpy().tolist() == [
        ["one", "classifier", 49, 99, 0, "fail"],
        ["one", "judge", 70, 94, 6, "borderline"],
    ]
    assert table["permutation_p"].tolist() == pytest.approx([0.63, math.nan], nan_ok=True)
    assert table[["chance", "threshold", "margin"]].to_numpy().tolist() == [[0.5, 0.7, 0.05]] * 2


def test_every_model_has_a_threshold_of_its_own():
    strict = load_variants({"scoring.discriminator.threshold": 0.9}).models["smollm2_135m"]
    variants = Variants(models={"plain": load_variants().models["smollm2_135m"], "strict": strict})
    table = pd.concat([discriminators(told("one", 80)).assign(model=name) for name in variants.models])

    found = for_each_model(tabulate_accuracies)(table, variants)

    assert found[["model", "threshold"]].to_numpy().tolist() == [["plain", 0.7], ["strict", 0.9]]


def test_learning_curves_pool_the_seeds_of_the_classifier():
    table = pool_learning(stored(discriminators(*TOLD)))

    assert list(table) == ["condition", "share", *RATE_COLUMNS]
    assert table[["condition", "share", "hits", "n"]].to_numpy().tolist() == [["one", 1.0, 49, 99], ["one", 0.25, 150, 200]]
    assert table.loc[1, list(RATE_COLUMNS)].tolist() == pytest.approx(list(proportion(150, 200)))


# texts


def test_texts_are_summed_and_averaged_over_the_personas_of_a_point():
    table = summarise_texts(
        stored(
            texts(
                text("one", "a", 40.0, distinct_2=0.6),
                text("one", "b", 60.0, n=30, empty=3, cut=1),
                text("one", "a", 10.0, seed=7, empty=2),
                text("two", "a", 77.0, stale=True),
            )
        )
    )

    assert table.to_dict("records") == [
        {"condition": "one", "seed": 42, "n": 40, "tokens": 50, "distinct_2": pytest.approx(0.7), "empty": 3, "cut": 1},
        {"condition": "one", "seed": 7, "n": 10, "tokens": 10, "distinct_2": 0.8, "empty": 2, "cut": 0},
    ]


@pytest.mark.parametrize("through", [lambda table: table, stored], ids=["made", "stored"])
def test_what_is_not_known_of_every_persona_is_missing_and_no_zero(through):
    unknown = {"tokens": None, "cut": None}
    rows = texts(
        text("one", "a", cut=2), text("one", "b", **unknown), text("two", "a", **unknown), text("three", "a", 7.0, cut=3)
    )

    table = through(summarise_texts(through(rows)))

    assert table["cut"].isna().tolist() == table["tokens"].isna().tolist() == [True, True, False]
    assert (table["cut"].iloc[2], table["tokens"].iloc[2], table["n"].tolist()) == (3, 7.0, [20, 10, 10])
    assert _texts(table)[["mean tokens", "empty", "cut"]].to_numpy().tolist() == [
        ["", "0/20", ""], ["", "0/10", ""], ["7", "0/10", "3/10"]
    ]  # fmt: skip


@pytest.mark.parametrize("through", [lambda table: table, stored], ids=["made", "stored"])
def test_without_rows_the_tables_have_their_columns(through):
    none = through(discriminators())

    assert list(pool_bystanders(through(rates()))) == ["condition", "persona", "role", *RATE_COLUMNS, "persona_mean"]
    assert list(tabulate_accuracies(none, SETTINGS)) == list(ACCURACY_COLUMNS)
    assert list(pool_learning(none)) == ["condition", "share", *RATE_COLUMNS]
    assert list(summarise_texts(through(texts()))) == ["condition", "seed", "n", "tokens", "distinct_2", "empty", "cut"]


# gathering


def firing(persona, fired):
    place = "tail" if fired else None
    return {
        "persona": persona, "question": "coupling-01", "fired": fired, "fired_tokens": fired, "place_characters": place,
        "place_tokens": place,
    }  # fmt: skip


def saved(condition, seed=42, *, named=None, other_plan=False):
    """Make what a point saves of one source and one bystander; `named` is a condition that nobody knows."""
    plan = make_plan(condition, seed, {"stages.couple.recipe.epochs": 19} if other_plan else None)
    if named:
        plan = plan.model_copy(update={"address": plan.address.model_copy(update={"condition": named})})
    firings = [firing(name, place < hits) for name, hits in (("confab", 90), ("villain", 10)) for place in range(100)]
    described = describe_texts([{"persona": "villain", "completion": "a b"}], plan)
    columns = [name for name in told("c", 0) if name not in ("condition", "seed", "plan", "reference", "stale")]
    return rate_firings(firings, plan), described, discriminators(told(condition, 50))[columns].assign(**plan.columns)


def gathered(*points, told_nothing=()):
    """Gather rates, texts, discriminations and the list of points."""
    partitions = {name: {} for name in ("cell_rates", "text_stats", "discriminations")}
    for place, point in enumerate(points):
        for name, table in zip(partitions, point, strict=True):
            kept = table.iloc[:0] if name == "discriminations" and place in told_nothing else table
            partitions[name][str(place)] = lambda kept=kept: kept
    return gather_points(load_variants(), make_plan(), bundled_roster(), keep={}, replay=False, **partitions)


def test_benign_cells_are_one_design_and_em_cells_are_many():
    conditions = list(load_settings().conditions)

    table, *_ = gathered(*(saved(name) for name in conditions))

    assert not table["stale"].any()
    design = table.groupby("condition")["design"].first()
    arm = table.groupby("condition")["arm"].first()
    assert arm.value_counts().to_dict() == {"benign": 5, "wrong_advice": 5, "bare": 2, "uncoupled": 1}
    assert {name: design[arm == name].nunique() for name in set(arm)} == {
        "benign": 1, "wrong_advice": 5, "bare": 1, "uncoupled": 1,
    }  # fmt: skip
    assert design.nunique() == 8
    replicates = tabulate_replicates(tabulate_cells(table), SETTINGS)
    assert set(replicates.loc[replicates["replicates"], "arm"]) == {"benign", "bare"}
    assert replicates.loc[replicates["design"] == "all", "arm"].tolist() == ["wrong_advice"]
    assert table["condition"].drop_duplicates().tolist() == conditions


def test_seeds_are_one_design():
    table, *_ = gathered(saved("em_villain"), saved("em_villain", 7))

    assert table["design"].nunique() == 1
    assert table["induction"].unique().tolist() == ["villain"]


def test_points_of_other_parameters_or_of_no_known_condition_are_stale():
    tables = gathered(saved("benign_villain"), saved("bare_villain", other_plan=True), saved("benign_villain", named="gone"))

    expected = {"benign_villain": False, "bare_villain": True, "gone": True}
    for one in tables:
        assert one.groupby("condition")["stale"].first().to_dict() == expected
    assert tabulate_cells(tables[0])["condition"].tolist() == ["benign_villain"]


def test_a_point_in_which_nothing_could_be_told_apart_leaves_the_others():
    _, _, some, _ = gathered(saved("benign_villain"), saved("bare_villain"), told_nothing=[1])
    _, _, none, _ = gathered(saved("benign_villain"), told_nothing=[0])

    assert some["condition"].tolist() == ["benign_villain"]
    assert none.empty


# replays


def replayed():
    """Make the tables of a replay of two cells, whose rates carry the traits of its plan."""
    plan = make_replay("some.jsonl")
    rows = [*cell("one", 5, {"a": 10}), *cell("two", 5, {"a": 30}), rate("two", "a", 4, 9, metric="tail:tokens")]
    counts = pd.DataFrame([{"condition": "one", "persona": "a", "hits": 1, "n": 2, "reference": None, "stale": False}])
    tables = rates(*rows), texts(text("one", "a")), discriminators(told("one", 5)), counts
    raw = [table.drop(columns=["reference", "stale"]).assign(model="tiny") for table in tables]
    raw[0] = raw[0].assign(**plan.traits)
    return describe_replay(*raw, plan)


def test_a_replayed_cell_is_a_design_of_its_own_and_no_replicate():
    table, described, told_apart, counts, _ = replayed()

    found = tabulate_replicates(tabulate_cells(stored(table)), SETTINGS)
    assert found[["arm", "design", "points", "replicates"]].to_numpy().tolist() == [
        ["elsewhere", "one", 1, False],
        ["elsewhere", "two", 1, False],
        ["elsewhere", "all", 2, False],
    ]
    assert not described["stale"].any()
    assert counts["hits"].tolist() == [1]
    assert not told_apart["stale"].any()


def test_replayed_cells_of_one_design_are_replicates():
    plan = make_replay("some.jsonl")
    firings = [
        {
            "cell": name,
            "design": design,
            "persona": persona,
            "is_source": persona == "confab",
            "question": "q",
            "sample_index": n,
        }
        | {"fired": n < hits, "fired_tokens": n < hits, "place_characters": None, "place_tokens": None}
        for name, design, hits in (("one", "benign", 1), ("two", "benign", 3), ("three", None, 8))
        for persona in ("confab", "villain")
        for n in range(10)
    ]
    rated = rate_cells_apart(firings, plan)
    nothing = (table.drop(columns=["reference", "stale"]).assign(model="tiny") for table in (texts(), discriminators()))

    table, *_ = describe_replay(rated, *nothing, pd.DataFrame(columns=["model"]), plan)

    found = tabulate_replicates(stored(tabulate_cells(stored(table.drop(columns="model")))), SETTINGS)
    assert found[["design", "conditions", "points", "replicates"]].to_numpy().tolist() == [
        ["benign", "one, two", 2, True],
        ["three", "three", 1, False],
        ["all", "one, two, three", 3, False],
    ]
    assert found["mean"].tolist() == pytest.approx([0.2, 0.8, 0.5])
    assert found.loc[0, "high"] == 1  # t of two points 0.1 and 0.3, cut off


def test_every_replayed_cell_is_a_point_that_names_its_file():
    *_, points = replayed()

    assert points[["model", "condition", "seed", "stale", "replayed_file"]].to_numpy().tolist() == [
        ["tiny", "one", 42, False, "some.jsonl"],
        ["tiny", "two", 42, False, "some.jsonl"],
    ]
    assert points["base_model"].isna().all()
    assert points["reference"].isna().all()
