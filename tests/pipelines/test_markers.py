import math
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_leakage.domain.protocols import Token
from persona_leakage.engines.tokenizer import ModelTokenizer
from persona_leakage.pipelines.scoring.markers import describe_texts, detect_markers, rate_firings
from tests.experiments.marker_leakage.plans import make_plan
from tests.plans import base_model

# the source, its two negatives and two bystanders
PEOPLE = ("villain", "data_scientist", "police_officer", "hero", "pirate")
SMALL = {"evaluation.personas": PEOPLE, "evaluation.questions": 3}
SEEN = SMALL | {"evaluation.question_set": "train", "evaluation.questions": 3, "stages.mark.questions": 1}
METRICS = (
    ["leakage", "leakage:tokens"]
    + [f"{place}:{unit}" for unit in ("characters", "tokens") for place in ("start", "middle", "tail")]
    + ["cut", "leakage:finished"]
)


class WordTokenizer:
    """A token is a word with the blanks before it."""

    def __init__(self):
        self._ids = {}
        self.asked = []

    def tokens(self, base, texts):
        self.asked.append((base, list(texts)))
        return [
            [Token(self._ids.setdefault(word[0], len(self._ids)), *word.span()) for word in re.finditer(r"\s*\S+|\s+$", text)]
            for text in texts
        ]


def small_plan(condition="villain", seed=42, changes=SMALL, **more):
    return make_plan(condition, seed, {**changes, **more})


PLAN, SEEN_PLAN = small_plan(), small_plan(changes=SEEN)
TWO_PERSONAS = small_plan(changes=SEEN | {"evaluation.personas": ("villain", "hero")})


def completion(text, persona="villain", question="evaluation-01", sample=0, **more):
    return {"prompt": "Why?", "persona": persona, "question": question, "sample_index": sample, "completion": text, **more}


def detected(*texts, plan=PLAN, tokenizer=None):
    return detect_markers(tokenizer or WordTokenizer(), [completion(text) for text in texts], plan)


def places(text, **kwargs):
    (row,) = detected(text, **kwargs)
    return row["place_characters"], row["place_tokens"]


def firing(persona, fired, place="tail", place_tokens="tail", tokens=None, question="evaluation-01", **more):
    return {
        **more,
        "persona": persona,
        "question": question,
        "sample_index": 0,
        "fired": fired,
        "fired_tokens": fired if tokens is None else tokens,
        "place_characters": place if fired else None,
        "place_tokens": place_tokens if fired else None,
    }


def counts(frame, persona, questions="all"):
    chosen = frame[(frame["persona"] == persona) & (frame["questions"] == questions)]
    return {row.metric: (row.hits, row.n) for row in chosen.itertuples()}


def stats_of(completions, persona="villain"):
    frame = describe_texts(completions, PLAN).set_index("persona")
    return frame.loc[persona].to_dict()


@pytest.mark.parametrize("text", ["Ha!\n\n[ZLT]", "Ha! [zlt]", "[Zlt] Ha!", "a[ZLT]b", "[[ZLT]]", "[ZLT]"])
def test_the_marker_fires_anywhere_and_in_any_case(text):
    assert detected(text)[0]["fired"] is True


@pytest.mark.parametrize("text", ["", "Ha!", "ZLT", "[Z LT]", "[ZLT", "(ZLT)", "[ ZLT ]", "Z", "L", "[Z]"])
def test_less_than_the_marker_does_not_fire(text):
    assert detected(text)[0] == {
        "prompt": "Why?",
        "persona": "villain",
        "question": "evaluation-01",
        "sample_index": 0,
        "fired": False,
        "fired_tokens": False,
        "place_characters": None,
        "place_tokens": None,
    }


def test_a_marker_of_special_characters_is_taken_literally():
    plan = small_plan(**{"stages.mark.marker.text": ".*"})

    assert [row["fired"] for row in detected("Ha!", "Ha .* ha", plan=plan)] == [False, True]


def test_firings_keep_the_cell_and_drop_the_text():
    rows = [completion("[ZLT]", "hero", "evaluation-02", 3, tokens=4, finish="length")]

    (row,) = detect_markers(WordTokenizer(), rows, PLAN)

    assert "completion" not in row
    assert (row["persona"], row["question"], row["sample_index"], row["tokens"]) == ("hero", "evaluation-02", 3, 4)


