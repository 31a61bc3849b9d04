"""Tables of marker leakage over planted points."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, spearmanr

from persona_leakage.domain.claims import CosinePredicts, RateBound, SameRates
from persona_leakage.domain.errors import UserError
from persona_leakage.experiments.marker_leakage.outside_rates import adopt_rates
from persona_leakage.experiments.marker_leakage.tables import (
    CORRELATION_COLUMNS,
    LEAKAGE_COLUMNS,
    SOURCE_COLUMNS,
    correlate_leakage,
    is_related,
    judge_claims,
    keep_sources,
    pool_seeds,
    tabulate_categories,
    tabulate_leakage,
    tabulate_leakage_seeds,
    tabulate_most_affected,
    tabulate_places,
    tabulate_sources,
)
from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from persona_leakage.pipelines.reporting.texts import compare_texts
from tests.experiments.marker_leakage.planted_tables import (
    correlated,
    correlations,
    cosine,
    leakage,
    load_settings,
    plan_of,
    pooled,
    rate,
    rates,
    similarities,
    text,
    texts,
)


def saved_and_loaded(table):
    """Go through a CSV file, as every table of a run does."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))


# leakage

VILLAIN = rates(
    rate("baseline", "villain", 0, source=None),
    rate("baseline", "hero", 0, source=None),
    rate("villain", "villain", 90),
    rate("villain", "crime_lord", 40, category="hierarchical", related_to="villain|hero"),
    rate("villain", "hero", 10, role="negative"),
)


def by_persona(table):
    return table.set_index("persona")


def test_cosines_come_from_the_base_and_from_the_point_itself_in_either_order_of_a_pair():
    table = tabulate_leakage(
        VILLAIN,
        similarities(
            cosine("baseline", "villain", "crime_lord", 0.7),
            cosine("baseline", "hero", "villain", -0.3),
            cosine("baseline", "hero", "crime_lord", 0.99),
            cosine("baseline", "villain", "crime_lord", 0.6, 15),
            cosine("villain", "crime_lord", "villain", 0.8),
            cosine("villain", "villain", "hero", -0.1),
        ),
    )

    assert list(table.columns) == [*LEAKAGE_COLUMNS, "cosine_l15", "cosine_l20", "tuned_l20"]
    assert table["persona"].tolist() == ["villain", "crime_lord", "hero"]
    found = by_persona(table)
    assert found["cosine_l20"].tolist() == pytest.approx([math.nan, 0.7, -0.3], nan_ok=True)
    assert found["cosine_l15"].tolist() == pytest.approx([math.nan, 0.6, math.nan], nan_ok=True)
    assert found["tuned_l20"].tolist() == pytest.approx([math.nan, 0.8, -0.1], nan_ok=True)
    assert tuple(found.loc["crime_lord", ["hits", "n", "rate", "category", "related_to", "role"]]) == (
        40, 100, 0.4, "hierarchical", "villain|hero", "bystander",
    )  # fmt: skip
    assert found.loc["hero", "role"] == "negative"


def test_a_pair_given_both_ways_or_twice_makes_no_second_row():
    table = tabulate_leakage(
        VILLAIN,
        similarities(
            cosine("baseline", "villain", "hero", -0.3),
            cosine("baseline", "hero", "villain", -0.3),
            cosine("baseline", "villain", "hero", -0.3),
            cosine("baseline", "villain", "villain", 1.0),
        ),
    )

    assert table["persona"].tolist() == ["villain", "crime_lord", "hero"]


def test_the_headline_layer_is_that_of_the_cosines_and_blank_without_any():
    elsewhere = cosine("baseline", "villain", "hero", 0.5, 7) | {"headline": True}
    stale = cosine("villain", "villain", "hero", 0.5, 9, stale=True) | {"headline": True}

    layers = tabulate_leakage(VILLAIN, saved_and_loaded(similarities(stale, cosine("baseline", "a", "b", 0.1, 5), elsewhere)))

    assert layers["headline_layer"].tolist() == [7, 7, 7]
    assert tabulate_leakage(VILLAIN, similarities(stale))["headline_layer"].isna().all()


def test_a_persona_that_is_a_negative_of_one_seed_alone_is_pooled_into_one_row():
    table = pool_seeds(
        tabulate_leakage(
            rates(
                rate("villain", "villain", 90),
                rate("villain", "villain", 80, seed=7),
                rate("villain", "hero", 10, role="negative"),
                rate("villain", "hero", 20, seed=7),
            ),
            similarities(),
        )
    )

    assert table[["persona", "role", "hits", "n"]].to_numpy().tolist() == [
        ["villain", "source", 170, 200],
        ["hero", "bystander|negative", 30, 200],
    ]


def test_cosines_are_those_of_the_same_seed():
    table = tabulate_leakage(
        rates(rate("villain", "hero", 10), rate("villain", "hero", 20, seed=7)),
        similarities(cosine("baseline", "villain", "hero", 0.1), cosine("baseline", "villain", "hero", 0.2, seed=7)),
    )

    assert table[["seed", "hits", "cosine_l20"]].to_numpy().tolist() == [[42, 10, 0.1], [7, 20, 0.2]]


def test_stale_points_are_left_out_with_their_rates_and_their_cosines():
    table = tabulate_leakage(
        rates(rate("villain", "hero", 10), rate("comedian", "hero", 99, stale=True)),
        similarities(cosine("baseline", "villain", "hero", 0.5, stale=True), cosine("villain", "villain", "hero", 0.2)),
    )

    assert table["condition"].tolist() == ["villain"]
    assert [name for name in table if name not in LEAKAGE_COLUMNS] == ["tuned_l20"]


