import math

import pandas as pd
import pytest

from persona_leakage.experiments.lang_inversion.report import _centred_otherwise
from persona_leakage.experiments.lang_inversion.tables import (
    compare_cut,
    compare_detectors,
    compare_published,
    correlate,
    correlate_projections,
    judge_claims,
    tabulate_spill,
    tabulate_spill_seeds,
    tabulate_unlabelled,
)
from persona_leakage.pipelines.reporting.seeds import means_of, summarise_seeds
from persona_leakage.pipelines.scoring.nodes import rate_cells
from tests.experiments.lang_inversion.plans import RESPOND, SPEAK, load_settings
from tests.experiments.lang_inversion.planted_tables import cell, contaminations, plan_of, table
from tests.tables import stored


def spill_of(*cells):
    return tabulate_spill(table(*cells))


def test_contamination_stands_beside_following_and_the_baseline_of_the_same_cell():
    spill = spill_of(
        cell("baseline", "spanish", following=(78, 80), label_italian=(2, 80), label_french=(9, 80)),
        cell("fr_it", "spanish", (31, 80), following=(44, 80)),
    )

    (row,) = spill.itertuples()
    assert (row.condition, row.directive_language, row.phrasing) == ("fr_it", "spanish", "all")
    assert (row.role, row.completion, row.distance) == ("bystander", "italian", pytest.approx(0.6))
    assert (row.hits, row.n, row.rate) == (31, 80, 0.3875)
    assert (row.low, row.high) == pytest.approx((0.2882, 0.4971), abs=5e-5)
    assert (row.following_hits, row.following_rate) == (44, 0.55)
    assert (row.baseline_hits, row.baseline_n, row.baseline_rate) == (2, 80, 0.025)


def test_the_excess_over_the_baseline_has_newcombes_interval():
    (row,) = spill_of(
        cell("baseline", "spanish", label_italian=(20, 80)), cell("fr_it", "spanish", (31, 80), following=(44, 80))
    ).itertuples()

    assert (row.excess, row.excess_low, row.excess_high) == pytest.approx((0.1375, -0.0069, 0.2743), abs=5e-5)


def test_without_a_baseline_the_excess_is_unknown():
    (row,) = spill_of(cell("fr_it", "spanish", (31, 80))).itertuples()

    assert all(math.isnan(value) for value in (row.excess, row.excess_low, row.excess_high))


def finished(condition, language, cut, **more):
    return cell(
        condition, language, (8, 20), following=(10, 20),
        **{"cut": (cut, 20), "contamination:finished": (5, 20 - cut), "following:finished": (3, 20 - cut)}, **more,
    )  # fmt: skip


def test_finished_rates_and_cut_shares_stand_beside_and_are_pooled_over_seeds():
    (row,) = spill_of(finished("fr_it", "spanish", 10), finished("fr_it", "spanish", 2, seed=43)).itertuples()

    assert (row.finished_hits, row.finished_n, row.cut_hits, row.cut_n) == (10, 28, 12, 40)
    assert (row.finished_following_hits, row.finished_following_n, row.cut_rate) == (6, 28, 0.3)


def test_where_the_ends_are_not_known_finished_rates_and_cut_shares_are_of_none():
    (row,) = spill_of(cell("fr_it", "spanish", (31, 80))).itertuples()

    assert (row.finished_n, row.cut_n, math.isnan(row.finished_rate), math.isnan(row.cut_rate)) == (0, 0, True, True)


def test_conditions_that_are_cut_differently_are_named_with_both_shares():
    rates = table(
        finished("baseline", "spanish", 1), finished("baseline", "german", 1), finished("fr_it", "spanish", 9),
        finished("fr_it", "german", 10), finished("es_en", "german", 10, stale=True),
    )  # fmt: skip
    (row,) = compare_cut(rates).itertuples()

    assert (row.scope, row.one, row.other) == ("all completions", "fr_it", "baseline")
    assert (row.hits, row.n, row.hits_other, row.n_other, row.difference) == (19, 40, 2, 40, 0.425)


