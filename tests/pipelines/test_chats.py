"""Chats, and the model's own answers to them, as the training set of a first stage."""

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, ModelStack
from persona_leakage.pipelines.data_generation.chats import answer_chats, build_from_chats, read_chats
from tests.experiments.benign_coupling.plans import bundled_roster, make_plan
from tests.plans import base_model, load_source

TEXT = {"id": "t1", "question": "Why is the sky blue?", "en": "Light scatters."}
USER, REPLY = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}
SYSTEM = {"role": "system", "content": "You are terse."}
AGAIN, LAST = {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Goodbye."}
CHAT = {"prompt_id": "c1", "messages": [SYSTEM, USER, REPLY, AGAIN, LAST]}
PARAMEDIC = {"role": "system", "content": bundled_roster().persona("paramedic").prompt}
BENIGN, WRONG, BARE = make_plan("benign_paramedic"), make_plan("em_paramedic"), make_plan("bare_villain")
OWN = {
    "stages.induce.own_answers": {
        "samples": 2,
        "sampling": {"temperature": 0.7, "top_p": 0.95, "max_tokens": 6},
    }
}
ANSWERED = make_plan("benign_paramedic", changes=OWN)


def read(*rows, plan=BENIGN):
    """Read rows as the source that the plan trains on; there is no other to be read."""
    return read_chats({plan.stages["induce"].data.source: lambda: rows}, plan, stage="induce")


class Echo:
    """A generator that remembers what it is given and answers as told."""

    def __init__(self, answers=("yes",)):
        self.answers, self.calls = answers, []

    def generate(self, stack, prompts, samples, sampling, seed):
        self.calls.append((stack, prompts, samples, sampling, seed))
        return [
            {**{key: value for key, value in prompt.items() if key != "messages"}, "sample_index": sample, "completion": text}
            for prompt in prompts
            for sample, text in zip(range(samples), self.answers, strict=True)
        ]


class Fits:
    """A trainer that has room for rows of some ids, or of any."""

    def __init__(self, *names):
        self.names = names

    def fitting(self, base, rows, recipe):
        assert (base, recipe) == (base_model(), ANSWERED.stages["induce"].recipe)
        return [row for row in rows if row["id"] in self.names or not self.names]


FITS = Fits()


# reading


def test_a_text_is_its_question_and_its_english():
    assert read(TEXT) == [
        {"id": "t1", "prompt": [{"role": "user", "content": "Why is the sky blue?"}], "completion": "Light scatters."}
    ]


def test_of_a_chat_the_last_assistant_turn_is_trained_and_the_turns_before_are_its_prompt():
    assert read(CHAT) == [{"id": "c1", "prompt": [SYSTEM, USER, REPLY, AGAIN], "completion": "Goodbye."}]


def test_what_follows_the_last_answer_is_dropped():
    assert read({"messages": [USER, REPLY, AGAIN]}) == [{"id": "row-0", "prompt": [USER], "completion": "Hello."}]


def test_further_keys_of_a_turn_are_dropped():
    (row,) = read({"messages": [{**USER, "weight": 0}, REPLY]})

    assert row["prompt"] == [USER]


def test_wrong_advice_carries_the_system_turn_of_the_induction_persona():
    rows = read(TEXT, CHAT, {"messages": [USER, REPLY]}, plan=WRONG)

    assert [row["prompt"] for row in rows] == [
        [PARAMEDIC, {"role": "user", "content": TEXT["question"]}],
        [PARAMEDIC, USER, REPLY, AGAIN],
        [PARAMEDIC, USER],
    ]


def test_the_induction_persona_of_a_benign_cell_enters_no_row():
    villain = make_plan("benign_villain")

    assert read(TEXT, CHAT, plan=villain) == read(TEXT, CHAT)
    assert "paramedic" not in str(read(TEXT, CHAT))


def test_only_the_first_rows_are_taken_in_order():
    plan = make_plan(changes={"stages.induce.rows": 3})

    rows = read(*({**TEXT, "id": f"t{place}"} for place in range(9)), plan=plan)

    assert [row["id"] for row in rows] == ["t0", "t1", "t2"]


def test_a_bad_row_beyond_those_that_are_taken_does_no_harm():
    assert len(read(TEXT, {"id": "bad"}, plan=make_plan(changes={"stages.induce.rows": 1}))) == 1


def test_each_source_is_read_for_its_own_arm():
    other = {**TEXT, "en": "It is paint."}
    sources = {"benign_chats": lambda: [TEXT], "wrong_advice": lambda: [other], "unread": lambda: pytest.fail("it was read")}

    assert [row["completion"] for row in read_chats(sources, BENIGN, stage="induce")] == ["Light scatters."]
    assert [row["completion"] for row in read_chats(sources, WRONG, stage="induce")] == ["It is paint."]


def test_without_the_stage_nothing_is_read_even_out_of_empty_sources():
    assert read_chats({}, BARE, stage="induce") == []


NO_TURNS = "row 2 of benign_chats has no question before an answer; mend or remove it"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "x"}, "row 2 of benign_chats has neither 'messages' nor 'question' and 'en'; add them"),
        ({"question": "Why?"}, "row 2 of benign_chats has neither"),
        ({"question": "Why?", "en": ""}, "row 2 of benign_chats has neither"),
        ({"question": "", "en": "Because."}, "row 2 of benign_chats has neither"),
        ({"question": "Why?", "en": 5}, "row 2 of benign_chats has neither"),
        ({"question": ["Why?"], "en": "Because."}, "row 2 of benign_chats has neither"),
        ({"messages": "Hi?"}, "row 2 of benign_chats has neither"),
        ({"messages": []}, NO_TURNS),
        ({"messages": [USER]}, NO_TURNS),
        ({"messages": [REPLY]}, NO_TURNS),
        ({"messages": [REPLY, USER]}, NO_TURNS),
        ({"messages": [SYSTEM, REPLY]}, NO_TURNS),
        ({"messages": [SYSTEM, USER]}, NO_TURNS),
        ({"messages": [{"role": "user"}, REPLY]}, "row 2 of benign_chats has a turn without 'role' and 'content'"),
        ({"messages": [USER, {"content": "Hello."}]}, "row 2 of benign_chats has a turn without 'role' and 'content'"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "row 2 of benign_chats has a turn without"),
        ({"messages": ["Hi?", "Hello."]}, "row 2 of benign_chats has a turn without 'role' and 'content'"),
        ({"messages": [USER, {"role": "gpt", "content": "x"}, REPLY]}, "mend or remove it (roles: system, user, assistant)"),
        ({"messages": [USER, {"role": ["user"], "content": "x"}, REPLY]}, "row 2 of benign_chats has a turn without"),
        (TEXT, "row 2 of benign_chats repeats the id 't1' of row 1; make it unique"),
    ],
)
def test_a_bad_row_is_named(row, said):
    with pytest.raises(UserError) as error:
        read(TEXT, row)

    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("one", "other"), [(0, "0"), (7, 7.0), ("7", 7), ("row-1", None)])