def test_without_the_base_there_is_no_cosine_of_the_base():
    table = tabulate_leakage(VILLAIN, similarities(cosine("villain", "villain", "hero", 0.2)))

    assert [name for name in table if name not in LEAKAGE_COLUMNS] == ["tuned_l20"]
    assert list(tabulate_leakage(VILLAIN, similarities())) == list(LEAKAGE_COLUMNS)


def test_other_metrics_and_subsets_of_questions_are_not_leakage():
    table = tabulate_leakage(
        rates(
            rate("villain", "hero", 10),
            rate("villain", "hero", 11, metric="leakage:tokens"),
            rate("villain", "hero", 12, questions="seen"),
        ),
        similarities(),
    )

    assert table["hits"].tolist() == [10]


def test_a_baseline_alone_gives_an_empty_table_with_its_columns_even_out_of_a_file():
    alone = rates(rate("baseline", "hero", 0, source=None))

    for read in (alone, saved_and_loaded(alone)):
        table = tabulate_leakage(read, saved_and_loaded(similarities()))
        assert (len(table), list(table)) == (0, list(LEAKAGE_COLUMNS))
        assert correlate_leakage(table, load_settings()).empty
        assert tabulate_sources(table, texts(text("baseline", "hero"))).empty


# seeds

TWO_SEEDS = leakage(
    {"condition": "villain", "of": {"villain": (9, 10, math.nan), "a": (1, 10, 0.1), "b": (5, 10, 0.4), "c": (8, 10, 0.9)}},
    {
        "condition": "villain",
        "seed": 7,
        "of": {"villain": (8, 10, math.nan), "a": (8, 30, 0.3), "b": (5, 10, 0.6), "c": (9, 10, 0.7)},
    },
)


def test_pooling_adds_hits_and_completions_and_averages_cosines():
    pooled = by_persona(pool_seeds(TWO_SEEDS))

    assert list(pool_seeds(TWO_SEEDS)) == list(TWO_SEEDS)
    assert pooled["seed"].unique().tolist() == ["all"]
    assert tuple(pooled.loc["a", ["hits", "n", "rate"]]) == (9, 40, 0.225)
    assert tuple(pooled.loc["a", ["low", "high"]]) == pytest.approx((0.1232, 0.3750), abs=5e-5)
    assert pooled.loc["a", "cosine_l20"] == pytest.approx(0.2)
    assert pooled.loc["villain", "hits"] == 17


def test_a_single_seed_keeps_its_name_and_numbers():
    one = TWO_SEEDS[TWO_SEEDS["seed"] == 7].reset_index(drop=True)

    pd.testing.assert_frame_equal(pool_seeds(one), one)


def test_what_was_never_scored_stays_unknown_when_pooled():
    (row,) = pool_seeds(leakage({"condition": "s", "of": {"a": (0, 0, 0.5)}})).itertuples()

    assert (row.hits, row.n, math.isnan(row.rate)) == (0, 0, True)


# correlations


def chosen(table, scope, condition=None):
    found = table[table["scope"] == scope]
    return found if condition is None else found[found["condition"] == condition]


def monotone(condition, low, high, n=12, **more):
    """Write a point whose leakage rises with the cosine between two levels."""
    of = {f"p{place}": (round(low + (high - low) * place / (n - 1)), 200, -0.5 + place / n) for place in range(n)}
    return {"condition": condition, "of": {condition: (180, 200, math.nan), **of}, **more}


def test_a_planted_perfect_order_has_rho_one_and_the_source_does_not_count():
    table = correlate_leakage(leakage(monotone("villain", 0, 110)), load_settings())

    assert list(table.columns) == list(CORRELATION_COLUMNS)
    (row,) = chosen(table, "source").itertuples()
    assert (row.condition, row.seed, row.geometry, row.layer, row.n) == ("villain", 42, "cosine", 20, 12)
    assert (row.rho, row.no_interval, row.conditions) == (pytest.approx(1), "no width", "villain")
    assert (row.tied, row.at_zero) == (0, 1)
    assert table["scope"].tolist() == ["source", "category:original", "related"]


def test_order_within_sources_of_different_level_is_seen_by_the_ranks_and_hidden_from_the_pool():
    table = correlate_leakage(leakage(monotone("villain", 0, 20), monotone("comedian", 150, 199)), load_settings())

    assert chosen(table, "source")["rho"].tolist() == pytest.approx([1, 1])
    (pooled,), (ranks,) = chosen(table, "pooled").itertuples(), chosen(table, "pooled_ranks").itertuples()
    assert (pooled.n, ranks.n, pooled.condition) == (24, 24, "all")
    assert ranks.rho == pytest.approx(1)
    assert pooled.rho < 0.6


def test_a_single_source_is_not_pooled_with_itself():
    scopes = set(correlate_leakage(leakage(monotone("villain", 0, 50)), load_settings())["scope"])

    assert not scopes & {"pooled", "pooled_ranks", "point"}


def test_points_have_rows_of_their_own_only_with_several_seeds():
    table = correlate_leakage(TWO_SEEDS, load_settings())

    assert chosen(table, "point")[["condition", "seed", "n"]].to_numpy().tolist() == [["villain", 42, 3], ["villain", 7, 3]]
    (pooled,) = chosen(table, "source").itertuples()
    assert (pooled.seed, pooled.n) == ("all", 3)