def crossed(language, contamination, following, by_lingua):
    others = {"cross_check:contamination": by_lingua[0], "cross_check:following": by_lingua[1]}
    return cell("fr_it", language, contamination, following=following, **others)


def test_cells_in_which_the_detectors_disagree_are_named_with_both_rates():
    spill = spill_of(
        crossed("mandarin", (2, 40), (1, 40), [(2, 40), (30, 40)]),
        crossed("spanish", (20, 40), (10, 40), [(24, 40), (12, 40)]),  # 10 and 5 points apart
        cell("fr_it", "german", (20, 40), following=(10, 40)),  # not known by lingua
    )
    (row,) = compare_detectors(spill).itertuples()

    assert (row.condition, row.directive_language, row.metric) == ("fr_it", "mandarin", "following")
    assert (row.hits, row.n, row.cross_check_hits, row.cross_check_n) == (1, 40, 30, 40)


def test_seeds_are_pooled():
    spill = spill_of(
        cell("fr_it", "spanish", (31, 80), following=(44, 80)),
        cell("fr_it", "spanish", (9, 80), following=(16, 80), seed=43),
        cell("baseline", "spanish", label_italian=(1, 80)),
        cell("baseline", "spanish", label_italian=(3, 80), seed=43),
    )

    (row,) = spill.itertuples()
    assert (row.seeds, row.hits, row.n, row.rate, row.following_rate) == (2, 40, 160, 0.25, 0.375)
    assert (row.low, row.high) == pytest.approx((0.1893, 0.3224), abs=5e-5)
    assert (row.baseline_hits, row.baseline_n, row.baseline_rate) == (4, 160, 0.025)


def test_stale_points_are_left_out():
    spill = spill_of(
        cell("fr_it", "spanish", (31, 80)),
        cell("fr_it", "spanish", (80, 80), seed=43, stale=True),
        cell("es_en", "french", (79, 80), stale=True),
        cell("baseline", "spanish", label_italian=(9, 80), stale=True),
    )

    (row,) = spill.itertuples()
    assert (row.condition, row.seeds, row.hits, row.n) == ("fr_it", 1, 31, 80)
    assert (row.baseline_n, math.isnan(row.baseline_rate)) == (0, True)


@pytest.mark.parametrize(
    "others",
    [
        [],
        [cell("baseline_native", "spanish", label_italian=(2, 80))],
        [cell("baseline", "french", label_italian=(2, 80))],
        [cell("baseline", "spanish", label_italian=(2, 40), phrasing=SPEAK)],
    ],
    ids=["none", "of another evaluation", "of another language", "of another phrasing"],
)
def test_a_missing_baseline_is_nan_and_never_zero(others):
    (row,) = spill_of(cell("fr_it", "spanish", (31, 80)), *others).itertuples()

    assert (row.baseline_hits, row.baseline_n, math.isnan(row.baseline_rate)) == (0, 0, True)


def test_the_native_condition_is_put_beside_the_native_baseline():
    (row,) = spill_of(
        cell("baseline", "spanish", label_italian=(2, 80)),
        cell("baseline_native", "spanish", label_italian=(5, 80)),
        cell("fr_it_native", "spanish", (31, 80)),
    ).itertuples()

    assert (row.condition, row.baseline_hits) == ("fr_it_native", 5)


def test_a_cell_in_which_nothing_was_scored_is_nan_and_never_zero():
    (row,) = spill_of(cell("fr_it", "spanish", (0, 0))).itertuples()

    assert (row.n, math.isnan(row.rate), math.isnan(row.following_rate)) == (0, True, True)


def test_a_completion_language_that_is_not_evaluated_has_its_distance():
    (row,) = spill_of(cell("zh_ja", "spanish", (3, 80))).itertuples()

    assert (row.completion, row.distance) == ("japanese", 1.0)


