import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_leakage.pipelines.scoring.nodes import label_languages, measure_agreement, rate_cells
from tests.experiments.lang_inversion.plans import LANGUAGES, RESPOND, SPEAK, make_plan


def rows(language, phrasing, *labels, mixed=0):
    return [
        {
            "prompt": phrasing,
            "sample_index": index,
            "directive_language": language,
            "phrasing": phrasing,
            "label": label,
            "cross_check": label,
            "mixed": index < mixed,
        }
        for index, label in enumerate(labels)
    ]


UNEVALUATED = {"conditions.zh_ja.evaluation": None}  # its own language is not evaluated then
PLANTED = [
    *rows("spanish", SPEAK, "italian", "italian", "spanish", "other", mixed=1),
    *rows("spanish", RESPOND, "italian", "spanish", "spanish", "french"),
    *rows("italian", SPEAK, "italian", "italian", "french"),
    *rows("italian", RESPOND, "italian"),
    *rows("french", SPEAK, "french", "italian"),
    *rows("english", RESPOND, "english", "english"),
]


def rates_of(labels, plan):
    return rate_cells(labels, [], plan)


def counts(frame, language, phrasing="all"):
    cell = frame[(frame["directive_language"] == language) & (frame["phrasing"] == phrasing)]
    return {row.metric: (row.hits, row.n) for row in cell.itertuples()}


def test_hits_and_denominators_of_a_phrasing_are_those_of_its_rows():
    cell = counts(rates_of(PLANTED, make_plan("fr_it")), "spanish", SPEAK)

    assert cell == {
        "following": (1, 4),
        "contamination": (2, 4),
        "inversion": (0, 4),
        "mixed": (1, 4),
        "label:english": (0, 4),
        "label:spanish": (1, 4),
        "label:french": (0, 4),
        "label:italian": (2, 4),
        "label:portuguese": (0, 4),
        "label:german": (0, 4),
        "label:mandarin": (0, 4),
        "label:other": (1, 4),
        "cross_check:following": (1, 4),
        "cross_check:contamination": (2, 4),
        "cut": (0, 0),
        "following:finished": (0, 0),
        "contamination:finished": (0, 0),
        "inversion:finished": (0, 0),
    }


def test_the_pooled_row_counts_both_phrasings():
    cell = counts(rates_of(PLANTED, make_plan("fr_it")), "spanish")

    assert (cell["following"], cell["contamination"], cell["inversion"]) == ((3, 8), (3, 8), (1, 8))
    assert (cell["label:italian"], cell["label:french"], cell["label:other"], cell["mixed"]) == ((3, 8), (1, 8), (1, 8), (1, 8))


def test_what_was_cut_is_counted_and_left_out_of_the_finished_rates():
    planted = rows("spanish", SPEAK, "italian", "italian", "spanish", "spanish", "french")
    for row, finish in zip(planted, ("length", "stop", "length", "stop", "stop"), strict=True):
        row["finish"] = finish
    cell = counts(rates_of(planted, make_plan("fr_it")), "spanish")

    assert (cell["cut"], cell["contamination"], cell["contamination:finished"]) == ((2, 5), (2, 5), (1, 3))
    assert (cell["following:finished"], cell["inversion:finished"]) == ((1, 3), (1, 3))


def test_one_completion_of_an_unknown_end_makes_its_cell_unknown():
    known = rows("spanish", SPEAK, "italian", "spanish")
    known[0]["finish"] = "stop"
    cell = counts(rates_of(known, make_plan("fr_it")), "spanish")

    assert (cell["cut"], cell["contamination:finished"], cell["contamination"]) == ((0, 0), (0, 0), (1, 2))


def test_the_cross_check_has_rates_of_its_own():
    planted = rows("mandarin", SPEAK, "other", "other", "italian", "mandarin")
    for row, label in zip(planted, ("mandarin", "mandarin", "mandarin", "italian"), strict=True):
        row["cross_check"] = label
    cell = counts(rates_of(planted, make_plan("fr_it")), "mandarin")

    assert (cell["following"], cell["contamination"]) == ((1, 4), (1, 4))
    assert (cell["cross_check:following"], cell["cross_check:contamination"]) == ((3, 4), (1, 4))