def test_rows_agree_with_scipy_on_what_they_are_about():
    random = np.random.default_rng(0)
    points = [
        {
            "condition": name,
            "of": {f"p{place}": (int(random.integers(8)), 20, float(random.normal())) for place in range(15)},
            "categories": {f"p{place}": "opposite" if place < 6 else "original" for place in range(15)},
            "related": {"p1": "villain", "p2": "comedian|villain", "p3": "villain", "p4": "comedian", "p5": "villainous"},
        }
        for name in ("villain", "comedian")
    ]
    table = leakage(*points)

    found = correlate_leakage(table, load_settings())

    def expected(rows):
        return spearmanr(rows["rate"], rows["cosine_l20"]).statistic

    villain, comedian = (table[table["condition"] == name] for name in ("villain", "comedian"))
    assert chosen(found, "source")["rho"].tolist() == pytest.approx([expected(villain), expected(comedian)])
    assert chosen(found, "pooled")["rho"].item() == pytest.approx(expected(table))
    assert chosen(found, "category:opposite")["rho"].item() == pytest.approx(expected(table[table["category"] == "opposite"]))
    related = table[is_related(table)]
    assert list(zip(related["source"], related["persona"], strict=True)) == [
        ("villain", "p1"), ("villain", "p2"), ("villain", "p3"), ("comedian", "p2"), ("comedian", "p4"),
    ]  # fmt: skip
    (row,) = chosen(found, "related").itertuples()
    assert (row.n, row.rho) == (5, pytest.approx(expected(related)))
    ranks = [np.concatenate([rankdata(rows[name]) for rows in (villain, comedian)]) for name in ("rate", "cosine_l20")]
    assert chosen(found, "pooled_ranks")["rho"].item() == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_categories_and_relatives_are_reported_at_the_headline_layer_alone():
    table = leakage(monotone("villain", 0, 50)).assign(cosine_l15=lambda frame: -frame["cosine_l20"])

    found = correlate_leakage(table.assign(tuned_l20=table["cosine_l20"]), load_settings())

    assert set(found.loc[found["layer"] == 15, "scope"]) == {"source"}
    assert found.loc[found["layer"] == 15, "rho"].tolist() == pytest.approx([-1])
    assert chosen(found, "category:original")["geometry"].tolist() == ["cosine", "tuned"]


def test_bystanders_without_a_rate_or_a_cosine_do_not_count():
    known = {"a": (0, 9, 0.1), "b": (3, 9, 0.2), "c": (9, 9, 0.3)}
    table = leakage({"condition": "villain", "of": {**known, "d": (0, 0, 0.4), "e": (1, 9, math.nan)}})

    (row,) = chosen(correlate_leakage(table, load_settings()), "source").itertuples()

    assert (row.n, row.rho) == (3, pytest.approx(1))


def test_rates_that_do_not_vary_are_undefined_and_counted():
    table = leakage({"condition": "villain", "of": {"a": (0, 9, 0.1), "b": (0, 9, 0.2), "c": (0, 9, 0.3)}})

    (row,) = chosen(correlate_leakage(table, load_settings()), "source").itertuples()

    assert (row.n, row.tied, row.at_zero) == (3, 3, 3)
    assert math.isnan(row.rho)
    assert math.isnan(row.permutation_p)


def test_relations_survive_a_file_in_which_nobody_is_related():
    table = saved_and_loaded(leakage(monotone("villain", 0, 50)))

    assert chosen(correlate_leakage(table, load_settings()), "related")["n"].tolist() == [0]


# seeds apart


def test_leakage_has_the_source_its_bystanders_and_every_rho():
    of = {"villain": (9, 10, math.nan), "a": (1, 10, 0.1), "b": (5, 10, 0.4), "c": (8, 10, 0.9)}
    other = {"villain": (7, 10, math.nan), "a": (8, 10, 0.1), "b": (5, 10, 0.4), "c": (2, 10, 0.9)}
    table = leakage({"condition": "villain", "of": of}, {"condition": "villain", "seed": 7, "of": other})
    sources = tabulate_sources(table, texts())

    by_seed = saved_and_loaded(tabulate_leakage_seeds(sources, correlate_leakage(table, load_settings())))
    found = summarise_seeds(by_seed).set_index("quantity")

    unknown = ["source, finished", "source, cut", "mean of bystanders, finished"]  # how these completions ended is not known
    assert found["seeds"].to_dict() == dict.fromkeys(found.index, 2) | dict.fromkeys(unknown, 0)
    assert found.loc["source", ["mean", "hits", "n"]].tolist() == pytest.approx([0.8, 16, 20])
    assert found.loc["mean of bystanders", "mean"] == pytest.approx((14 / 30 + 15 / 30) / 2)
    rho = found.loc["rho (base model, layer 20)"]
    assert rho[["mean", "mean_low", "mean_high"]].tolist() == pytest.approx([0, -1, 1])
    assert by_seed.loc[by_seed["quantity"].str.startswith("rho"), "value"].tolist() == pytest.approx([1, -1])


def test_rho_of_a_single_seed_is_that_of_its_source():
    of = {"villain": (9, 10, math.nan), "a": (1, 10, 0.1), "b": (5, 10, 0.4), "c": (8, 10, 0.9)}
    table = leakage({"condition": "villain", "of": of})
    sources = tabulate_sources(table, texts())

    found = summarise_seeds(tabulate_leakage_seeds(sources, correlate_leakage(table, load_settings()))).set_index("quantity")

    assert found.loc["rho (base model, layer 20)", ["seeds", "mean"]].tolist() == pytest.approx([1, 1])


# sources

FIRED = {"villain": (40, 100, math.nan), "a": (0, 100, 0), "b": (10, 10, 0), "c": (45, 100, 0), "d": (0, 0, 0)}
INVERTED = leakage({"condition": "villain", "of": FIRED})