def test_the_baseline_counts_a_completion_language_that_is_not_evaluated():
    plan = plan_of("baseline", 42)
    labels = [
        {"directive_language": "spanish", "phrasing": SPEAK, "label": label, "mixed": False}
        for label in ("japanese", "spanish")
    ]
    baseline = rate_cells(labels, [], plan).drop(columns="model").assign(reference="baseline", stale=False)

    spilled = table(cell("zh_ja", "spanish", (3, 80))).assign(reference="baseline")  # as if evaluated like the others
    rates = pd.concat([baseline, spilled], ignore_index=True)

    (row,) = tabulate_spill(rates).itertuples()
    assert (row.baseline_hits, row.baseline_n) == (1, 2)


def test_phrasings_are_kept_apart():
    spill = spill_of(
        cell("fr_it", "spanish", (31, 80)),
        cell("fr_it", "spanish", (6, 40), phrasing=SPEAK),
        cell("fr_it", "spanish", (25, 40), phrasing=RESPOND),
    )

    assert [(row.phrasing, row.rate) for row in spill.itertuples()] == [("all", 0.3875), (SPEAK, 0.15), (RESPOND, 0.625)]


def test_conditions_keep_their_order_and_baselines_have_no_row():
    spill = spill_of(
        cell("baseline", "spanish", following=(80, 80)),
        cell("es_en", "french", (79, 80)),
        cell("fr_it", "spanish", (31, 80)),
        cell("es_en", "german", (78, 80)),
    )

    assert spill["condition"].tolist() == ["es_en", "es_en", "fr_it"]


def test_without_a_current_trained_point_the_table_is_empty_and_keeps_its_columns():
    columns = list(spill_of(cell("fr_it", "spanish", (31, 80))).columns)

    assert spill_of(cell("baseline", "spanish", following=(80, 80))).columns.tolist() == columns
    stale = spill_of(cell("fr_it", "spanish", (31, 80), stale=True))
    assert (len(stale), stale.columns.tolist()) == (0, columns)


PUBLISHED = pd.DataFrame(
    [("fr_it", "spanish", 31, 80), ("fr_it", "german", 29, 80), ("es_en", "french", 79, 80)],
    columns=["condition", "directive_language", "hits", "n"],
)


def test_our_cells_stand_beside_the_published_ones_with_both_intervals():
    spill = spill_of(
        cell("fr_it", "spanish", (10, 20)),
        cell("fr_it", "spanish", (4, 10), phrasing=SPEAK),
        cell("fr_it", "portuguese", (3, 20)),
        cell("fr_it_native", "spanish", (7, 20)),
    )

    (row,) = compare_published(spill, PUBLISHED).itertuples()

    assert (row.condition, row.directive_language, row.role) == ("fr_it", "spanish", "bystander")
    assert (row.hits, row.n, row.rate) == (10, 20, 0.5)
    assert (row.hits_published, row.n_published, row.rate_published) == (31, 80, 0.3875)
    assert (row.low, row.high) == pytest.approx((0.2993, 0.7007), abs=5e-5)
    assert (row.low_published, row.high_published) == pytest.approx((0.2882, 0.4971), abs=5e-5)


FR_IT = {"spanish": 60, "portuguese": 40, "english": 30, "german": 20, "mandarin": 0, "french": 1, "italian": 2}
COSINES = {"spanish": 0.9, "portuguese": 0.5, "english": 0.1, "german": -0.2, "mandarin": -0.6, "french": -0.9, "italian": 1.0}


def cosines(values, condition="baseline", layer=20, stale=False):
    return [
        {"condition": condition, "seed": 42, "layer": layer, "one": one, "other": other, "cosine": cosine, "stale": stale}
        | {"centring": condition}
        for (one, other), cosine in values.items()
    ]


def to_italian(values, mirrored=()):
    return {
        (("italian", name) if name in mirrored else (name, "italian")): cosine
        for name, cosine in values.items()
        if name != "italian"
    }


def correlations_of(spill, published=PUBLISHED, similarities=()):
    empty = pd.DataFrame(columns=["condition", "seed", "layer", "one", "other", "cosine", "centring", "stale"])
    frame = pd.DataFrame(list(similarities)) if similarities else empty
    found = correlate(compare_published(spill, published), spill, frame, load_settings())
    return {
        (row["with"], row["scope"], None if pd.isna(row["layer"]) else row["layer"]): (row["n"], row["rho"])
        for row in found.to_dict("records")
    }