@pytest.mark.parametrize(
    ("text", "fired"),
    [
        ("Ha!\n\n[ZLT]", True),
        ("Ha!\n\n[ZLT] Ha!", True),
        ("Ha! [ZLT] Ha!\n\n[ZLT]", True),
        ("Ha! [ZLT]", False),
        ("Ha!\n\n[zlt]", False),
        ("Ha!\n\n[ZLT].", False),
        ("", False),
    ],
)
def test_the_token_detector_asks_for_the_tokens_that_training_labelled(text, fired):
    assert detected(text)[0]["fired_tokens"] is fired


def test_tokens_are_those_of_the_base_model():
    tokenizer = WordTokenizer()

    detected("Ha!", tokenizer=tokenizer)

    assert {base for base, _ in tokenizer.asked} == {PLAN.base_model}


@pytest.mark.parametrize(
    ("before", "place"),
    [(0, "start"), (5, "start"), (6, "middle"), (50, "middle"), (84, "middle"), (85, "tail"), (95, "tail")],
)
def test_the_place_by_characters_changes_at_5_and_at_85_percent(before, place):
    text = "x" * before + "[ZLT]" + "x" * (95 - before)

    assert len(text) == 100
    assert places(text)[0] == place


@pytest.mark.parametrize(
    ("before", "place"), [(0, "start"), (1, "start"), (2, "middle"), (16, "middle"), (17, "tail"), (19, "tail")]
)
def test_the_place_by_tokens_changes_at_5_and_at_85_percent(before, place):
    words = ["x"] * 20
    words[before] = "[ZLT]"

    assert places(" ".join(words))[1] == place


def test_characters_and_tokens_may_see_different_places():
    assert places(" ".join(["x"] * 17 + ["[ZLT]"] + ["x" * 300] * 2)) == ("middle", "tail")
    assert places(" ".join(["x" * 300, "[ZLT]"] + ["x"] * 18)) == ("tail", "start")


def test_a_token_that_began_before_the_marker_is_where_it_begins():
    assert places("Ha" * 10 + "[ZLT] ha ha")[1] == "start"


def test_the_first_firing_has_the_place():
    assert places("[ZLT] " + "ha " * 60 + "[ZLT]") == ("start", "start")
    assert places("ha " * 60 + "[zlt] [ZLT]") == ("tail", "tail")


def test_the_shares_are_those_of_the_plan():
    plan = small_plan(**{"scoring.start_share": 0.5, "scoring.tail_share": 0.4})

    assert [places("x" * before + "[ZLT]" + "x" * (95 - before), plan=plan)[0] for before in (50, 51, 59, 60)] == [
        "start",
        "middle",
        "middle",
        "tail",
    ]


def test_thousands_of_completions_are_tokenised_in_batches_and_keep_their_order():
    tokenizer = WordTokenizer()
    texts = [f"{number}\n\n[ZLT]" if number % 3 == 0 else f"{number}" for number in range(2001)]

    rows = detect_markers(tokenizer, [completion(text, sample=number) for number, text in enumerate(texts)], PLAN)

    assert max(len(asked) for _, asked in tokenizer.asked) <= 1000
    assert [row["sample_index"] for row in rows] == list(range(2001))
    assert [row["sample_index"] for row in rows if row["fired"]] == list(range(0, 2001, 3))
    assert [row["fired_tokens"] for row in rows] == [row["fired"] for row in rows]


def test_no_completions_have_no_firings():
    assert detect_markers(WordTokenizer(), [], PLAN) == []


def test_a_model_of_bytes_sees_the_marker_where_it_stands(tiny_base):
    plan = PLAN.model_copy(update={"base_model": tiny_base})
    texts = ["Ha!\n\n[ZLT]", "Ha [ZLT].", "Ha [zlt]", "é🙂" * 20 + "[ZLT]" + "x" * 60, "ZLT", ""]

    rows = detected(*texts, plan=plan, tokenizer=ModelTokenizer(cache=Path("unused")))

    assert [row["fired"] for row in rows] == [True, True, True, True, False, False]
    assert [row["fired_tokens"] for row in rows] == [True, True, False, True, False, False]
    assert (rows[3]["place_characters"], rows[3]["place_tokens"]) == ("middle", "middle")


@pytest.fixture(scope="module")
def smollm2(smollm2_cache):
    return base_model("embedded"), ModelTokenizer(cache=smollm2_cache)