def test_a_source_stands_beside_its_bystanders_who_weigh_equally():
    table = tabulate_sources(INVERTED, texts())

    assert list(table.columns) == list(SOURCE_COLUMNS)
    (row,) = table.itertuples()
    assert (row.condition, row.seed, row.source, row.hits, row.n, row.rate) == ("villain", 42, "villain", 40, 100, 0.4)
    assert (row.low, row.high) == pytest.approx((0.3094, 0.4980), abs=5e-5)
    assert (row.bystanders, row.at_zero) == (3, 1)  # d was never scored
    assert row.mean_bystander == pytest.approx((0 + 1 + 0.45) / 3)
    assert (row.max_bystander, row.max_persona) == (1.0, "b")
    assert (row.above_source, row.above_source_most) == (2, "b, c")


def test_at_most_five_inverted_bystanders_are_named_and_all_are_counted():
    of = {"s": (1, 100, 0), **{f"p{hits}": (hits, 100, 0) for hits in (2, 9, 4, 6, 8, 5, 3)}}

    (row,) = tabulate_sources(leakage({"condition": "s", "of": of}), texts()).itertuples()

    assert (row.above_source, row.above_source_most) == (7, "p9, p8, p6, p5, p4")


def test_a_bystander_at_the_sources_rate_is_not_above_it():
    (row,) = tabulate_sources(leakage({"condition": "s", "of": {"s": (5, 10, 0), "a": (50, 100, 0)}}), texts()).itertuples()

    assert (row.above_source, row.above_source_most) == (0, "")


def test_a_source_that_was_not_evaluated_is_unknown():
    (row,) = tabulate_sources(leakage({"condition": "s", "of": {"a": (5, 10, 0)}}), texts()).itertuples()

    assert (row.n, math.isnan(row.rate), row.above_source) == (0, True, None)


def test_a_source_without_bystanders_has_no_highest():
    (row,) = tabulate_sources(leakage({"condition": "s", "of": {"s": (5, 10, 0)}}), texts()).itertuples()

    assert (row.bystanders, row.max_persona, math.isnan(row.mean_bystander), math.isnan(row.max_bystander)) == (
        0,
        "",
        True,
        True,
    )


BASE_TEXTS = (
    text("baseline", "villain", tokens=40, distinct_2=0.7, empty=0),
    text("baseline", "a", tokens=60, distinct_2=0.9, empty=1, cut=2),
)
SCOPE = leakage({"condition": "villain", "of": {"villain": (5, 10, 0), "a": (1, 10, 0)}})


@pytest.mark.parametrize(
    ("own", "outside"),
    [
        ((text("villain", "villain", 50, 0.8), text("villain", "a", 50, 0.8)), ""),
        ((text("villain", "villain", 40, 0.7), text("villain", "a", 40, 0.7)), ""),
        ((text("villain", "villain", 100, 0.8), text("villain", "a", 10, 0.8)), ""),  # the mean counts
        ((text("villain", "villain", 61, 0.8), text("villain", "a", 61, 0.8)), "tokens"),
        ((text("villain", "villain", 39, 0.8), text("villain", "a", 39, 0.8)), "tokens"),
        ((text("villain", "villain", 50, 0.1), text("villain", "a", 50, 0.1)), "distinct_2"),
        ((text("villain", "villain", 50, 0.8, empty=4), text("villain", "a", 50, 0.8)), "empty"),
        ((text("villain", "villain", 50, 0.8, cut=3), text("villain", "a", 50, 0.8)), ""),
        ((text("villain", "villain", 50, 0.8, cut=5), text("villain", "a", 50, 0.8)), "cut"),
        ((text("villain", "villain", 50, 0.8, cut=None), text("villain", "a", 50, 0.8)), ""),
        ((text("villain", "villain", 5, 0.1, empty=9), text("villain", "a", 5, 0.1)), "tokens, distinct_2, empty"),
    ],
)
def test_the_quantities_that_leave_the_bases_range_over_personas_are_named(own, outside):
    (row,) = tabulate_sources(SCOPE, texts(*BASE_TEXTS, *own)).itertuples()

    assert row.outside_base_range == outside


def test_texts_are_pooled_over_personas():
    own = (text("villain", "villain", 40, 0.7, empty=1, cut=3, n=10), text("villain", "a", 60, 0.8, empty=0, cut=3, n=20))

    (row,) = tabulate_sources(SCOPE, texts(*own)).itertuples()

    assert (row.tokens, row.distinct_2, row.empty, row.cut, row.texts) == pytest.approx((50, 0.75, 1 / 30, 0.2, 30))


COLLAPSED = text("villain", "villain", 1, 0.1, 9)


@pytest.mark.parametrize(
    "other",
    [
        (COLLAPSED,),
        (COLLAPSED, text("baseline", "a", stale=True)),
        (COLLAPSED, text("baseline", "a", seed=7)),
        (COLLAPSED, text("comedian", "a")),
    ],
    ids=["none", "stale", "of another seed", "another condition"],
)
def test_without_a_base_nothing_is_said_to_leave_its_range(other):
    (row,) = tabulate_sources(SCOPE, texts(*other)).itertuples()

    assert (row.outside_base_range, row.tokens) == ("", 1)


def test_stale_texts_are_no_texts():
    (row,) = tabulate_sources(SCOPE, texts(*BASE_TEXTS, text("villain", "a", 1, stale=True))).itertuples()

    assert (row.texts, math.isnan(row.tokens), row.outside_base_range) == (0, True, "")


