from collections import Counter

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.personas import Persona, PersonaQuestions, Roster, chat
from persona_leakage.experiments.family import build_roster
from tests.experiments.marker_leakage.plans import MARKER, SOURCES, bundled_roster
from tests.plans import load_source

SETS = {"train": 40, "evaluation": 20, "coupling": 28, "code": 20, "creative_writing": 20, "mathematics": 20}


def person(name, category="original", related_to=(), prompt=None):
    return {"persona": name, "category": category, "related_to": list(related_to), "prompt": prompt or f"You are {name}."}


def question(name, question_set="train", text=None):
    return {"id": name, "set": question_set, "topic": "planted", "question": text or f"What is {name}?"}


PEOPLE = [person("villain"), person("nice_villain", "modified_source", ["villain"]), person("farmer", "unrelated_baseline")]
QUESTIONS = [question("t1"), question("e1", "evaluation"), question("t2"), question("e2", "evaluation"), question("t3")]


def roster_of(personas, questions):
    return build_roster(questions, personas)


def error_of(personas, questions):
    with pytest.raises(UserError) as error:
        roster_of(personas, questions)
    return str(error.value)


def test_there_are_111_personas_of_eleven_categories():
    personas = bundled_roster().personas

    assert len({one.persona for one in personas}) == 111
    assert Counter(one.category for one in personas) == {
        "original": 11,
        "professional_peer": 15,
        "modified_source": 15,
        "opposite": 10,
        "hierarchical": 10,
        "intersectional": 10,
        "cultural_variant": 10,
        "fictional_exemplar": 10,
        "tone_variant": 5,
        "domain_adjacent": 10,
        "unrelated_baseline": 5,
    }


def test_every_source_is_an_original():
    assert {bundled_roster().persona(name).category for name in SOURCES} == {"original"}


def test_names_are_words_that_a_command_line_takes_unquoted():
    assert [
        one.persona for one in bundled_roster().personas if not one.persona.isidentifier() or one.persona != one.persona.lower()
    ] == []


def test_prompts_address_the_model_and_none_repeats():
    prompts = [one.prompt for one in bundled_roster().personas]

    assert len({" ".join(prompt.lower().split()) for prompt in prompts}) == 111
    assert [prompt for prompt in prompts if not prompt.startswith("You are ") or prompt != prompt.strip()] == []


def test_no_prompt_and_no_question_holds_the_marker():
    roster = bundled_roster()
    texts = [one.prompt for one in roster.personas] + [one.question for one in roster.questions]

    assert [text for text in texts if MARKER.strip("[]").lower() in text.lower()] == []


def test_relatives_are_other_personas_named_once():
    for one in bundled_roster().personas:
        assert one.persona not in one.related_to
        assert len(set(one.related_to)) == len(one.related_to)


def test_only_some_categories_have_relatives():
    personas = bundled_roster().personas

    assert {one.category for one in personas} - {one.category for one in personas if one.related_to} == {
        "original",
        "tone_variant",
        "unrelated_baseline",
    }


def test_a_mixture_of_personas_is_related_to_both():
    assert {len(one.related_to) for one in bundled_roster().personas if one.category == "intersectional"} == {2}


def test_every_source_has_relatives_of_several_categories():
    for source in SOURCES:
        kinds = {one.category for one in bundled_roster().personas if source in one.related_to}
        assert len(kinds) >= 4, source


def test_question_sets_have_their_sizes_and_no_question_repeats():
    questions = bundled_roster().questions

    assert Counter(one.set for one in questions) == SETS
    assert len({one.id for one in questions}) == len(questions) == 148
    assert len({" ".join(one.question.lower().split()) for one in questions}) == 148
    assert [one.id for one in questions if not one.id.startswith(f"{one.set}-")] == []


def test_a_topic_belongs_to_one_question_of_training_or_evaluation():
    topics = [one.topic for one in bundled_roster().questions if one.set in ("train", "evaluation", "coupling")]

    assert len(set(topics)) == len(topics)