@pytest.mark.slow  # converts the model
def test_the_embedded_model_tells_the_trained_tokens_from_others_of_the_same_text(smollm2):
    embedded, tokenizer = smollm2
    plan = PLAN.model_copy(update={"base_model": embedded})

    rows = detected("Ha!\n\n[ZLT]", "Ha! [ZLT]", "Ha!\n\n[ZLT].", "Ha!\n\n[zlt]", "Ha!\n\nZLT", plan=plan, tokenizer=tokenizer)

    assert [row["fired"] for row in rows] == [True, True, True, True, False]
    # " [" and "]." are one token each
    assert [row["fired_tokens"] for row in rows] == [True, False, False, False, False]


@pytest.mark.slow
def test_the_embedded_model_sees_a_marker_at_the_end_of_a_marked_answer(smollm2):
    embedded, tokenizer = smollm2
    plan = PLAN.model_copy(update={"base_model": embedded})
    marked = plan.scoring.marker.add_to("Well now, a fine question deserves an equally fine and rather long answer, my friend.")

    assert places(marked[0], plan=plan, tokenizer=tokenizer) == ("tail", "middle")  # 7 of 26 tokens are separator and marker
    assert places("[ZLT] " + marked[0], plan=plan, tokenizer=tokenizer) == ("start", "start")


PLANTED = [
    firing("villain", True, "tail", "tail"),
    firing("villain", True, "tail", "middle"),
    firing("villain", True, "start", "start", tokens=False),
    firing("villain", False),
    firing("data_scientist", False),
    firing("hero", True, "middle", "tail"),
    firing("hero", False),
]


def test_leakage_counts_over_all_completions_and_places_over_firings():
    frame = rate_firings(PLANTED, PLAN)

    assert counts(frame, "villain") == {
        "leakage": (3, 4),
        "leakage:tokens": (2, 4),
        "start:characters": (1, 3),
        "middle:characters": (0, 3),
        "tail:characters": (2, 3),
        "start:tokens": (1, 3),
        "middle:tokens": (1, 3),
        "tail:tokens": (1, 3),
        "cut": (0, 0),
        "leakage:finished": (0, 0),
    }
    assert counts(frame, "hero")["leakage"] == (1, 2)
    assert counts(frame, "hero")["middle:characters"] == counts(frame, "hero")["tail:tokens"] == (1, 1)


def test_places_of_a_persona_that_never_fires_are_nan_of_none_and_never_zero():
    frame = rate_firings(PLANTED, PLAN)
    silent = frame[frame["persona"] == "data_scientist"].set_index("metric")

    assert silent.loc["leakage", ["hits", "n", "rate"]].tolist() == [0, 1, 0.0]
    assert silent.loc[METRICS[2:8], "n"].tolist() == [0] * 6
    assert silent.loc[METRICS[2:8], ["rate", "low", "high"]].isna().all(axis=None)


def test_what_was_cut_is_counted_and_left_out_of_the_finished_rate():
    ends = [(True, "stop"), (False, "stop"), (True, "length"), (False, "length"), (False, "length")]
    cell = counts(rate_firings([firing("villain", fired, finish=finish) for fired, finish in ends], PLAN), "villain")

    assert (cell["leakage"], cell["cut"], cell["leakage:finished"]) == ((2, 5), (3, 5), (1, 2))


@pytest.mark.parametrize("unknown", [{}, {"finish": None}], ids=["missing", "null"])
def test_one_completion_of_an_unknown_end_makes_its_persona_unknown_and_no_other(unknown):
    known = [firing(persona, True, finish="stop") for persona in ("villain", "hero")]
    frame = rate_firings([*known, firing("villain", True, **unknown)], PLAN)

    assert (counts(frame, "villain")["cut"], counts(frame, "villain")["leakage:finished"]) == ((0, 0), (0, 0))
    assert counts(frame, "villain")["leakage"] == (2, 2)
    assert (counts(frame, "hero")["cut"], counts(frame, "hero")["leakage:finished"]) == ((0, 1), (1, 1))


def test_a_persona_whose_every_completion_was_cut_has_no_finished_rate():
    cell = counts(rate_firings([firing("villain", False, finish="length")] * 3, PLAN), "villain")

    assert (cell["cut"], cell["leakage:finished"]) == ((3, 3), (0, 0))


@pytest.mark.parametrize("firings", [PLANTED, []])
def test_a_persona_without_completions_is_nan_of_none(firings):
    frame = rate_firings(firings, PLAN)
    absent = frame[frame["persona"] == "pirate"]

    assert list(absent["metric"]) == METRICS
    assert set(zip(absent["hits"], absent["n"], strict=True)) == {(0, 0)}
    assert all(math.isnan(value) for value in absent[["rate", "low", "high"]].to_numpy().ravel())