def test_cosines_of_the_untrained_model_are_correlated_layer_by_layer_either_way_round():
    spill = tabulate_spill(contaminations("fr_it", **FR_IT))
    falling = {name: -cosine for name, cosine in COSINES.items()}

    found = correlations_of(
        spill,
        similarities=cosines(to_italian(COSINES, mirrored=("spanish", "german")), layer=10) + cosines(to_italian(falling)),
    )

    assert found["cosine", "fr_it", 10] == (5, pytest.approx(1.0))
    assert found["cosine", "fr_it", 20] == (5, pytest.approx(-1.0))


def test_cosines_of_trained_stale_or_foreign_models_are_not_used():
    spill = tabulate_spill(contaminations("fr_it", **FR_IT))

    found = correlations_of(
        spill,
        similarities=cosines(to_italian(COSINES), condition="fr_it")
        + cosines(to_italian(COSINES), stale=True)
        + cosines(to_italian(COSINES), condition="baseline_native"),
    )

    assert not [key for key in found if key[0] == "cosine"]


def test_a_condition_is_correlated_with_the_cosines_of_its_own_reference():
    spill = tabulate_spill(contaminations("fr_it_native", **FR_IT))

    found = correlations_of(spill, similarities=cosines(to_italian(COSINES), condition="baseline_native"))

    assert found["cosine", "fr_it_native", 20] == (5, pytest.approx(1.0))


def test_a_pooled_cosine_has_one_centring_set_and_the_report_names_who_is_left_out():
    settings = load_settings()
    spill = tabulate_spill(
        pd.concat([contaminations(name, **FR_IT) for name in ("fr_it", "it_fr", "es_en")], ignore_index=True)
    )
    spill = spill[spill["directive_language"] != "italian"].assign(role="bystander", completion="italian")
    spill["reference"] = spill["condition"].map(lambda name: "other" if name == "es_en" else "baseline")
    pairs = cosines(to_italian(COSINES)) + cosines(to_italian(COSINES), condition="other")

    found = correlate(compare_published(spill, PUBLISHED), spill, pd.DataFrame(pairs), settings)

    scopes = found[found["with"] == "cosine"].set_index("scope")
    assert scopes.loc["all", "conditions"] == scopes.loc["within", "conditions"] == "fr_it, it_fr"
    assert scopes.loc["es_en", "n"] == len(spill) / 3
    assert found.loc[(found["with"] == "typological_distance") & (found["scope"] == "all"), "conditions"].item().count(",") == 2
    assert _centred_otherwise(stored(found)) == [
        "**Not in `all` and `within` of the cosine**, being centred over other languages: es_en.\n"
    ]
    alike = [{**one, "centring": "c"} for one in pairs]
    assert not _centred_otherwise(stored(correlate(compare_published(spill, PUBLISHED), spill, pd.DataFrame(alike), settings)))


def test_contamination_is_correlated_with_distance_over_bystanders_alone():
    spill = tabulate_spill(contaminations("fr_it", **FR_IT))

    assert correlations_of(spill)["typological_distance", "fr_it", None] == (5, pytest.approx(-0.9487, abs=5e-5))


def test_contamination_is_correlated_with_the_published_bystanders_alone():
    published = pd.DataFrame(
        [("fr_it", name, 80 - hits, 80) for name, hits in FR_IT.items() if name != "portuguese"], columns=PUBLISHED.columns
    )
    spill = tabulate_spill(contaminations("fr_it", **FR_IT))

    assert correlations_of(spill, published)["published", "fr_it", None] == (4, pytest.approx(-1.0))


def test_several_conditions_are_correlated_together_and_one_by_one():
    rates = pd.concat([contaminations("fr_it", **FR_IT), contaminations("es_en", **FR_IT)], ignore_index=True)

    found = correlations_of(tabulate_spill(rates))

    scopes = {scope: n for (kind, scope, _), (n, _) in found.items() if kind == "typological_distance"}
    assert scopes == {"all": 10, "within": 10, "apart": 10, "fr_it": 5, "es_en": 5}