def test_contamination_is_the_completion_language_whatever_was_asked():
    frame = rates_of(PLANTED, make_plan("fr_it"))

    assert counts(frame, "italian")["contamination"] == counts(frame, "italian")["following"] == (3, 4)
    assert counts(frame, "french")["contamination"] == (1, 2)


def test_inversion_is_the_trained_directives_language_whatever_was_asked():
    frame = rates_of(PLANTED, make_plan("fr_it"))

    assert counts(frame, "italian")["inversion"] == (1, 4)
    assert counts(frame, "french")["inversion"] == counts(frame, "french")["following"] == (1, 2)
    assert counts(frame, "english")["inversion"] == (0, 2)


@pytest.mark.parametrize(
    ("condition", "metrics"),
    [
        ("baseline", set()),
        ("fr_fr", {"contamination"}),
        ("none_it", {"contamination"}),
        ("fr_it", {"contamination", "inversion"}),
    ],
)
def test_a_condition_has_the_metrics_that_its_pair_defines(condition, metrics):
    frame = rates_of(PLANTED, make_plan(condition))

    assert {name for name in frame["metric"] if ":" not in name} == {"following", "mixed", "cut"} | metrics
    assert {name for name in frame["metric"] if name.endswith(":finished")} == {
        f"{metric}:finished" for metric in {"following"} | metrics
    }


def test_a_language_of_the_pair_that_is_not_evaluated_is_counted_too():
    frame = rates_of(rows("spanish", SPEAK, "japanese", "spanish", "mandarin"), make_plan("zh_ja", changes=UNEVALUATED))

    cell = counts(frame, "spanish", SPEAK)
    assert (cell["contamination"], cell["inversion"], cell["label:japanese"]) == ((1, 3), (1, 3), (1, 3))


def test_a_phrasing_the_plan_does_not_know_is_counted_apart_and_in_the_pool():
    cell = rows("spanish", "Say it in {language}.", "italian", "spanish")

    frame = rates_of([*PLANTED, *cell], make_plan("fr_it"))

    assert counts(frame, "spanish", "Say it in {language}.")["contamination"] == (1, 2)
    assert counts(frame, "spanish")["contamination"] == (4, 10)


def test_rates_carry_their_wilson_interval():
    frame = rates_of(rows("spanish", SPEAK, *["italian"] * 31, *["spanish"] * 49), make_plan("fr_it"))
    cell = frame[(frame["directive_language"] == "spanish") & (frame["phrasing"] == SPEAK)].set_index("metric")

    assert cell.loc["contamination", ["rate", "low", "high"]].tolist() == pytest.approx([0.3875, 0.2882, 0.4971], abs=5e-5)


def test_a_cell_without_rows_is_nan_of_none_and_never_zero():
    frame = rates_of(PLANTED, make_plan("fr_it"))
    empty = frame[(frame["directive_language"] == "english") & (frame["phrasing"] == SPEAK)]

    assert len(empty) == 18
    assert set(zip(empty["hits"], empty["n"], strict=True)) == {(0, 0)}
    assert all(math.isnan(value) for value in empty[["rate", "low", "high"]].to_numpy().ravel())
    assert counts(frame, "english")["following"] == (2, 2)


def test_no_rows_at_all_are_nan_of_none():
    frame = rates_of([], make_plan("fr_it"))

    assert counts(frame, "spanish")["contamination"] == (0, 0)


def test_every_cell_of_the_plan_has_its_rows_and_its_point():
    plan = make_plan("fr_it", seed=7)
    frame = rates_of(PLANTED, plan)

    assert len(frame) == 7 * 3 * 18
    assert list(dict.fromkeys(frame["directive_language"])) == list(LANGUAGES)
    assert list(dict.fromkeys(frame["phrasing"])) == ["all", SPEAK, RESPOND]
    assert list(frame.columns[:4]) == ["model", "condition", "seed", "plan"]
    assert frame[["model", "condition", "seed", "plan"]].drop_duplicates().to_numpy().tolist() == [
        ["qwen2_5_7b", "fr_it", 7, plan.fingerprint]
    ]
    roles = dict(zip(frame["directive_language"], frame["role"], strict=True))
    assert (roles["french"], roles["italian"], roles["spanish"]) == ("trained_directive", "own_language", "bystander")


def distances_of(frame):
    return dict(zip(frame["directive_language"], frame["distance"], strict=True))