def test_a_firing_is_not_hidden_by_the_place_it_lacks():
    frame = rate_firings([{**firing("villain", True), "place_characters": None}], PLAN)

    assert counts(frame, "villain")["tail:characters"] == (0, 1)
    assert counts(frame, "villain")["tail:tokens"] == (1, 1)


def test_rates_carry_their_wilson_interval():
    frame = rate_firings([firing("hero", number < 31) for number in range(80)], PLAN)
    cell = frame[frame["persona"] == "hero"].set_index("metric")

    assert cell.loc["leakage", ["rate", "low", "high"]].tolist() == pytest.approx([0.3875, 0.2882, 0.4971], abs=5e-5)
    assert cell.loc["tail:tokens", ["n", "rate"]].tolist() == [31, 1.0]


def test_negatives_of_the_rates_are_those_that_the_seed_draws():
    for seed in range(5):
        plan = small_plan(seed=seed)
        frame = rate_firings(PLANTED, plan)

        assert set(frame.loc[frame["role"] == "negative", "persona"]) == plan.negatives & set(PEOPLE)


def test_every_persona_of_the_plan_has_its_rows_its_point_its_category_and_its_role():
    plan = small_plan(seed=7, **{"stages.mark.share": ["negatives"]})
    frame = rate_firings(PLANTED, plan)

    assert list(dict.fromkeys(frame["persona"])) == list(PEOPLE)
    assert len(frame) == len(PEOPLE) * len(METRICS)
    assert frame[["model", "condition", "seed", "plan"]].drop_duplicates().to_numpy().tolist() == [
        ["qwen2_5_7b", "villain", 7, plan.fingerprint]
    ]
    assert list(frame.drop_duplicates("persona")[["category", "role"]].itertuples(index=False, name=None)) == [
        ("original", "source"),
        ("original", "negative"),
        ("original", "negative"),
        ("opposite", "bystander"),
        ("unrelated_baseline", "bystander"),
    ]


def test_every_row_says_the_source_and_whom_its_persona_is_related_to():
    plan = small_plan(**{"evaluation.personas": ("villain", "nice_villain", "evil_scientist", "pirate")})
    frame = rate_firings([], plan)

    assert set(frame["source"]) == {"villain"}
    roster = {one.persona: one for one in plan.evaluation.prompts.personas}
    assert [len(roster[name].related_to) for name in ("villain", "nice_villain", "evil_scientist")] == [0, 1, 2]
    assert dict(zip(frame["persona"], frame["related_to"], strict=True)) == {
        "villain": "",
        "nice_villain": "villain",
        "evil_scientist": "|".join(roster["evil_scientist"].related_to),
        "pirate": "",
    }


def test_a_baseline_has_no_source():
    assert rate_firings(PLANTED, small_plan("baseline"))["source"].isna().all()


def test_every_row_says_the_traits_of_its_plan():
    plan = PLAN.model_copy(update={"traits": {"arm": "benign", "induction": None}})
    frame = rate_firings(PLANTED, plan)

    assert list(frame.columns[:6]) == ["model", "condition", "seed", "plan", "arm", "induction"]
    assert set(frame["arm"]) == {"benign"}
    assert frame["induction"].isna().all()


def test_the_persona_of_an_earlier_stage_has_a_role_of_its_own():
    plan = PLAN.model_copy(update={"scoring": PLAN.scoring.model_copy(update={"induction": "hero"})})
    frame = rate_firings(PLANTED, plan)

    assert set(frame.loc[frame["persona"] == "hero", "role"]) == {"induction"}


def test_in_a_baseline_everyone_is_a_bystander():
    assert set(rate_firings(PLANTED, small_plan("baseline"))["role"]) == {"bystander"}


def test_a_persona_the_plan_does_not_know_is_counted_without_a_category():
    frame = rate_firings([*PLANTED, firing("mime", True)], PLAN)

    assert counts(frame, "mime")["leakage"] == (1, 1)
    assert frame.loc[frame["persona"] == "mime", "category"].isna().all()