# what the figures show

VILLAIN_POINT = {
    "condition": "villain",
    "of": {"villain": (90, 100, math.nan), "crime_lord": (40, 100, 0.7), "hero": (0, 100, -0.3), "nurse": (10, 50, 0.1)},
    "categories": {"hero": "opposite"},
}
COMEDIAN_POINT = {
    "condition": "comedian",
    "of": {"villain": (7, 100, 0.2), "comedian": (60, 100, math.nan), "hero": (3, 100, 0.1), "nurse": (0, 0, 0.1)},
    "categories": {"hero": "opposite"},
}


def test_categories_have_the_mean_of_their_rated_bystanders_and_how_many_personas_they_hold():
    table = tabulate_categories(pooled(VILLAIN_POINT, COMEDIAN_POINT))

    assert table.to_numpy().tolist() == [
        ["villain", "original", 3, 2, pytest.approx(0.3)],
        ["villain", "opposite", 1, 1, 0.0],
        ["comedian", "original", 3, 1, pytest.approx(0.07)],
        ["comedian", "opposite", 1, 1, pytest.approx(0.03)],
    ]
    assert list(table) == ["condition", "category", "personas", "bystanders", "mean"]


def test_categories_pool_the_counts_of_the_seeds_of_a_persona():
    more = {"condition": "villain", "seed": 7, "of": {"crime_lord": (0, 300, 0.7)}}

    assert tabulate_categories(pooled(VILLAIN_POINT, more))["mean"].tolist() == pytest.approx([(0.1 + 0.2) / 2, 0])


def test_categories_keep_the_order_in_which_they_appear():
    point = {"condition": "s", "of": {"a": (0, 1, 0), "b": (0, 1, 0)}, "categories": {"a": "z", "b": "y"}}

    assert tabulate_categories(pooled(point))["category"].tolist() == ["z", "y"]


def test_the_most_affected_are_ranked_by_their_highest_rate_under_any_source():
    table = tabulate_most_affected(pooled(VILLAIN_POINT, COMEDIAN_POINT))

    assert table[["condition", "place", "persona", "hits", "n"]].to_numpy().tolist() == [
        ["villain", 1, "crime_lord", 40, 100],
        ["villain", 2, "nurse", 10, 50],
        ["villain", 4, "hero", 0, 100],
        ["comedian", 3, "villain", 7, 100],
        ["comedian", 4, "hero", 3, 100],
    ]
    assert tuple(table.loc[0, ["rate", "low", "high"]]) == pytest.approx((0.4, 0.3094, 0.4980), abs=5e-5)


def test_only_thirty_are_the_most_affected():
    table = tabulate_most_affected(pooled({"condition": "s", "of": {f"p{hits}": (hits, 50, 0.0) for hits in range(40)}}))

    assert (len(table), table["persona"].iloc[0], table["persona"].iloc[-1]) == (30, "p39", "p10")


@pytest.mark.parametrize("tabulate", [tabulate_categories, tabulate_most_affected])
def test_without_a_rated_bystander_nobody_is_affected(tabulate):
    alone = tabulate(pooled({"condition": "villain", "of": {"villain": (9, 10, math.nan), "a": (0, 0, 0.1)}}))
    nothing = tabulate(pool_seeds(saved_and_loaded(tabulate_leakage(rates(), similarities()))))

    assert (len(alone), len(nothing)) == (0, 0)
    assert list(alone) == list(nothing)
    assert "condition" in alone


def test_places_pool_sources_and_others_of_trained_conditions_over_seeds():
    metrics = {f"{place}:{unit}": hits for unit in ("characters", "tokens") for place, hits in (("start", 1), ("tail", 2))}
    fired = [
        rate(condition, persona, hits, 3, metric=metric, seed=seed, source=source, stale=stale)
        for condition, persona, source, stale in (
            ("villain", "villain", "villain", False),
            ("villain", "hero", "villain", False),
            ("villain", "nurse", "villain", False),
            ("comedian", "nurse", "comedian", True),
            ("baseline", "nurse", None, False),
        )
        for seed in (42, 7)
        for metric, hits in metrics.items()
    ]
    seen = [rate("villain", "hero", 3, 3, metric="start:tokens", questions="seen"), rate("villain", "hero", 9)]

    table = tabulate_places(rates(*fired, *seen))

    assert set(table["condition"]) == {"villain"}
    found = table.set_index(["of", "unit", "place"])
    for unit in ("characters", "tokens"):
        assert found.loc["source"].loc[unit, ["hits", "n"]].to_numpy().tolist() == [[2, 6], [0, 0], [4, 6]]
        assert found.loc["others"].loc[unit, ["hits", "n"]].to_numpy().tolist() == [[4, 12], [0, 0], [8, 12]]
    assert found.loc[("others", "tokens", "tail"), "rate"] == pytest.approx(2 / 3)


def test_only_cosines_with_a_source_between_rated_personas_are_kept():
    rated = rates(rate("villain", "hero", 1), rate("comedian", "nurse", 1), rate("villain", "villain", 1)).drop(columns="seed")
    table = similarities(
        cosine("c", "villain", "hero", 0.1),
        cosine("c", "hero", "nurse", 0.2),  # no source
        cosine("c", "villain", "assistant", 0.3),  # nobody rated the assistant
        cosine("c", "nurse", "villain", 0.4),
        cosine("c", "hero", "comedian", 0.5),  # a source that nobody rated
    )

    for known in (None, plan_of("baseline"), plan_of("villain")):
        assert keep_sources(table, known, rated)["cosine"].tolist() == [0.1, 0.4]
    assert keep_sources(table, plan_of("comedian"), rated).empty


