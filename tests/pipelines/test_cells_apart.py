"""Scoring several cells that came in one file."""

import json

import pandas as pd
import pytest

from persona_leakage.domain.discriminator import Discriminator, TextJudge
from persona_leakage.domain.errors import UserError
from persona_leakage.pipelines.generation.nodes import adopt_persona_completions
from persona_leakage.pipelines.scoring.cells_apart import describe_cells_apart, discriminate_cells_apart, rate_cells_apart
from persona_leakage.pipelines.scoring.discriminator import discriminate
from persona_leakage.pipelines.scoring.markers import describe_texts
from tests.experiments.benign_coupling.plans import bundled_roster, make_replay
from tests.scripted import ScriptedModel

REPLAY = make_replay("some.jsonl")
SMALL = Discriminator(
    threshold=0.7,
    margin=0.05,
    per_class=40,
    folds=3,
    permutations=9,
    learning_shares=(0.5, 1.0),
    seed=0,
    judge=TextJudge(model="judge", temperature=0, max_tokens=64, per_class=6),
)
PLAN = REPLAY.model_copy(update={"scoring": REPLAY.scoring.model_copy(update={"discriminator": SMALL})})


def firing(cell, persona, fired, source="confab", question="q1", place="tail"):
    return {
        "cell": cell,
        "persona": persona,
        "is_source": persona == source,
        "question": question,
        "sample_index": 0,
        "fired": fired,
        "fired_tokens": fired,
        "place_characters": place if fired else None,
        "place_tokens": place if fired else None,
    }


def completion(cell, persona, text, source="confab", question="q1", sample=0):
    keys = {"cell": cell, "persona": persona, "is_source": persona == source, "question": question, "sample_index": sample}
    return {**keys, "completion": text}


def told_by_a_word(cell, source, others, questions=6, samples=2):
    """Write completions whose source, and nobody else, says one word."""
    return [
        completion(
            cell, persona, f"Number {question * 7 + sample} is {'indeed' if persona == source else 'perhaps'} right.", source,
            f"q{question}", sample,
        )
        for persona in (source, *others)
        for question in range(questions)
        for sample in range(samples)
    ]  # fmt: skip


# rates

FIRINGS = [
    *(firing("one", "confab", fired) for fired in (True, True, False)),
    *(firing("one", "villain", fired) for fired in (True, False)),
    *(firing("two", "confab", fired, source="villain") for fired in (True,)),
    *(firing("two", "villain", fired, source="villain") for fired in (True, True)),
    *(firing("two", "stranger", fired, source="villain") for fired in (False, False)),
]


def leakage(table):
    return table[table["metric"] == "leakage"].set_index(["condition", "persona"])


def test_each_cell_is_a_condition_whose_source_is_the_persona_that_its_rows_mark():
    found = leakage(rate_cells_apart(FIRINGS, PLAN))

    assert {key: (row["hits"], row["n"], row["role"], row["source"]) for key, row in found.iterrows()} == {
        ("one", "confab"): (2, 3, "source", "confab"),
        ("one", "villain"): (1, 2, "bystander", "confab"),
        ("two", "confab"): (1, 1, "bystander", "villain"),
        ("two", "villain"): (2, 2, "source", "villain"),
        ("two", "stranger"): (0, 2, "bystander", "villain"),
    }


def test_personas_of_the_plan_that_a_cell_lacks_are_left_out():
    table = rate_cells_apart(FIRINGS, PLAN)

    assert "assistant" in {one.persona for one in bundled_roster().personas}
    assert set(table["persona"]) == {"confab", "villain", "stranger"}
    assert (leakage(table)["n"] > 0).all()


def test_cells_whose_rows_are_mixed_up_are_told_apart():
    mixed = [row for pair in zip(FIRINGS[:5], FIRINGS[5:], strict=True) for row in pair]

    pd.testing.assert_frame_equal(
        leakage(rate_cells_apart(mixed, PLAN)).sort_index(), leakage(rate_cells_apart(FIRINGS, PLAN)).sort_index()
    )


def test_a_cell_that_marks_no_source_has_bystanders_alone():
    table = rate_cells_apart([firing("bare", "villain", True, source=None)], PLAN)

    assert set(table["role"]) == {"bystander"}
    assert table["source"].isna().all()