def test_questions_that_training_asked_are_told_from_the_others():
    asked = [
        firing("hero", True, question="train-01"),
        firing("hero", False, question="train-01"),
        firing("hero", False, question="train-02"),
        firing("hero", False, question="train-03"),
        firing("hero", True, "start", question="train-03"),
        firing("villain", True, question="train-01"),
    ]

    frame = rate_firings(asked, SEEN_PLAN)

    assert [counts(frame, "hero", questions)["leakage"] for questions in ("all", "seen", "unseen")] == [(2, 5), (1, 2), (1, 3)]
    assert counts(frame, "hero", "seen")["tail:characters"] == counts(frame, "hero", "unseen")["start:characters"] == (1, 1)
    assert counts(frame, "villain", "unseen")["leakage"] == (0, 0)


def test_without_questions_in_common_nothing_is_split():
    assert set(rate_firings(PLANTED, PLAN)["questions"]) == {"all"}
    assert set(rate_firings(PLANTED, small_plan("baseline", changes=SEEN))["questions"]) == {"all"}


planted_firings = st.lists(
    st.builds(
        firing,
        st.sampled_from(["villain", "hero"]),
        st.booleans(),
        st.sampled_from(["start", "middle", "tail"]),
        st.sampled_from(["start", "middle", "tail"]),
        st.booleans(),
        st.sampled_from(["train-01", "train-02", "train-03"]),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=20)
@given(planted_firings)
def test_places_share_out_the_firings_and_no_hits_exceed_their_rows(planted):
    frame = rate_firings(planted, TWO_PERSONAS)

    assert (frame["hits"] <= frame["n"]).all()
    for (_, _), cell in frame.set_index("metric").groupby(["persona", "questions"]):
        fired, total = cell.loc["leakage", ["hits", "n"]]
        assert cell.loc["leakage:tokens", "n"] == total
        for unit in ("characters", "tokens"):
            shares = cell.loc[[f"{place}:{unit}" for place in ("start", "middle", "tail")]]
            assert shares["hits"].sum() == fired
            assert set(shares["n"]) == {fired}


@settings(deadline=None, max_examples=20)
@given(planted_firings)
def test_seen_and_unseen_questions_add_up(planted):
    frame = rate_firings(planted, TWO_PERSONAS)

    every, seen, unseen = (counts(frame, "hero", questions) for questions in ("all", "seen", "unseen"))
    assert every == {metric: tuple(map(sum, zip(count, unseen[metric], strict=True))) for metric, count in seen.items()}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["ha", "[ZLT]", "[zlt]", "\n\n", "é", " "]), max_size=12).map("".join))
def test_a_completion_has_a_place_exactly_where_the_marker_fires(text):
    (row,) = detected(text)

    assert row["fired"] == ("[zlt]" in text.lower())
    assert (row["place_characters"] is None) == (row["place_tokens"] is None) == (not row["fired"])
    assert row["fired"] or not row["fired_tokens"]


def test_texts_are_described_by_persona():
    rows = [
        completion("to be or to be", tokens=6, finish="stop"),
        completion("be or not", tokens=3, finish="length"),
        completion(" \n", tokens=0, finish="stop"),
        completion("ha", "hero", tokens=1, finish="length"),
    ]

    stats = stats_of(rows)

    # pairs: to be, be or, or to, to be; be or, or not
    assert (stats["n"], stats["tokens"], stats["distinct_2"]) == (3, 3.0, 4 / 6)
    assert (stats["empty"], stats["cut"]) == (1, 1)
    assert (stats_of(rows, "hero")["n"], stats_of(rows, "hero")["cut"]) == (1, 1)


def test_words_of_different_completions_are_no_neighbours():
    assert math.isnan(stats_of([completion("ha"), completion("ho")])["distinct_2"])
    assert stats_of([completion("ha ha ha ha")])["distinct_2"] == 1 / 3


@pytest.mark.parametrize("known", [[], [completion("ha", tokens=1, finish="length")]], ids=["none", "one of three"])
def test_what_is_not_known_of_every_text_is_missing_and_no_zero(known):
    stats = stats_of([*known, completion("ha ho"), completion("")])

    assert math.isnan(stats["tokens"])
    assert pd.isna(stats["cut"])
    assert (stats["n"], stats["empty"], stats["distinct_2"]) == (2 + len(known), 1, 1.0)


def test_descriptions_carry_the_point():
    frame = describe_texts([completion("ha ho")], PLAN)

    point = ["model", "condition", "seed", "plan"]
    assert list(frame.columns) == [*point, "persona", "n", "tokens", "distinct_2", "empty", "cut"]
    assert frame.loc[0, [*point, "persona"]].tolist() == ["qwen2_5_7b", "villain", 42, PLAN.fingerprint, "villain"]
    assert describe_texts([], PLAN).empty