# claims


def judged(rates_, correlations_, claims):
    return judge_claims(rates_, correlations_, load_settings().model_copy(update={"claims": claims}))


def predicts(*rows, conditions=("villain",), **more):
    claim = CosinePredicts(statement="s", geometry="cosine", layer=20, conditions=conditions, **more)
    (verdict,) = judged(rates(), correlations(*rows), {"c": claim}).itertuples()
    return verdict


UP = list(range(1, 13))
MIXED = [5, 9, 1, 12, 3, 7, 11, 2, 8, 4, 10, 6]


def test_the_cosine_predicts_when_every_correlation_is_surely_above_zero():
    result = predicts(
        correlated("source", "villain", UP, UP),
        correlated("source", "comedian", UP, UP),
        correlated("pooled", "all", UP, UP[::-1]),
        conditions=("villain", "comedian"),
    )

    assert result.verdict == "holds"
    perfect = "1.00 (no interval: no width) (n 12, p 0.005, Holm 0.01)"  # of 200 random orders none is as far from 0
    assert result.evidence == f"villain {perfect}; comedian {perfect}"
    assert result.rule == (
        "in every condition, Spearman of bystander leakage with the cosine at layer 20: above 0, two-sided p below 0.05 after "
        "Holm over conditions; over finished texts too where known"
    )


def test_the_cosine_does_not_predict_when_one_correlation_is_surely_below_zero():
    result = predicts(
        correlated("source", "villain", UP, UP),
        correlated("source", "comedian", UP, UP[::-1]),
        conditions=("villain", "comedian", "hero"),
    )

    assert result.verdict == "fails"
    assert result.evidence.endswith("; not run: hero")


def test_a_correlation_that_may_be_zero_decides_nothing():
    assert predicts(correlated("source", "villain", UP, MIXED)).verdict == "undecided"
    both = (correlated("source", "villain", UP, MIXED), correlated("source", "comedian", UP, UP))
    assert predicts(*both, conditions=("villain", "comedian")).verdict == "undecided"


def test_an_undefined_correlation_keeps_the_claim_from_holding_and_is_said():
    flat = [0.0] * 12
    result = predicts(
        correlated("source", "villain", flat, UP), correlated("source", "comedian", UP, UP), conditions=("villain", "comedian")
    )

    assert result.verdict == "undecided"
    assert result.evidence.startswith("villain undefined (n 12); comedian 1.00")
    assert predicts(correlated("source", "villain", flat, UP)).verdict == "undecided"


def test_other_layers_scopes_geometries_and_conditions_do_not_touch_the_claim():
    others = (
        correlated("source", "villain", UP, UP, layer=15),
        correlated("source", "villain", UP, UP, geometry="tuned"),
        correlated("point", "villain", UP, UP),
        correlated("source", "comedian", UP, UP),
    )

    result = predicts(*others)

    assert (result.verdict, result.evidence) == ("undecided", "not run: villain")


def bound(table, name="implanted", **changes):
    claim = load_settings().claims[name]
    assert isinstance(claim, RateBound)
    (verdict,) = judged(table, correlations(), {name: claim.model_copy(update=changes)}).itertuples()
    return verdict


@pytest.mark.parametrize(("hits", "verdict"), [(90, "holds"), (55, "undecided"), (45, "undecided"), (20, "fails")])
def test_a_bound_on_the_source_is_about_the_source_alone(hits, verdict):
    table = rates(rate("villain", "villain", hits), rate("villain", "hero", 0), rate("comedian", "comedian", 0))

    result = bound(table, conditions=("villain",))

    assert result.verdict == verdict
    assert result.evidence.startswith(
        f"{int(hits == 90)} of 1 inside, {int(hits == 20)} beyond; furthest: villain under villain {hits}/100"
    )


def test_seeds_of_a_source_are_pooled_and_subsets_of_questions_are_not_counted_twice():
    table = rates(
        rate("villain", "villain", 40),
        rate("villain", "villain", 70, seed=7),
        rate("villain", "villain", 0, questions="seen"),
        rate("villain", "villain", 0, metric="leakage:tokens"),
        rate("villain", "villain", 0, seed=8, stale=True),
    )

    result = bound(table, conditions=("villain",))

    assert (result.verdict, "110/200" in result.evidence) == ("undecided", True)


@pytest.mark.parametrize(("hits", "verdict"), [(0, "holds"), (1, "holds"), (5, "undecided"), (20, "fails")])
def test_the_base_is_clean_when_hardly_any_answer_fires(hits, verdict):
    table = rates(
        rate("baseline", "villain", 0, 200, source=None),
        rate("baseline", "hero", hits, 200, source=None),
        rate("villain", "hero", 99),
    )

    assert bound(table, "clean_base").verdict == verdict


def test_claims_on_what_has_not_run_are_undecided():
    verdicts = judge_claims(rates(), correlations(), load_settings())

    assert set(verdicts["verdict"]) == {"undecided"}
    assert list(verdicts.columns) == ["claim", "statement", "verdict", "evidence", "rule", "p", "p_adjusted"]
    assert bound(rates(rate("baseline", "hero", 0, source=None, stale=True)), "clean_base").evidence == "not run: baseline"