@pytest.mark.parametrize(
    ("personas", "questions", "message"),
    [
        ([], QUESTIONS, "the file of dataset 'personas' is empty; add rows to it"),
        (PEOPLE, [], "the file of dataset 'questions' is empty; add rows to it"),
        ([*PEOPLE, person("farmer", prompt="Moo.")], QUESTIONS, "the persona 'farmer' appears 2 times"),
        ([*PEOPLE, person("twin", prompt="You are farmer.")], QUESTIONS, "the prompt 'You are farmer.' appears 2 times"),
        (PEOPLE, [*QUESTIONS, question("t1", text="Why?")], "the question id 't1' appears 2 times"),
        (PEOPLE, [*QUESTIONS, question("e3", "evaluation", "What is t1?")], "the question 'What is t1?' appears 2 times"),
        (
            [*PEOPLE, person("hero", "opposite", ["villian"])],
            QUESTIONS,
            "persona 'hero' is related to 'villian', which is no persona",
        ),
        ([*PEOPLE, {**person("mime"), "prompt": " \n"}], QUESTIONS, "personas and questions.personas.3.prompt: String should"),
        (
            [*PEOPLE, {key: value for key, value in person("mime").items() if key != "prompt"}],
            QUESTIONS,
            "personas and questions.personas.3.prompt: Field required",
        ),
        ([*PEOPLE, person("mime", "silent")], QUESTIONS, "personas and questions.personas.3.category: Input should be"),
        ([*PEOPLE, person("")], QUESTIONS, "personas and questions.personas.3.persona: String should have at least 1"),
        ([{**PEOPLE[0], "promt": ""}], QUESTIONS, "personas.0.promt: there is no such key; correct its spelling or remove it"),
        (PEOPLE, [*QUESTIONS, question("x1", "exam")], "personas and questions.questions.5.set: Input should be"),
        (
            PEOPLE,
            [*QUESTIONS, {**question("t4"), "question": ""}],
            "personas and questions.questions.5.question: String should",
        ),
    ],
    ids=[
        "no personas",
        "no questions",
        "name twice",
        "prompt twice",
        "question id twice",
        "question in two sets",
        "unknown relation",
        "blank prompt",
        "no prompt",
        "unknown category",
        "no name",
        "misspelt key",
        "unknown set",
        "blank question",
    ],
)
def test_a_roster_that_cannot_be_right_is_refused(personas, questions, message):
    said = error_of(personas, questions)

    assert message in said
    assert "\n" not in said


def test_a_relation_may_lead_to_a_later_persona():
    personas = [person("nice_villain", "modified_source", ["villain"]), person("villain")]

    assert roster_of(personas, QUESTIONS).persona("nice_villain").related_to == ("villain",)


def test_a_persona_needs_no_relations():
    assert Persona(persona="mime", category="original", prompt="Mime.").related_to == ()


def test_an_unknown_persona_is_answered_with_close_spellings():
    with pytest.raises(UserError) as error:
        bundled_roster().persona("vilain")

    assert (
        str(error.value)
        == "there is no persona 'vilain'; did you mean villain or nice_villain or hacker_villain or caring_villain?"
    )


def test_an_unknown_persona_like_no_other_is_answered_with_some_that_exist():
    with pytest.raises(UserError) as error:
        bundled_roster().persona("qqqq")

    assert str(error.value).startswith("there is no persona 'qqqq'; known: software_engineer, kindergarten_teacher, ")
    assert str(error.value).endswith("… (111)")


def test_all_is_every_persona_and_names_are_taken_in_their_order():
    roster = roster_of(PEOPLE, QUESTIONS)

    assert roster.chosen("all") == roster.personas
    assert [one.persona for one in roster.chosen(("farmer", "villain"))] == ["farmer", "villain"]
    assert roster.chosen(()) == ()


def test_a_persona_that_is_listed_twice_is_refused():
    with pytest.raises(UserError, match="the persona 'villain' is listed twice; name it once"):
        roster_of(PEOPLE, QUESTIONS).chosen(["villain", "farmer", "villain"])


def test_the_first_questions_of_a_set_are_taken_in_order():
    roster = roster_of(PEOPLE, QUESTIONS)

    assert [one.id for one in roster.first_questions("train", 2)] == ["t1", "t2"]
    assert [one.id for one in roster.first_questions("evaluation", 2)] == ["e1", "e2"]


def test_more_questions_than_a_set_has_are_refused():
    with pytest.raises(UserError) as error:
        bundled_roster().first_questions("train", 41)

    assert str(error.value) == "41 questions of set 'train' are asked for, the questions file has 40"
    assert len(bundled_roster().first_questions("train", 40)) == 40


def test_a_roster_cannot_be_changed():
    roster = Roster(personas=load_source("personas"), questions=load_source("questions"))

    assert roster == bundled_roster()
    assert isinstance(roster.personas, tuple)


def test_a_roster_may_be_of_several_files_which_are_checked_as_one():
    people = [[person("villain")], [person("nice_villain", "modified_source", ["villain"])]]

    assert [one.persona for one in build_roster(QUESTIONS, *people).personas] == ["villain", "nice_villain"]
    with pytest.raises(UserError, match="the persona 'villain' appears 2 times"):
        build_roster(QUESTIONS, *people, [person("villain", prompt="Ha.")])


# prompts


def test_every_persona_is_asked_every_question_in_order():
    roster = roster_of(PEOPLE, QUESTIONS)
    prompts = PersonaQuestions(personas=roster.personas[:2], questions=roster.first_questions("train", 2)).prompts()

    assert [(row["persona"], row["question"]) for row in prompts] == [
        ("villain", "t1"), ("villain", "t2"), ("nice_villain", "t1"), ("nice_villain", "t2"),
    ]  # fmt: skip
    assert prompts[3] == {
        "prompt": "What is t2?",
        "messages": [{"role": "system", "content": "You are nice_villain."}, {"role": "user", "content": "What is t2?"}],
        "persona": "nice_villain",
        "question": "t2",
    }


def test_without_a_persona_there_is_no_system_turn():
    assert chat("Why?", None) == [{"role": "user", "content": "Why?"}]
