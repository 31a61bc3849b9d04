"""Tables of trajectories over planted points, and over the published ones."""

import itertools
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_leakage.domain.claims import RateBound
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.rates import proportion
from persona_leakage.experiments.convergence.tables import (
    SUMMARY_COLUMNS,
    average_texts,
    choose_headline,
    correlate_peaks,
    count_verdicts,
    judge_claims,
    pool_trajectory_seeds,
    summarise_trajectories,
    tabulate_text_ranges,
    tabulate_trajectories,
    tabulate_trajectory_seeds,
)
from persona_leakage.pipelines.reporting.by_model import for_each_model
from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from tests.experiments.convergence.planted_tables import (
    COSINES,
    EPOCHS,
    cosine,
    point,
    published,
    rate,
    rates,
    settings_with,
    similarities,
    stored,
    text,
    texts,
    trajectories,
    trajectory,
)


def summary(*rows, early=2):
    """Summarise a single trajectory."""
    (found,) = summarise_trajectories(trajectories(*rows), settings_with(early)).to_dict("records")
    return found


def peaks(table):
    return correlate_peaks(table, stored(summarise_trajectories(table, settings_with(2))), settings_with(2))


def ranks(values):
    return [sum(other < one for other in values) + (sum(other == one for other in values) + 1) / 2 for one in values]


def spearman(one, other):
    """Pearson's correlation of ranks, from its definition."""
    x, y = ranks(one), ranks(other)
    middle = (len(x) + 1) / 2
    shared = sum((a - middle) * (b - middle) for a, b in zip(x, y, strict=True))
    return shared / math.sqrt(sum((a - middle) ** 2 for a in x) * sum((b - middle) ** 2 for b in y))


def newcombe(hits, n, before, before_n):
    """The interval of hits/n - before/before_n, from two Wilson intervals written out."""

    def wilson(hits, n):
        z, p = 1.959963984540054, hits / n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return p, middle - half, middle + half

    (p, low, high), (q, q_low, q_high) = wilson(hits, n), wilson(before, before_n)
    return p - q - math.hypot(p - low, q_high - q), p - q + math.hypot(high - p, q - q_low)


# the published trajectories


@pytest.fixture(scope="module")
def outcomes():
    return stored(summarise_trajectories(published(), settings_with(2))).set_index("condition")


def test_four_of_the_seven_published_sources_increase(outcomes):
    assert outcomes["verdict"].to_dict() == {
        "villain": "increase",
        "medical_doctor": "increase",
        "comedian": "increase",
        "kindergarten_teacher": "increase",
        "software_engineer": "decline",
        "nurse": "no change",  # its one high checkpoint of ten is no sign of a peak
        "librarian": "no change",
    }


def test_published_baselines_peaks_and_finals(outcomes):
    found = outcomes[["baseline", "peak", "peak_checkpoint", "final", "final_checkpoint", "checkpoints"]]

    assert [tuple(row) for row in found.itertuples()] == [
        ("villain", 0, pytest.approx(439 / 600), 10, pytest.approx(374 / 600), 20, 11),
        ("medical_doctor", 0.25, 0.595, 4, 0.43, 20, 11),
        ("comedian", 0, 0.425, 6, 0.415, 20, 11),
        ("kindergarten_teacher", 0.025, 0.325, 14, 0.26, 20, 11),
        ("software_engineer", 0.3, 0.375, 4, 0.08, 20, 11),
        ("nurse", 0.125, 0.23, 2, 0.125, 20, 11),
        ("librarian", 0.03, 0.05, 20, 0.05, 20, 11),
    ]
    assert outcomes["peak_n"].tolist() == [600, 200, 600, 200, 200, 200, 200]
    assert (outcomes["peak_n"] == outcomes["baseline_n"]).all()
    assert (outcomes["peak_n"] == outcomes["final_n"]).all()


@pytest.mark.parametrize(
    ("condition", "of_peak", "of_rise"),
    [  # counts at epochs 2, peak and 0, by hand
        ("villain", 270 / 439, 270 / 439),
        ("medical_doctor", 115 / 119, (115 - 50) / (119 - 50)),
        ("comedian", 223 / 255, 223 / 255),
        ("kindergarten_teacher", 52 / 65, (52 - 5) / (65 - 5)),
        ("software_engineer", 49 / 75, (49 - 60) / (75 - 60)),
        ("nurse", 1, 1),
        ("librarian", 4 / 10, (4 - 6) / (10 - 6)),
    ],
)
def test_how_much_of_the_published_peak_and_rise_epoch_2_has(outcomes, condition, of_peak, of_rise):
    assert outcomes.loc[condition, "share_of_peak_early"] == pytest.approx(of_peak)
    assert outcomes.loc[condition, "share_of_rise_early"] == pytest.approx(of_rise)