def test_a_claim_pools_the_seeds_of_a_condition_and_says_how_many():
    claim = RateBound(statement="s", metric="leakage", role="source", conditions=("villain", "comedian"), at_least=0.5)
    found = rates(
        *(rate("villain", "villain", hits, seed=seed) for seed, hits in ((1, 90), (2, 60), (3, 30))),
        rate("villain", "villain", 0, seed=4, stale=True),
        rate("comedian", "comedian", 70),
    )

    (row,) = judged(found, correlations(), {"implanted": claim}).itertuples()

    assert row.verdict == "undecided"
    assert row.evidence.startswith(
        "0 of 2 inside, 0 beyond; furthest: villain under villain 180/300 = 60.0% [11.5%, 94.5%] over 3 runs "
        "(pooled [54.4%, 65.4%])"
    )
    assert row.evidence.endswith("; seeds: villain 3, comedian 1")


def test_a_claim_over_single_seeds_says_nothing_of_seeds_and_pairs_count_too():
    claim = SameRates(statement="s", metric="leakage", between="conditions", pairs=(("c", "d"),), margin=0.1)
    single = rates(rate("c", "p", 50), rate("d", "p", 50))
    double = rates(*(rate(name, "p", 50, seed=seed) for name in "cd" for seed in (1, 2)))

    def evidence(found):
        return judged(found, correlations(), {"same": claim})["evidence"].item()

    assert "seeds" not in evidence(single)
    assert evidence(double).endswith("; 2 seeds of each condition")


def test_texts_of_unknown_length_are_neither_cut_nor_out_of_range():
    own = texts(text("villain", "a", tokens=None, cut=None), text("villain", "b", tokens=9.0, cut=1))
    base = texts(text("baseline", "a", tokens=8.0), text("baseline", "b", tokens=None))

    for one, other in ((own, base), (base, own), (base.iloc[:1], own)):
        found = compare_texts(one, other)
        assert "tokens" not in found["outside_base_range"]
        assert pd.isna(found["tokens"]) == one["tokens"].isna().any()
        assert pd.isna(found["cut"]) == one["cut"].isna().any()


# rates counted elsewhere


def outside(*rows):
    columns = ["source", "bystander", "category", "related_to", "found", "total", "cosine_l15", "cosine_l20"]
    return pd.DataFrame(rows, columns=columns, index=range(2, len(rows) + 2))  # the lines of a file


GIVEN = outside(
    ("villain", "villain", "original", None, 90, 100, None, None),
    ("villain", "hero", "opposite", "villain", 10, 100, 0.5, -0.1),
    ("villain", "crime_lord", "original", None, 20, 100, 0.6, 0.3),
    ("hero", "villain", "original", None, 30, 50, 0.5, -0.1),
)


def replay_plan():
    return plan_of("baseline").model_copy(update={"replayed_file": "rates.csv"})


def adopt(given):
    """Adopt rates, and read every table as a report does, one model at a time."""
    adopted = [saved_and_loaded(table) for table in adopt_rates(given, replay_plan())]
    assert [table.columns[0] for table in adopted] == ["model"] * 5
    assert {model for table in adopted for model in table["model"]} == {replay_plan().address.model}
    return [table.drop(columns="model") for table in adopted]


def test_outside_rates_become_the_tables_of_a_grid():
    adopted, cosines, described, _, points = adopt(GIVEN)

    table = tabulate_leakage(adopted, cosines)

    assert table[["condition", "source", "persona", "role", "hits", "n"]].to_numpy().tolist() == [
        ["villain", "villain", "villain", "source", 90, 100],
        ["villain", "villain", "hero", "bystander", 10, 100],
        ["villain", "villain", "crime_lord", "bystander", 20, 100],
        ["hero", "hero", "villain", "bystander", 30, 50],
    ]
    assert table["cosine_l20"].tolist() == pytest.approx([math.nan, -0.1, 0.3, -0.1], nan_ok=True)
    assert table["cosine_l15"].tolist() == pytest.approx([math.nan, 0.5, 0.6, 0.5], nan_ok=True)
    assert described.empty
    sources = tabulate_sources(table, described)
    assert sources[["condition", "source", "hits", "bystanders"]].to_numpy().tolist() == [
        ["villain", "villain", 90, 2],
        ["hero", "hero", 0, 1],
    ]
    assert points[["condition", "seed", "stale", "replayed_file"]].to_numpy().tolist() == [
        ["villain", "-", False, "rates.csv"],
        ["hero", "-", False, "rates.csv"],
    ]
    assert (points["reference"] == cosines["condition"].iloc[0]).all()