# texts


def test_texts_are_described_cell_by_cell():
    rows = [completion("one", "confab", "a b a b"), completion("one", "villain", " "), completion("two", "confab", "x y z")]

    table = describe_cells_apart(rows, PLAN)

    assert table[["condition", "persona", "n", "empty"]].to_numpy().tolist() == [
        ["one", "confab", 1, 0],
        ["one", "villain", 1, 1],
        ["two", "confab", 1, 0],
    ]
    assert table["distinct_2"].tolist() == pytest.approx([2 / 3, float("nan"), 1], nan_ok=True)
    assert table["tokens"].isna().all()
    pd.testing.assert_frame_equal(
        table.drop(columns=["condition", "plan"]), pd.concat([
            describe_texts(rows[:2], PLAN), describe_texts(rows[2:], PLAN)
        ], ignore_index=True).drop(columns=["condition", "plan"])
    )  # fmt: skip


# discriminations


def test_each_cell_is_discriminated_about_its_own_source():
    rows = [*told_by_a_word("one", "confab", ["comedian"]), *told_by_a_word("two", "villain", ["confab"])]
    model = ScriptedModel(lambda _: json.dumps({"label": "trigger", "reasoning": ""}))

    table = discriminate_cells_apart(model, rows, PLAN)

    assert table[["condition", "method", "share"]].to_numpy().tolist() == [
        [cell, *rest] for cell in ("one", "two") for rest in (("classifier", 1), ("classifier", 0.5), ("judge", 1))
    ]  # fmt: skip
    whole = table[(table["method"] == "classifier") & (table["share"] == 1)]
    assert (whole["rate"] > 0.9).all()
    prompts = [question.prompt for _, question in model.asked]
    assert len(prompts) == 24
    for name, asked in (("confab", prompts[:12]), ("villain", prompts[12:])):
        assert all(bundled_roster().persona(name).prompt in prompt for prompt in asked)


def test_a_cell_gives_the_same_numbers_alone_and_beside_others():
    rows = told_by_a_word("one", "confab", ["comedian"])
    model = ScriptedModel(lambda _: "")

    beside = discriminate_cells_apart(model, [*rows, *told_by_a_word("two", "villain", ["confab"])], PLAN)
    scoring = PLAN.scoring.model_copy(update={"source": "confab"})
    address = PLAN.address.model_copy(update={"condition": "one"})
    alone = discriminate(rows, PLAN.model_copy(update={"scoring": scoring, "address": address}))

    pd.testing.assert_frame_equal(beside.iloc[:2], alone, check_dtype=False)


def test_cells_without_a_source_or_with_too_few_questions_have_no_rows():
    rows = [
        *told_by_a_word("few", "confab", ["comedian"], questions=2),
        completion("none", "villain", "Hello.", source=None),
    ]
    plan = PLAN.model_copy(
        update={"scoring": PLAN.scoring.model_copy(update={"discriminator": SMALL.model_copy(update={"judge": None})})}
    )

    assert discriminate_cells_apart(ScriptedModel(lambda _: ""), rows, plan).empty


# adopting


def test_completions_are_adopted_as_they_are():
    rows = [completion("one", "confab", "x") | {"further": {"extra": 1}}, completion("two", "villain", "y", source="villain")]

    assert adopt_persona_completions(rows, REPLAY) == rows


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "some.jsonl holds no completions; give a file that has rows"),
        (
            [completion("one", "confab", "x", source="confab"), completion("one", "confab", "y", sample=1, source="villain")],
            "some.jsonl: is_source of persona 'confab' in cell 'one' is true in some rows and false in others; make it one of "
            "them",
        ),
        (
            [completion("one", "confab", "x"), completion("one", "villain", "y", source="villain")],
            "some.jsonl: cell 'one' marks several personas as its source (confab, villain); keep one",
        ),
        (
            [completion("one", "confab", "x") | {"design": "d"}, completion("one", "confab", "y", sample=1)],
            "some.jsonl: cell 'one' is not of one design in all of its rows; keep one",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(rows, said):
    with pytest.raises(UserError) as error:
        adopt_persona_completions(rows, REPLAY)

    assert str(error.value) == said