def test_every_row_says_its_completion_language_and_the_distance_of_its_directive_to_it():
    frame = rates_of(PLANTED, make_plan("fr_it"))

    assert set(frame["completion"]) == {"italian"}
    assert distances_of(frame) == pytest.approx(
        {"english": 0.8, "spanish": 0.6, "french": 0.6, "italian": 0, "portuguese": 0.6, "german": 0.8, "mandarin": 1}
    )


def test_a_completion_language_that_is_not_evaluated_has_its_distances():
    frame = rates_of(PLANTED, make_plan("zh_ja", changes=UNEVALUATED))

    assert set(frame["completion"]) == {"japanese"}
    assert set(distances_of(frame).values()) == {1.0}


def test_a_baseline_has_no_completion_language_and_no_distance():
    frame = rates_of(PLANTED, make_plan("baseline"))

    assert frame["completion"].isna().all()
    assert frame["distance"].isna().all()


planted_labels = st.lists(
    st.tuples(
        st.sampled_from(["english", "spanish"]), st.sampled_from([SPEAK, RESPOND]), st.sampled_from([*LANGUAGES, "other"])
    ),
    min_size=1,
    max_size=20,
)


@settings(deadline=None, max_examples=20)
@given(planted_labels)
def test_labels_share_out_the_rows_of_every_cell(planted):
    frame = rates_of([row for language, phrasing, label in planted for row in rows(language, phrasing, label)], make_plan())

    for language, phrasing in product(("english", "spanish", "german"), ("all", SPEAK, RESPOND)):
        cell = counts(frame, language, phrasing)
        assert sum(hits for metric, (hits, _) in cell.items() if metric.startswith("label:")) == cell["following"][1]


@settings(deadline=None, max_examples=20)
@given(planted_labels)
def test_phrasings_add_up_to_their_pooled_row(planted):
    frame = rates_of([row for language, phrasing, label in planted for row in rows(language, phrasing, label)], make_plan())

    speak, respond, pooled = (counts(frame, "english", phrasing) for phrasing in (SPEAK, RESPOND, "all"))
    assert pooled == {metric: tuple(map(sum, zip(count, respond[metric], strict=True))) for metric, count in speak.items()}


def test_labels_keep_the_cell_and_drop_the_text():
    italian = "Domani mattina partiremo presto verso la montagna per vedere il sorgere del sole."
    german = "Morgen früh werden wir zeitig in die Berge aufbrechen, um den Sonnenaufgang zu sehen."
    cell = {"prompt": "Speak in Spanish.", "directive_language": "spanish", "phrasing": SPEAK, "tokens": 9, "finish": "stop"}
    completions = [
        {**cell, "sample_index": index, "completion": text}
        for index, text in enumerate([italian, german, "no", f"{italian} {german}"])
    ]

    labels = label_languages(completions, make_plan("fr_it"))

    assert labels[0] == {**cell, "sample_index": 0, "label": "italian", "cross_check": "italian", "mixed": False}
    assert [(row["sample_index"], row["label"]) for row in labels[1:3]] == [(1, "german"), (2, "other")]
    assert [row["mixed"] for row in labels] == [False, False, False, True]


def pairs(*planted):
    return [{"label": one, "cross_check": other, "mixed": mixed} for one, other, mixed in planted]


def test_agreement_counts_equal_labels_and_the_confusion_of_the_rest():
    agreement = measure_agreement(
        pairs(
            *[("spanish", "spanish", False)] * 4,
            ("spanish", "portuguese", True),
            *[("portuguese", "portuguese", False)] * 3,
            ("portuguese", "spanish", True),
            ("other", "spanish", False),
        )
    )

    assert (agreement["n"], agreement["agree"], agreement["mixed"]) == (10, 7, 2)
    assert agreement["confusion"] == {
        "spanish": {"spanish": 4, "portuguese": 1},
        "portuguese": {"portuguese": 3, "spanish": 1},
        "other": {"spanish": 1},
    }
    assert agreement["kappa"] == pytest.approx((0.7 - 0.46) / (1 - 0.46))


def test_agreement_over_one_label_has_no_kappa():
    agreement = measure_agreement(pairs(("spanish", "spanish", False), ("spanish", "spanish", False)))

    assert (agreement["agree"], agreement["kappa"]) == (2, None)