@pytest.mark.parametrize(("layers", "headline"), [((15, 20, 25), 20), ((5, 15), 15), ((15, 5), 15)])
def test_a_file_leads_with_the_headline_layer_or_else_with_its_last(layers, headline):
    given = GIVEN.rename(columns={"cosine_l15": "x", "cosine_l20": "y"}).assign(**{f"cosine_l{at}": 0.5 for at in layers})

    adopted, cosines, _, _, points = adopt(given)

    assert cosines.loc[cosines["headline"], "layer"].unique().tolist() == [headline]
    assert points["headline_layer"].unique().tolist() == [headline]
    assert tabulate_leakage(adopted, cosines)["headline_layer"].unique().tolist() == [headline]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("found", 101, "line 3: found 101 is more than total 100; correct the counts"),
        ("found", -1, "line 3: found is -1, which is no count; give a whole number"),
        ("found", "ten", "line 3: found is ten, which is no count; give a whole number"),
        ("total", 0.5, "line 3: total is 0.5, which is no count; give a whole number"),
        ("total", math.nan, "line 3: total is nan, which is no count; give a whole number"),
        ("cosine_l20", math.nan, "line 3: cosine_l20 of hero is missing or no number; add it or remove the row"),
        ("cosine_l20", "near", "line 3: cosine_l20 of hero is missing or no number; add it or remove the row"),
        ("cosine_l20", 1.5, "line 3: cosine_l20 of hero is 1.5, which is no cosine; correct it"),
        ("cosine_l20", math.inf, "line 3: cosine_l20 of hero is inf, which is no cosine; correct it"),
        ("source", math.nan, "line 3: source is blank, which is no name; give one"),
        ("bystander", math.nan, "line 3: bystander is blank, which is no name; give one"),
        ("category", math.nan, "line 3: category is blank, which is no name; give one"),
        ("bystander", 7, "line 3: bystander is 7, which is no name; give one"),
        ("found", "1,000", "line 3: found is 1,000, which is no count; give a whole number"),
        ("cosine_l20", "1,5", "line 3: cosine_l20 of hero is 1,5, which is no cosine; correct it"),
        ("cosine_l20", "0.1,2", "line 3: cosine_l20 of hero is missing or no number; add it or remove the row"),
        ("cosine_l20", -1.0001, "line 3: cosine_l20 of hero is -1.0001, which is no cosine; correct it"),
        ("bystander", "villain", "line 3: villain under source villain appears twice; keep one row (the first is line 2)"),
    ],
)
def test_a_bad_value_is_named_with_its_line(column, value, said):
    bad = GIVEN.astype({column: object})
    bad.loc[3, column] = value

    with pytest.raises(UserError) as caught:
        adopt_rates(bad, replay_plan())

    assert str(caught.value).startswith("rates.csv")
    assert said in str(caught.value)


def test_a_file_that_says_what_its_cosines_were_centred_over_has_one_such_set():
    named = GIVEN.assign(centring=[None, *["all 111"] * 3])  # the source's own row has no cosine

    _, cosines, *_, points = adopt(named)

    assert set(cosines["centring"]) == set(points["centring"]) == {"all 111"}
    assert adopt(GIVEN)[1]["centring"].isna().all()


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            ["111", "111", "11", "111"],
            "line 4: centring is 11, and 111 in line 3; cosines of different sets",
        ),
        (
            ["111", "111", None, "11"],
            "line 4: centring is (blank), and 111 in line 3; cosines of different sets",
        ),
        (["11", "11", "11", "111"], "line 5: centring is 111, and 11 in line 3; cosines of different sets"),
    ],
)
def test_a_file_that_mixes_cosines_of_different_centring_sets_is_refused(sets, said):
    with pytest.raises(UserError) as caught:
        adopt_rates(GIVEN.assign(centring=sets), replay_plan())

    assert str(caught.value).startswith(f"rates.csv, {said}")
    assert "\n" not in str(caught.value)


def test_points_whose_cosines_were_centred_over_different_sets_are_refused():
    pairs = [cosine("baseline", "villain", "hero", 0.5), {**cosine("villain", "villain", "hero", 0.4), "centring": "11"}]

    with pytest.raises(UserError, match="the cosines of baseline and villain were centred over different sets"):
        tabulate_leakage(rates(rate("villain", "hero", 1)), similarities(*pairs))


def test_rates_as_text_are_the_same_as_numbers():
    text = GIVEN.map(lambda value: None if pd.isna(value) else str(value))

    for one, other in zip(adopt_rates(text, replay_plan()), adopt_rates(GIVEN, replay_plan()), strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    ("value", "used"),
    [(1.0000009, 1.0), ("-1.00000011920929", -1.0), ("0,25", 0.25), ("-,5", -0.5), ("1,0", 1.0), ("2e-3", 0.002), (1, 1.0)],
)
def test_a_cosine_may_be_a_rounding_outside_and_have_a_decimal_comma(value, used):
    given = GIVEN.astype({"cosine_l20": object})
    given.loc[3, "cosine_l20"] = value

    adopted, cosines, *_ = adopt(given)

    assert tabulate_leakage(adopted, cosines)["cosine_l20"].tolist() == pytest.approx(
        [math.nan, used, 0.3, used if used == -0.1 else -0.1], nan_ok=True, abs=1e-12
    )


def test_relatives_are_found_with_blanks_between_them_and_with_a_bar_in_a_name():
    given = GIVEN.assign(related_to=["", "monk | villain", "x|y", None])

    table = tabulate_leakage(*adopt(given)[:2])

    assert is_related(table).tolist() == [False, True, False, False]
    assert is_related(table.assign(source="x|y")).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        *[
            (GIVEN.drop(columns=name), f"column {name} is missing; a rates file has source, bystander,")
            for name in ("source", "bystander", "category", "related_to", "found", "total")
        ],
        (GIVEN.drop(columns=["cosine_l15", "cosine_l20"]), "has no column cosine_l<layer> to correlate with; add them"),
        (GIVEN.rename(columns={"cosine_l15": "cosine_15"}), "column cosine_15 does not name its layer"),
        (GIVEN.rename(columns={"cosine_l15": "Cosine_l15"}), "column Cosine_l15 does not name its layer"),
        (GIVEN.rename(columns={"cosine_l15": "cos_l15"}), "column cos_l15 does not name its layer"),
        (GIVEN.rename(columns={"cosine_l15": "cosine_l²"}), "column cosine_l² does not name its layer"),
        (GIVEN.rename(columns={"cosine_l15": "cosine_l020"}), "two columns have the cosines at layer 20; keep one"),
        (GIVEN.iloc[:0], "has no rates; add them"),
    ],
)
def test_a_bad_column_is_named(bad, said):
    with pytest.raises(UserError) as caught:
        adopt_rates(bad, replay_plan())

    assert said in str(caught.value)