def test_the_published_shares_are_61_and_97_percent(outcomes):
    assert outcomes.loc["villain", "share_of_peak_early"] == pytest.approx(45.0 / 73.2, abs=0.001)
    assert outcomes.loc["medical_doctor", "share_of_peak_early"] == pytest.approx(0.97, abs=0.005)


def test_published_changes_carry_newcombes_interval(outcomes):
    for condition, hits, before, n in (("villain", 374, 0, 600), ("software_engineer", 16, 60, 200), ("nurse", 25, 25, 200)):
        low, high = newcombe(hits, n, before, n)
        found = outcomes.loc[condition, ["change", "change_low", "change_high"]]
        assert found.tolist() == pytest.approx([(hits - before) / n, low, high], abs=1e-9)
    low, high = newcombe(46, 200, 25, 200)
    found = outcomes.loc["nurse", ["peak_change", "peak_change_low", "peak_change_high"]]
    assert found.tolist() == pytest.approx([21 / 200, low, high], abs=1e-9)
    assert low > 0


def test_the_cosine_before_pulling_does_not_tell_the_published_peak(outcomes):
    (row,) = correlate_peaks(published(), outcomes.reset_index(), settings_with(2)).itertuples()

    assert (row.layer, row.n) == (15, 7)
    assert row.rho == pytest.approx(-0.34, abs=0.005)
    assert row.p == row.permutation_p  # exact; the t approximation says 0.45
    assert row.conditions == ", ".join(COSINES)
    peaks, values = outcomes["peak"].tolist(), list(COSINES.values())
    assert row.rho == pytest.approx(spearman(peaks, values))
    reached = [abs(spearman(peaks, order)) >= abs(row.rho) - 1e-9 for order in itertools.permutations(values)]
    assert row.permutation_p == pytest.approx(sum(reached) / math.factorial(7), abs=1e-12)
    assert row.permutation_p == pytest.approx(0.46, abs=0.005)


# verdicts

ARCH = {0: 10, 2: 40, 4: 58, 6: 60, 8: 60, 10: 55, 12: 48, 14: 40, 16: 32, 18: 24}
VERDICTS = {
    "rises and stays": ({0: 10, 2: 60, 4: 60}, "increase"),
    "rises at the end alone": ({0: 10, 2: 10, 4: 60}, "increase"),
    "a final rate above a baseline of 0": ({0: 0, 2: 0, 4: 8}, "increase"),
    "one best checkpoint": ({0: 10, 2: 60, 4: 10}, "no change"),
    "one best checkpoint of many": ({0: 10, **dict.fromkeys(range(2, 21, 2), 10), 10: 60}, "no change"),
    "a slow rise and fall, higher within its interval": (ARCH | {20: 16}, "transient"),
    "a slow rise and fall, lower within its interval": (ARCH | {20: 6}, "transient"),
    "falls": ({0: 60, 2: 50, 4: 10}, "decline"),
    "falls after a peak": ({0: 60, 2: 150, 4: 10}, "decline"),
    "dips and comes back": ({0: 60, 2: 10, 4: 60}, "no change"),
    "flat zeros": ({0: 0, 2: 0, 4: 0}, "no change"),
    "flat ones": ({0: 200, 2: 200, 4: 200}, "no change"),
    "a peak within its interval": ({0: 10, 2: 15, 4: 10}, "no change"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(name):
    hits, verdict = VERDICTS[name]

    assert summary(*trajectory("c", hits))["verdict"] == verdict


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=5))
def test_every_verdict_is_the_rule_of_the_protocol(counts):
    hits = dict(enumerate(counts))
    low, high = newcombe(counts[-1], 60, counts[0], 60)
    if min(abs(low), abs(high)) < 1e-9:
        return  # on the very edge, rounding decides

    found = summary(*trajectory("c", hits, 60), early=1)

    at_peak = "transient" if found["peak_p"] <= 0.05 else "no change"
    assert found["verdict"] == ("increase" if low > 0 else "decline" if high < 0 else at_peak)
    assert all(0 <= found[name] <= 1 or math.isnan(found[name]) for name in ("change_p", "peak_p", "trend_p"))
    assert (found["peak"], found["peak_checkpoint"]) == (max(counts) / 60, counts.index(max(counts)))