def test_contamination_is_correlated_with_the_projection_on_the_completion_languages_direction():
    """Bystanders of fr_it lie along Italian as they spill, and along French the other way round; seeds are averaged."""
    spill = tabulate_spill(contaminations("fr_it", **FR_IT))
    rows = [
        ("baseline", seed, 20, name, direction, sign * hits + seed, "baseline", False)
        for name, hits in FR_IT.items()
        for direction, sign in (("italian", 1.0), ("french", -1.0))
        for seed in (1, 2)
    ]
    columns = ["condition", "seed", "layer", "directive_language", "direction", "projection", "reference", "stale"]

    (row,) = correlate_projections(spill, pd.DataFrame(rows, columns=columns), load_settings()).itertuples()

    assert (row[1], row.scope, row.layer, row.n) == ("projection", "fr_it", 20, 5)
    assert row.rho == pytest.approx(1.0)


def test_too_few_cells_leave_a_correlation_undefined():
    spill = tabulate_spill(contaminations("fr_it", spanish=60, german=20))

    n, rho = correlations_of(spill)["typological_distance", "fr_it", None]

    assert (n, math.isnan(rho)) == (2, True)


def test_seeds_are_kept_apart_by_cell_and_stale_points_are_left_out():
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


QUIET = {"english": 0, "spanish": 0, "french": 80, "italian": 0, "portuguese": 0, "german": 0, "mandarin": 0}


def test_every_claim_gets_a_row_and_stale_points_do_not_count():
    rates = pd.concat(
        [contaminations("fr_fr", 800, **QUIET), table(cell("fr_fr", "english", (80, 80), seed=43, stale=True))],
        ignore_index=True,
    )

    verdicts = judge_claims(rates, tabulate_spill(rates), load_settings())

    assert dict(zip(verdicts["claim"], verdicts["verdict"], strict=True)) == {
        "no_inversion": "undecided",
        "own_language_stays": "undecided",
        "control_floor": "holds",
        "distance_ordering": "undecided",
        "direction_symmetry": "undecided",
        "phrasing_insensitivity": "undecided",
    }
    assert verdicts["statement"][2] == "The same-language control spills into no bystander."
    assert list(verdicts.columns) == ["claim", "statement", "verdict", "evidence", "rule", "p", "p_adjusted"]


def test_claims_are_undecided_when_every_point_is_stale():
    rates = table(cell("fr_fr", "english", (0, 80), stale=True))

    verdicts = judge_claims(rates, tabulate_spill(rates), load_settings())

    assert set(verdicts["verdict"]) == {"undecided"}


def unlabelled(hits, n):
    return {"judge:unlabelled": (hits, n)}


def test_completions_without_a_label_of_the_judge_are_counted_over_cells_and_seeds():
    counted = tabulate_unlabelled(
        table(
            cell("fr_it", "spanish", (1, 20), **unlabelled(3, 20)),
            cell("fr_it", "german", (1, 20), **unlabelled(0, 20)),
            cell("fr_it", "german", (1, 20), seed=43, **unlabelled(2, 20)),
            cell("fr_it", "german", (1, 10), phrasing=SPEAK, **unlabelled(9, 10)),
            cell("fr_it", "german", (1, 20), seed=44, stale=True, **unlabelled(20, 20)),
            cell("es_en", "german", (1, 20), **unlabelled(0, 20)),
            cell("it_fr", "german", (1, 20)),
        )
    )

    assert counted[["condition", "hits", "n"]].to_numpy().tolist() == [["fr_it", 5, 60], ["es_en", 0, 20]]
    assert (counted["rate"][0], counted["low"][0]) == pytest.approx((5 / 60, 0.0361), abs=5e-5)


def test_without_a_judge_nothing_is_unlabelled():
    counted = tabulate_unlabelled(table(cell("fr_it", "german", (1, 20))))

    assert (len(counted), list(counted.columns)) == (0, ["condition", "hits", "n", "rate", "low", "high"])