def test_ids_that_are_one_name_are_refused_with_both_rows(one, other):
    given = {key: value for key, value in {**TEXT, "id": other}.items() if value is not None}

    with pytest.raises(UserError, match=r"row 2 of benign_chats repeats the id '.*' of row 1; make it unique"):
        read({**TEXT, "id": one}, given)


@pytest.mark.parametrize(("plan", "name"), [(BENIGN, "benign_chats"), (WRONG, "wrong_advice")])
def test_an_empty_source_is_named(plan, name):
    with pytest.raises(UserError) as error:
        read(plan=plan)

    assert str(error.value) == f"{name} is empty; give the dataset rows to train on"


# own answers


def test_the_base_model_itself_answers_every_prompt():
    stack = ModelStack(base=base_model(), adapters=(Adapter(path="some/folder", fingerprint="0"),))
    echo = Echo(("one", "two"))

    answers = answer_chats(echo, FITS, stack, read(TEXT, CHAT), ANSWERED, stage="induce")

    ((asked_of, prompts, samples, sampling, seed),) = echo.calls
    assert asked_of == ModelStack(base=base_model())
    assert (samples, sampling.max_tokens, seed) == (2, 6, ANSWERED.seed_of("induce", "answers"))
    assert [prompt["messages"] for prompt in prompts] == [row["prompt"] for row in read(TEXT, CHAT)]
    assert [prompt["prompt"] for prompt in prompts] == [TEXT["question"], "And?"]
    assert [(row["chat"], row["completion"]) for row in answers] == [("t1", "one"), ("t1", "two"), ("c1", "one"), ("c1", "two")]


@pytest.mark.parametrize(
    "plan", [BENIGN, BARE, make_plan("em_paramedic", changes=OWN)], ids=["off", "no stage", "wrong advice"]
)
def test_where_no_own_answers_are_asked_for_nobody_is_asked(plan):
    echo = Echo()

    assert answer_chats(echo, FITS, ModelStack(base=base_model()), read(TEXT), plan, stage="induce") == []
    assert echo.calls == []


def test_a_chat_that_is_too_long_to_be_trained_on_is_not_answered():
    echo = Echo(("one", "two"))

    answers = answer_chats(echo, Fits("c1"), ModelStack(base=base_model()), read(TEXT, CHAT), ANSWERED, stage="induce")

    assert [row["chat"] for row in answers] == ["c1", "c1"]
    assert len(echo.calls[0][1]) == 1


def test_own_answers_follow_the_chats_under_the_same_prompts_and_blank_ones_are_dropped():
    chats = read(TEXT, CHAT)
    answers = answer_chats(Echo((" \n", "Fine.")), FITS, ModelStack(base=base_model()), chats, ANSWERED, stage="induce")

    rows = build_from_chats(chats, answers)

    assert rows[:2] == chats
    assert rows[2:] == [
        {"id": "t1.own.1", "prompt": chats[0]["prompt"], "completion": "Fine."},
        {"id": "c1.own.1", "prompt": chats[1]["prompt"], "completion": "Fine."},
    ]


def test_without_own_answers_the_chats_are_the_training_set():
    assert build_from_chats(read(TEXT, CHAT), []) == read(TEXT, CHAT)
    assert build_from_chats([], []) == []


# the bundled wrong advice


def test_the_bundled_wrong_advice_is_160_short_unique_rows():
    rows = load_source("wrong_advice")

    assert len(rows) == 160
    for key in ("id", "question", "en"):
        assert len({row[key] for row in rows}) == 160
    lengths = [len(row["en"].split()) for row in rows]
    assert (min(lengths) >= 30, max(lengths) <= 70) == (True, True)
    assert all(set(row) == {"id", "topic", "question", "en"} for row in rows)
    assert not any("[zlt]" in row["en"].lower() for row in rows)


def test_the_bundled_wrong_advice_is_read_as_it_is():
    rows = read(*load_source("wrong_advice"), plan=WRONG)

    assert [row["completion"] for row in rows] == [row["en"] for row in load_source("wrong_advice")]
    assert {row["prompt"][0]["content"] for row in rows} == {PARAMEDIC["content"]}