def test_more_completions_can_turn_no_change_into_an_increase():
    assert summary(*trajectory("c", {0: 5, 2: 9}, 50))["verdict"] == "no change"
    assert summary(*trajectory("c", {0: 50, 2: 90}, 500))["verdict"] == "increase"


def test_epochs_are_taken_in_order_wherever_their_rows_stand():
    rows = trajectory("c", {4: 60, 0: 10, 2: 90})

    assert (summary(*rows)["verdict"], summary(*rows)["final_checkpoint"]) == ("increase", 4)


INCOMPLETE = {
    "no baseline": trajectory("c", {2: 10, 4: 60}),
    "the baseline alone": trajectory("c", {0: 10}),
    "one later epoch alone": trajectory("c", {20: 60}),
    "an unscored baseline": trajectory("c", {0: 0, 2: 10, 4: 60}, {0: 0, 2: 200, 4: 200}),
    "nothing scored after the baseline": trajectory("c", {0: 10, 2: 0}, {0: 200, 2: 0}),
    "nothing scored": trajectory("c", {0: 0, 2: 0}, 0),
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_without_baseline_or_later_epoch_there_is_no_verdict_and_no_number(name):
    found = summary(*INCOMPLETE[name])

    assert found["verdict"] == "incomplete"
    rest = set(SUMMARY_COLUMNS) - {"condition", "seed", "checkpoints", "verdict"}
    assert all(pd.isna(found[column]) for column in rest)


def test_shares_of_flat_zeros_are_unknown_and_not_0():
    found = summary(*trajectory("c", {0: 0, 2: 0, 4: 0}))

    assert math.isnan(found["share_of_peak_early"])
    assert math.isnan(found["share_of_rise_early"])
    assert (found["peak"], found["peak_checkpoint"]) == (0, 0)


def test_without_a_rise_there_is_no_share_of_it():
    found = summary(*trajectory("c", {0: 60, 2: 30, 4: 10}))

    assert found["share_of_peak_early"] == 0.5
    assert math.isnan(found["share_of_rise_early"])


@pytest.mark.parametrize("early", [3, 20])
def test_shares_at_an_epoch_that_has_not_run_are_unknown(early):
    found = summary(*trajectory("c", {0: 0, 2: 30, 4: 60}), early=early)

    assert math.isnan(found["share_of_peak_early"])
    assert math.isnan(found["share_of_rise_early"])


def test_another_early_epoch_tells_another_share():
    rows = trajectory("c", {0: 20, 2: 30, 4: 60, 6: 100})

    assert [summary(*rows, early=early)["share_of_rise_early"] for early in (2, 4, 6)] == pytest.approx([1 / 8, 1 / 2, 1])


def test_unscored_epochs_are_left_out():
    found = summary(*trajectory("c", {0: 10, 2: 0, 4: 60, 6: 0}, {0: 200, 2: 0, 4: 200, 6: 0}))

    assert (found["verdict"], found["checkpoints"], found["final_checkpoint"]) == ("increase", 2, 4)
    assert math.isnan(found["share_of_peak_early"])


def test_the_direction_of_the_cosine_is_that_from_the_first_to_the_last_epoch():
    def of(first, last):
        found = summary(*trajectory("c", {0: 1, 2: 1, 4: 1}, cosines={0: first, 2: 0.99, 4: last}))
        return found["cosine_l15"], found["cosine_l15_final"], found["cosine_l15_direction"]

    assert of(-0.3, 0.4) == (-0.3, 0.4, "rises")
    assert of(0.4, -0.3) == (0.4, -0.3, "falls")
    assert of(0.4, 0.4) == (0.4, 0.4, "unchanged")
    assert of(0.4, None)[2] == ""
    assert of(None, 0.4)[2] == ""


# several seeds

SEEDS = [*trajectory("c", {0: 10, 2: 60}, seed=42, cosines=0.2), *trajectory("c", {0: 0, 2: 20}, 100, seed=7, cosines=0.4)]


def test_seeds_are_pooled_by_adding_counts():
    first, last = pool_trajectory_seeds(trajectories(*SEEDS)).to_dict("records")

    assert (first["seed"], first["hits"], first["n"]) == ("all", 10, 300)
    assert (last["hits"], last["n"], last["rate"]) == (80, 300, pytest.approx(80 / 300))
    assert tuple(last[name] for name in ("low", "high")) == pytest.approx(proportion(80, 300)[3:])
    assert (last["source_hits"], last["source_n"]) == (180, 200)
    assert last["cosine_l15"] == pytest.approx(0.3)


def test_a_condition_with_several_seeds_has_a_row_for_all_and_one_each():
    found = summarise_trajectories(trajectories(*SEEDS), settings_with(2))

    assert found["seed"].tolist() == ["all", 42, 7]
    assert found["baseline_n"].tolist() == [300, 200, 100]
    assert found["final"].tolist() == pytest.approx([80 / 300, 0.3, 0.2])


def test_a_seed_that_lacks_an_end_is_no_part_of_what_another_seed_became():
    """Pooled, the low beginning of one seed and the high rate of the other would be an increase."""
    begun, flat = trajectory("c", {0: 5}, seed=1), trajectory("c", {0: 100, 2: 100, 4: 100}, seed=2)

    rows = list(summarise_trajectories(trajectories(*begun, *flat), settings_with(2)).itertuples())

    assert [(row.seed, row.verdict) for row in rows] == [("all", "no change"), (1, "incomplete"), (2, "no change")]
    assert rows[0].baseline == rows[0].final == 0.5


def test_a_condition_with_one_seed_has_one_row_beside_one_with_several():
    found = summarise_trajectories(trajectories(*SEEDS, *trajectory("d", {0: 10, 2: 60}, cosines=0.1)), settings_with(2))

    assert [(row.condition, row.seed) for row in found.itertuples()] == [("c", "all"), ("d", 42), ("c", 42), ("c", 7)]


def test_a_pooled_row_is_never_taken_for_that_of_its_first_seed():
    rows = [*trajectory("c", {0: 10, 2: 60}), *trajectory("c", {2: 20}, 100, seed=7)]
    found = summarise_trajectories(trajectories(*rows), settings_with(2))

    assert [(row.seed, row.verdict) for row in found.itertuples()] == [("all", "increase"), (42, "increase"), (7, "incomplete")]


def test_many_seeds_can_show_what_none_shows_alone():
    rows = [row for seed in range(10) for row in trajectory("c", {0: 5, 2: 9}, 50, seed=seed)]
    found = summarise_trajectories(trajectories(*rows), settings_with(2))

    assert found["verdict"].tolist() == ["increase", *["no change"] * 10]


# peaks against cosines


def test_conditions_are_correlated_once_with_their_seeds_pooled_and_only_complete_ones():
    rows = [
        *SEEDS,
        *trajectory("d", {0: 0, 2: 100}, cosines=0.1),
        *trajectory("e", {0: 0, 2: 20}, cosines=0.9),
        *trajectory("f", {0: 0, 2: 5}, cosines={2: 0.5}),
        *trajectory("g", {2: 199}, cosines=0.9),
    ]
    (row,) = peaks(trajectories(*rows)).itertuples()

    assert (row.n, row.rho) == (3, pytest.approx(-1))  # f has no cosine before pulling, g no baseline


def test_every_layer_is_correlated_on_its_own():
    table = trajectories(
        *(
            row | {"cosine_l2": place}
            for place, name in enumerate("abc")
            for row in trajectory(name, {0: 0, 2: 9 * place}, cosines=-place)
        )
    )
    found = peaks(table).set_index("layer")

    assert found["rho"].to_dict() == pytest.approx({15: -1, 2: 1})
    assert found["headline"].to_dict() == {15: True, 2: False}
    assert set(found["n"]) == {3}


@pytest.mark.parametrize("conditions", ["a", "ab"])
def test_of_one_or_two_conditions_no_correlation_is_defined(conditions):
    rows = [row for name in conditions for row in trajectory(name, {0: 0, 2: ord(name)}, cosines=ord(name) / 200)]
    (row,) = peaks(trajectories(*rows)).itertuples()

    assert row.n == len(conditions)
    assert math.isnan(row.rho)
    assert math.isnan(row.permutation_p)


# from rates and cosines


def test_a_trajectory_has_the_pulled_personas_rate_the_sources_and_the_mean_of_the_others():
    (row,) = tabulate_trajectories(
        rates(*point("villain", 2, (90, 30, 10, 5)), rate("villain", 2, "ghost", 0, 50)), similarities()
    ).to_dict("records")

    assert (row["condition"], row["seed"], row["checkpoint"]) == ("villain", 42, 2)
    assert (row["source"], row["pulled"]) == ("villain", "assistant")
    assert (row["hits"], row["n"], row["rate"], row["low"], row["high"]) == pytest.approx(proportion(30, 100))
    assert tuple(row[f"source_{name}"] for name in ("hits", "n", "rate", "low", "high")) == pytest.approx(proportion(90, 100))
    assert row["mean_bystander"] == pytest.approx((0.1 + 0.05 + 0) / 3)


def test_nobody_else_has_no_mean():
    (row,) = tabulate_trajectories(rates(*point("villain", 2, (90, 30))), similarities()).to_dict("records")

    assert math.isnan(row["mean_bystander"])


def test_other_metrics_and_question_sets_are_not_counted():
    other = [
        *point("villain", 2, (1, 1), metric="tail:characters"),
        *point("villain", 2, (2, 2), metric="leakage:tokens"),
        *point("villain", 2, (3, 3), questions="seen"),
        *point("villain", 2, (4, 4), questions="unseen"),
    ]
    (row,) = tabulate_trajectories(rates(*other, *point("villain", 2, (90, 30))), similarities()).to_dict("records")

    assert (row["hits"], row["source_hits"]) == (30, 90)


def test_the_cosine_is_that_of_the_same_condition_seed_and_checkpoint():
    values = {
        (condition, seed, epoch): place / 100
        for place, (condition, seed, epoch) in enumerate(itertools.product(("villain", "nurse"), (42, 7), (0, 2, 10)))
    }
    points = [row for name, seed, epoch in values for row in point(name, epoch, (9, 3, 1), seed=seed)]
    cosines = [
        cosine(name, epoch, *pair, value + shift, layer, seed=seed)
        for (name, seed, epoch), value in values.items()
        for layer, shift in ((15, 0), (20, 0.5))
        for pair in ((name, "assistant") if seed == 7 else ("assistant", name),)
    ]
    more = [cosine(name, epoch, one, "hero", -0.9, seed=seed) for name, seed, epoch in values for one in ("assistant", name)]
    table = tabulate_trajectories(rates(*points), similarities(*more, *cosines, *more))

    assert table["headline_layer"].tolist() == [15] * 12
    mixed = [*cosines[1:], {**cosines[0], "centring": "11"}]
    with pytest.raises(UserError, match="were centred over different sets of personas or prompts, so they do not compare"):
        tabulate_trajectories(rates(*points), similarities(*mixed))
    assert choose_headline(table) == table["cosine_l15"].tolist()
    found = {(row.condition, row.seed, row.checkpoint): (row.cosine_l15, row.cosine_l20) for row in table.itertuples()}
    assert found == {key: pytest.approx((value, value + 0.5)) for key, value in values.items()}


def test_a_point_without_its_cosine_has_none_and_takes_no_other_points():
    table = tabulate_trajectories(
        rates(*point("villain", 0, (9, 0)), *point("villain", 2, (9, 3))),
        similarities(cosine("villain", 0, "villain", "assistant", 0.1), cosine("villain", 2, "villain", "hero", 0.7)),
    )

    assert table["cosine_l15"].iloc[0] == 0.1
    assert math.isnan(table["cosine_l15"].iloc[1])
    assert table["headline_layer"].iloc[0] == 15
    assert table["headline_layer"].isna().iloc[1]
    assert choose_headline(table) == [0.1, pytest.approx(math.nan, nan_ok=True)]


def test_stale_points_and_stale_cosines_are_left_out():
    table = tabulate_trajectories(
        rates(
            *point("villain", 0, (9, 0)),
            *point("villain", 2, (9, 99), stale=True),
            *point("gone", 2, (9, 99), stale=True, source=None, pulled=None),
        ),
        similarities(
            cosine("villain", 0, "villain", "assistant", 0.1), cosine("villain", 0, "villain", "assistant", 0.9, stale=True)
        ),
    )

    assert [(row.condition, row.checkpoint, row.hits, row.cosine_l15) for row in table.itertuples()] == [("villain", 0, 0, 0.1)]


@pytest.mark.parametrize("absent", ["villain", "assistant"])
def test_a_point_that_did_not_evaluate_its_source_is_an_error_and_never_0(absent):
    present = [row for row in point("villain", 2, (90, 30, 10)) if row["persona"] != absent]

    with pytest.raises(ValueError, match=f"{absent} was not evaluated in .*villain") as error:
        tabulate_trajectories(rates(*point("nurse", 2, (90, 30, 10)), *present), similarities())

    assert "'checkpoint': 2" in str(error.value)


def test_an_unscored_point_stays_unknown():
    table = stored(tabulate_trajectories(rates(*point("villain", 0, (0, 0, 0), 0)), similarities()))

    assert table[["hits", "n", "source_n"]].iloc[0].tolist() == [0, 0, 0]
    assert table[["rate", "low", "high", "source_rate", "mean_bystander"]].isna().all(axis=None)


def test_points_stand_by_condition_seed_and_epoch_as_a_number():
    rows = [
        row
        for name, seed, epoch in itertools.product(("villain", "nurse"), (42, 7), (10, 2, 0))
        for row in point(name, epoch, (9, 3), seed=seed)
    ]
    table = tabulate_trajectories(rates(*rows), similarities())

    assert [(row.condition, row.seed, row.checkpoint) for row in table.itertuples()] == list(
        itertools.product(("villain", "nurse"), (7, 42), (0, 2, 10))
    )


def test_from_rates_to_verdict():
    rows = [*point("villain", 0, (90, 0)), *point("villain", 2, (90, 40)), *point("villain", 4, (90, 30))]
    table = stored(tabulate_trajectories(rates(*rows), similarities(cosine("villain", 0, "assistant", "villain", -0.3))))
    (found,) = summarise_trajectories(table, settings_with(2)).to_dict("records")

    assert (found["verdict"], found["peak"], found["peak_checkpoint"], found["final"]) == ("increase", 0.4, 2, 0.3)
    assert (found["cosine_l15"], found["cosine_l15_direction"]) == (-0.3, "")


@pytest.mark.parametrize("rows", [[], point("villain", 2, (9, 3), stale=True)], ids=["nothing", "stale alone"])
def test_tables_over_no_current_point_are_empty_and_keep_their_columns(rows):
    table = stored(tabulate_trajectories(rates(*rows), similarities()))
    found = stored(summarise_trajectories(table, settings_with(2)))

    assert {"condition", "seed", "checkpoint", "rate", "source_rate", "mean_bystander"} <= set(table.columns)
    assert len(table) == len(found) == len(stored(correlate_peaks(table, found, settings_with()))) == 0
    assert list(found.columns) == list(SUMMARY_COLUMNS)
    more = (pool_trajectory_seeds(table), tabulate_trajectory_seeds(table), count_verdicts(found, settings_with()))
    assert [len(stored(one)) for one in more] == [0, 0, 0]


# seeds apart


def test_changes_since_epoch_0_are_taken_seed_by_seed():
    rows = [
        *trajectory("c", {0: 10, 2: 50}, 100, seed=1),
        *trajectory("c", {0: 40, 2: 60}, 100, seed=2),
        *trajectory("c", {2: 99}, 100, seed=3),
    ]
    by_seed = stored(tabulate_trajectory_seeds(trajectories(*rows)))
    found = summarise_seeds(by_seed).set_index(["quantity", "checkpoint"])

    assert found.loc[("change since epoch 0", 2), ["seeds", "mean"]].tolist() == pytest.approx([2, 0.3])
    assert found.loc[("pulled", 2), ["seeds", "mean", "hits", "n"]].tolist() == pytest.approx([3, 2.09 / 3, 209, 300])
    assert found.loc[("pulled", 0), "seeds"] == 2


# how many of each verdict


def test_verdicts_are_counted_over_pooled_and_complete_conditions(outcomes):
    found = count_verdicts(outcomes.reset_index(), settings_with())

    assert found.to_numpy().tolist() == [
        ["increase", 4, 7, "villain, medical_doctor, comedian, kindergarten_teacher"],
        ["decline", 1, 7, "software_engineer"],
        ["transient", 0, 7, ""],
        ["no change", 2, 7, "nurse, librarian"],
    ]
    rows = [*SEEDS, *trajectory("d", {0: 60, 2: 10}), *trajectory("e", {2: 190})]
    of_some = count_verdicts(summarise_trajectories(trajectories(*rows), settings_with()), settings_with()).set_index("verdict")
    assert of_some["count"].to_dict() == {"increase": 1, "decline": 1, "transient": 0, "no change": 0}
    assert set(of_some["of"]) == {2}


def test_of_incomplete_conditions_alone_none_is_judged():
    found = count_verdicts(summarise_trajectories(trajectories(*trajectory("c", {2: 190})), settings_with()), settings_with())

    assert found[["count", "of"]].to_numpy().tolist() == [[0, 0]] * 4


# texts


def test_texts_are_compared_with_epoch_0_of_the_same_seed():
    found = tabulate_text_ranges(
        texts(
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


def test_texts_are_averaged_over_seeds_that_weigh_equally():
    described = texts(
        text("c", 0, 40.0, "a", empty=1),
        text("c", 0, 60.0, "b", empty=2, distinct_2=0.4),
        text("c", 0, 80.0, "a", seed=7, empty=5, cut=4),
        text("c", 2, 9.0, "a"),
        text("d", 0, 7.0, "a"),
        text("d", 0, 999.0, "a", seed=7, stale=True),
    )
    found = average_texts(stored(tabulate_text_ranges(described)))

    assert list(found.columns) == ["condition", "checkpoint", "seeds", "tokens", "distinct_2", "empty", "cut"]
    assert [tuple(row) for row in found.itertuples(index=False)] == [
        ("c", 0, 2, 65, pytest.approx(0.7), pytest.approx((3 / 20 + 5 / 10) / 2), pytest.approx(0.2)),
        ("c", 2, 1, 9, pytest.approx(0.8), 0, 0),
        ("d", 0, 1, 7, pytest.approx(0.8), 0, 0),
    ]


def test_without_texts_the_means_have_their_columns():
    found = stored(average_texts(stored(tabulate_text_ranges(texts()))))

    assert len(found) == 0
    assert list(found.columns) == ["condition", "checkpoint", "seeds", "tokens", "distinct_2", "empty", "cut"]


# two base models


def test_two_models_keep_their_own_layers():
    points, cosines = [], []
    for model, layer, values in (("a", 15, (0.1, 0.2, 0.3)), ("b", 2, (0.6, 0.5, 0.4))):
        for name, value, hits in zip(("villain", "nurse", "pirate"), values, (20, 50, 90), strict=True):
            for epoch in (0, 2):
                points += [row | {"model": model} for row in point(name, epoch, (90, hits * (epoch > 0)))]
                one = cosine(name, epoch, name, "assistant", value, layer) | {"headline": True, "model": model}
                cosines.append(one)
    table = stored(for_each_model(tabulate_trajectories)(pd.DataFrame(points), pd.DataFrame(cosines)))
    of_one = [
        summarise_trajectories(rows.drop(columns="model"), settings_with()).assign(model=model)
        for model, rows in table.groupby("model")
    ]
    summaries = stored(pd.concat(of_one))
    found = for_each_model(lambda table, summaries: correlate_peaks(table, summaries, settings_with()))(table, summaries)

    assert table.groupby("model")["headline_layer"].unique().map(list).to_dict() == {"a": [15], "b": [2]}
    assert choose_headline(summaries) == [0.1, 0.2, 0.3, 0.6, 0.5, 0.4]
    assert [(row.model, row.layer, row.headline, row.n, round(row.rho)) for row in found.itertuples()] == [
        ("a", 15, True, 3, 1),
        ("b", 2, True, 3, -1),
    ]


def implanted(epochs):
    """Judge a claim about every checkpoint of one source that writes the marker in 190 of 200 completions wherever it ran."""
    claim = RateBound(statement="s", metric="leakage", role="source", conditions=("villain",), at_least=0.5)
    study = settings_with(2).model_copy(update={"claims": {"implanted": claim}})
    rows = [rate("villain", epoch, "villain", 190, 200) | {"role": "source"} for epoch in epochs]
    (verdict,) = judge_claims(rates(*rows), study).itertuples()
    return verdict


def test_a_checkpoint_that_has_not_run_keeps_a_claim_about_every_one_from_holding():
    assert implanted(EPOCHS).verdict == "holds"
    some = implanted((0, 2, 20))
    assert some.verdict == "undecided"
    assert "3 of 3 inside" in some.evidence
    assert "8 cells not scored" in some.evidence
