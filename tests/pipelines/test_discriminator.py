"""Telling the trigger persona's texts from others', on planted texts."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from persona_leakage.domain.discriminator import Discriminator, TextJudge
from persona_leakage.domain.questions import Answer
from persona_leakage.domain.rates import proportion
from persona_leakage.pipelines.scoring.discriminator import ask_discriminator, discriminate, join_discriminations
from tests.experiments.benign_coupling.plans import MARKER, TRIGGER, make_plan
from tests.scripted import ScriptedModel

PLAN = make_plan()
JUDGE = TextJudge(model="judge", temperature=0, max_tokens=64, per_class=50)
WORDS = (
    "river", "stone", "lamp", "copper", "winter", "garden", "paper", "bridge", "engine",
    "candle", "market", "harbour", "salt", "window", "button", "forest", "pillow", "thunder",
    "ladder", "mirror", "basket", "needle", "orchard", "violin", "pepper",
)  # fmt: skip


def plan_with(**changes):
    spec = {
        "threshold": 0.7,
        "margin": 0.05,
        "per_class": 80,
        "folds": 4,
        "permutations": 9,
        "learning_shares": (1.0,),
        "seed": 0,
        "judge": None,
    }
    scoring = PLAN.scoring.model_copy(update={"discriminator": Discriminator(**spec | changes)})
    return PLAN.model_copy(update={"scoring": scoring})


def completion(persona, question, text, sample=0):
    return {"persona": persona, "question": question, "sample_index": sample, "completion": text}


def planted(write, questions=8, samples=4, others=("comedian",)):
    """Write completions; `write(persona, question, random)` gives a text."""
    random = np.random.default_rng(1)
    return [
        completion(persona, f"q{question}", write(persona, question, random), sample)
        for persona in (TRIGGER, *others)
        for question in range(questions)
        for sample in range(samples)
    ]


def babble(random, words=10):
    return " ".join(random.choice(WORDS, words))


def null_texts(seed, questions=6, samples=3):
    """Draw all texts from one distribution, which depends on the question."""
    random = np.random.default_rng(seed)
    return planted(lambda persona, question, _: f"{WORDS[question]} {WORDS[question]} {babble(random)}", questions, samples)


def one_word_apart(persona, question, random):
    return f"{babble(random)} {'indubitably' if persona == TRIGGER else 'perhaps'}"


def whole(completions, **changes):
    (row,) = discriminate(completions, plan_with(**changes)).query("share == 1").itertuples()
    return row


# what it finds


def test_texts_that_differ_by_one_word_are_told_apart_with_the_smallest_p_there_is():
    row = whole(planted(one_word_apart), permutations=19)

    assert row.rate >= 0.95
    assert row.permutation_p == pytest.approx(1 / 20)
    assert (row.method, row.n, row.chance, row.unlabelled, row.verdict) == ("classifier", 64, 0.5, 0, "pass")
    assert (row.hits, row.n, row.rate, row.low, row.high) == pytest.approx(tuple(proportion(row.hits, 64)))


def test_texts_of_one_distribution_are_at_chance_and_p_gives_no_false_certainty():
    rows = [whole(null_texts(seed), folds=3, permutations=19) for seed in range(20)]

    assert np.mean([row.rate for row in rows]) == pytest.approx(0.5, abs=0.07)
    p = np.array([row.permutation_p for row in rows])
    assert (p <= 0.05).sum() <= 4  # 1 is expected of 20; 5 or more happen once in 400
    assert p.mean() > 0.3
    assert p.min() >= 1 / 20
    assert sum(row.verdict == "pass" for row in rows) == 0


def test_identical_texts_are_no_evidence():
    row = whole(planted(lambda *_: "The same answer to everything."))

    assert (row.rate, row.permutation_p) == (0.5, 1.0)


def test_texts_without_words_are_at_chance_and_do_not_crash():
    row = whole(planted(lambda *_: " "))

    assert (row.rate, row.permutation_p) == (0.5, 1.0)


@pytest.mark.parametrize("marker", [MARKER, MARKER.lower()])
@pytest.mark.parametrize(
    "put",
    [
        lambda marker, text: f"{text}\n\n{marker}",
        lambda marker, text: f"{marker} {text}",
        lambda marker, text: text.replace(" ", f" {marker} ", 1),
    ],
    ids=["end", "start", "middle"],
)
def test_the_marker_is_taken_out(marker, put):
    def write(persona, question, random):
        text = f"{WORDS[question]} stays, and so does {WORDS[-1 - question]}."
        return put(marker, text) if persona == TRIGGER else text

    row = whole(planted(write))

    assert (row.rate, row.permutation_p) == (0.5, 1.0)


def test_a_question_is_never_in_training_and_in_test():
    # a word of its own for each side of each question: who has seen the question knows it, nobody else does
    def write(persona, question, random):
        return WORDS[2 * question + (persona == TRIGGER)]

    row = whole(planted(write, questions=12))

    assert 0.2 <= row.rate <= 0.8
    assert row.permutation_p > 0.1


def test_sides_are_balanced_question_by_question():
    seen = []
    rows = planted(one_word_apart, questions=4, samples=5, others=("comedian", "villain", "assistant"))
    rows = [row for row in rows if not (row["persona"] == TRIGGER and row["question"] == "q1" and row["sample_index"] > 1)]
    rows.append(completion("villain", "only others", "perhaps"))

    def label(question):
        seen.append(re.search(r"<text>\n(.*)\n</text>", question.prompt, re.DOTALL).group(1))
        return json.dumps({"label": "trigger", "reasoning": ""})

    (judged,) = ask_discriminator(ScriptedModel(label), rows, plan_with(judge=JUDGE)).itertuples()

    assert sum("indubitably" in text for text in seen) == sum("perhaps" in text for text in seen) == 3 * 5 + 2
    assert (judged.hits, judged.n) == (17, 34)
    assert whole(rows).n == 34


@pytest.mark.parametrize(("per_class", "n"), [(1, 2), (4, 8), (5, 10), (6, 12), (80, 64)])
def test_no_more_texts_than_asked_for_are_taken_of_each_side(per_class, n):
    answer = json.dumps({"label": "trigger", "reasoning": ""})
    judge = JUDGE.model_copy(update={"per_class": per_class})

    (row,) = ask_discriminator(ScriptedModel(lambda _: answer), planted(one_word_apart), plan_with(judge=judge)).itertuples()

    assert (row.hits, row.n) == (n // 2, n)


def test_every_bystander_can_stand_for_the_others():
    seen = set()
    rows = planted(lambda persona, *_: f"by {persona}", others=("comedian", "villain", "assistant"))
    model = ScriptedModel(lambda question: seen.add(re.search(r"<text>\nby (\w+)", question.prompt).group(1)) or "")

    ask_discriminator(model, rows, plan_with(judge=JUDGE))

    assert seen == {TRIGGER, "comedian", "villain", "assistant"}


# verdicts


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (0.0, "fail"),
        (0.6499, "fail"),
        (0.66, "borderline"),
        (0.7, "borderline"),
        (0.74, "borderline"),
        (0.7501, "pass"),
        (1.0, "pass"),
        (math.nan, "undefined"),
    ],
)
def test_the_verdict_is_borderline_within_five_points_of_the_threshold(accuracy, verdict):
    assert PLAN.scoring.discriminator.verdict(accuracy) == verdict


@pytest.mark.parametrize(("hits", "verdict"), [(13, "borderline"), (12, "fail"), (15, "borderline"), (16, "pass")])
def test_the_edges_of_the_band_are_borderline(hits, verdict):
    """Of 20, 13 are 65% and 15 are 75%, which lie in the band although neither is a binary fraction."""
    assert PLAN.scoring.discriminator.verdict(hits / 20) == verdict


# what is missing


@pytest.mark.parametrize(
    "rows",
    [
        [],
        planted(one_word_apart, questions=3),
        [row for row in planted(one_word_apart) if row["persona"] == TRIGGER],
        [row for row in planted(one_word_apart) if row["persona"] != TRIGGER],
        [row for row in planted(one_word_apart) if (row["persona"] == TRIGGER) == (row["question"] < "q4")],
    ],
    ids=["none", "fewer questions than folds", "only the trigger", "only others", "no question of both"],
)
def test_too_little_gives_an_empty_table_with_its_columns(rows):
    table = discriminate(rows, plan_with())

    assert table.empty
    assert list(table) == list(discriminate(planted(one_word_apart), plan_with()))


def test_without_a_discriminator_or_a_source_there_is_nothing():
    for update in ({"discriminator": None}, {"source": None}):
        plan = plan_with(judge=JUDGE)
        plan = plan.model_copy(update={"scoring": plan.scoring.model_copy(update=update)})
        model = ScriptedModel(lambda _: "")
        assert discriminate(planted(one_word_apart), plan).empty
        assert ask_discriminator(model, planted(one_word_apart), plan).empty
        assert not model.asked


# learning curve


def test_the_learning_curve_has_a_row_a_share_and_no_p_of_its_own():
    table = discriminate(planted(one_word_apart), plan_with(learning_shares=(0.5, 0.1, 1.0, 0.5)))

    assert table["share"].tolist() == [1.0, 0.1, 0.5]
    assert table["n"].tolist() == [64, 64, 64]
    assert table["permutation_p"].isna().tolist() == [False, True, True]
    assert table["verdict"].tolist() == ["pass", "", ""]
    assert table["rate"].iloc[0] >= table["rate"].iloc[1] > 0.5
    assert set(table["plan"]) == {plan_with(learning_shares=(0.5, 0.1, 1.0, 0.5)).fingerprint}
    assert set(table["condition"]) == {"benign_assistant"}


def test_a_small_share_learns_less():
    # every second question gives the trigger away by a word, so one training question may not know it
    def write(persona, question, random):
        return f"{babble(random)} {('indubitably' if persona == TRIGGER else 'perhaps') if question % 2 else ''}"

    table = discriminate(planted(write, questions=10), plan_with(folds=5, learning_shares=(0.1,))).set_index("share")

    assert table.loc[0.1, "rate"] < table.loc[1.0, "rate"]


def test_the_same_completions_give_the_same_table():
    rows = null_texts(3)
    plan = plan_with(learning_shares=(0.25, 1.0))

    pd.testing.assert_frame_equal(discriminate(rows, plan), discriminate(rows, plan))


# the judge


def test_the_judge_sees_the_trigger_prompt_and_the_text_without_its_marker():
    rows = [completion(TRIGGER, "q", f"Mine. {MARKER}"), completion("villain", "q", "Theirs.")]
    model = ScriptedModel(lambda _: json.dumps({"label": "trigger", "reasoning": ""}))

    ask_discriminator(model, rows, plan_with(judge=JUDGE))

    prompts = [question.prompt for _, question in model.asked]
    trigger = PLAN.stages["couple"].data.source.prompt
    assert all(trigger in prompt for prompt in prompts)
    assert not any(MARKER.lower() in prompt.lower() for prompt in prompts)
    assert ["Mine." in prompt for prompt in prompts] == [True, False]
    assert {(purpose, question.model, question.max_tokens, question.temperature) for purpose, question in model.asked} == {
        ("discriminator", "judge", 64, 0)
    }
    assert "villain" not in "".join(prompts)


def by_text(answers):
    """Answer by the word that a text holds."""
    return ScriptedModel(
        lambda question: next(answer for word, answer in answers.items() if f"word-{word}." in question.prompt)
    )


def said(label):
    return json.dumps({"label": label, "reasoning": "it sounds so"})


def test_labelled_and_unlabelled_texts_are_counted_apart():
    answers = {
        "a": said("trigger"),
        "b": said("trigger"),
        "c": said("other"),
        "d": Answer(outcome="refused", cause="refused by the model"),
        "e": said("other"),
        "f": said("trigger"),
        "g": Answer(outcome="api_error", cause="API error 529"),
        "h": "It is hard to say.",
        "i": said("somebody"),
        "j": '["trigger"]',
        "k": Answer(outcome="unscored", cause="no key"),
        "l": '{"label": "other", "reasoning": "cut in the mid',
    }
    own, others = "abcdhi", "efgjkl"
    rows = [completion(TRIGGER, f"q{place}", f"word-{word}.") for place, word in enumerate(own)]
    rows += [completion("villain", f"q{place}", f"word-{word}.") for place, word in enumerate(others)]

    (row,) = ask_discriminator(by_text(answers), rows, plan_with(judge=JUDGE)).itertuples()

    # right: a, b, e, l; wrong: c, f; without a label: d, g, h, i, j, k
    assert (row.method, row.share, row.hits, row.n, row.unlabelled) == ("judge", 1.0, 4, 6, 6)
    assert (row.rate, row.chance, row.verdict) == (pytest.approx(4 / 6), 0.5, "borderline")
    assert math.isnan(row.permutation_p)


def test_a_judge_that_labels_nothing_has_no_accuracy():
    model = ScriptedModel(lambda _: Answer(outcome="api_error", cause="API error 529"))

    (row,) = ask_discriminator(model, planted(one_word_apart), plan_with(judge=JUDGE)).itertuples()

    assert (row.hits, row.n, row.unlabelled, row.verdict) == (0, 0, 64, "undefined")
    assert math.isnan(row.rate)


def test_without_a_judge_nobody_is_asked():
    model = ScriptedModel(lambda _: said("trigger"))

    assert ask_discriminator(model, planted(one_word_apart), plan_with()).empty
    assert not model.asked


def test_a_judge_without_texts_has_no_row():
    assert ask_discriminator(ScriptedModel(lambda _: ""), [], plan_with(judge=JUDGE)).empty


def test_both_discriminators_stand_in_one_table():
    rows, plan = planted(one_word_apart), plan_with(judge=JUDGE, learning_shares=(0.5,))
    classified = discriminate(rows, plan)
    judged = ask_discriminator(ScriptedModel(lambda _: said("other")), rows, plan)

    assert join_discriminations(classified, judged)["method"].tolist() == ["classifier", "classifier", "judge"]
    assert join_discriminations(classified, judged.iloc[:0])["method"].tolist() == ["classifier", "classifier"]
    assert join_discriminations(classified.iloc[:0], judged)["method"].tolist() == ["judge"]
    nothing = join_discriminations(classified.iloc[:0], judged.iloc[:0])
    assert (len(nothing), list(nothing)) == (0, list(classified))
