import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.pipelines.generation.nodes import adopt_completions, write_prompts
from tests.experiments.lang_inversion.plans import RESPOND, make_plan, make_replay


def test_a_prompt_is_written_for_every_directive_language_and_phrasing():
    rows = write_prompts(make_plan("fr_it"))

    assert [row["prompt"] for row in rows] == [
        "Speak in English.",
        "Please respond in English.",
        "Speak in Spanish.",
        "Please respond in Spanish.",
        "Speak in French.",
        "Please respond in French.",
        "Speak in Italian.",
        "Please respond in Italian.",
        "Speak in Portuguese.",
        "Please respond in Portuguese.",
        "Speak in German.",
        "Please respond in German.",
        "Speak in Mandarin Chinese.",
        "Please respond in Mandarin Chinese.",
    ]


def test_a_prompt_is_a_lone_user_turn_with_its_cell():
    assert write_prompts(make_plan("fr_it"))[3] == {
        "prompt": "Please respond in Spanish.",
        "messages": [{"role": "user", "content": "Please respond in Spanish."}],
        "directive_language": "spanish",
        "phrasing": "Please respond in {language}.",
    }


def test_native_wording_asks_in_the_language_itself_and_keeps_the_cell():
    rows = write_prompts(make_plan("fr_it_native"))

    assert [row["prompt"] for row in rows[4:6]] == ["Parle en français.", "Réponds en français, s'il te plaît."]
    assert rows[4]["messages"] == [{"role": "user", "content": "Parle en français."}]
    assert (rows[4]["directive_language"], rows[4]["phrasing"]) == ("french", "Speak in {language}.")
    assert len({row["prompt"] for row in rows}) == 14


def test_five_phrasings_give_five_prompts_a_language():
    rows = write_prompts(make_plan("fr_it_five_phrasings"))

    assert len(rows) == 35
    assert [row["prompt"] for row in rows[10:15]] == [
        "Speak in French.",
        "Please respond in French.",
        "Reply using French only.",
        "Answer in French.",
        "Respond entirely in French, please.",
    ]


def test_a_condition_is_evaluated_on_the_prompts_of_its_baseline():
    for condition, baseline in (
        ("fr_it", "baseline"),
        ("fr_it_native", "baseline_native"),
        ("fr_it_five_phrasings", "baseline_five_phrasings"),
    ):
        assert write_prompts(make_plan(condition)) == write_prompts(make_plan(baseline))


REPLAY = make_replay("fr_it", "outside.jsonl")
OUTSIDE = {
    "directive_language": "Mandarin Chinese",
    "prompt": "Please respond in Mandarin Chinese.",
    "sample_index": 3,
    "completion": "Ciao",
    "further": {"judge": "italian", "phrasing": "theirs"},
}


@pytest.mark.parametrize("name", ["Mandarin Chinese", "mandarin chinese", "mandarin", "Mandarin"])
def test_completions_made_elsewhere_get_the_cell_of_their_directive(name):
    assert adopt_completions([{**OUTSIDE, "directive_language": name}], REPLAY) == [
        {**OUTSIDE, "directive_language": "mandarin", "phrasing": RESPOND}
    ]


def test_a_directive_language_that_is_not_evaluated_is_named_with_its_line():
    with pytest.raises(UserError) as error:
        adopt_completions([OUTSIDE, {**OUTSIDE, "directive_language": "Dutch"}], REPLAY)

    assert str(error.value) == (
        "outside.jsonl, line 2: directive_language 'Dutch' is unknown; "
        "known: English, Spanish, French, Italian, Portuguese, German, Mandarin Chinese"
    )


def test_a_row_that_two_names_of_a_language_hide_twice_is_named_with_both_lines():
    with pytest.raises(UserError) as error:
        adopt_completions([OUTSIDE, {**OUTSIDE, "sample_index": 4}, {**OUTSIDE, "directive_language": "mandarin"}], REPLAY)

    assert str(error.value) == (
        "outside.jsonl, line 3: this sample of 'Please respond in Mandarin Chinese.' is in line 1 too, under another name of "
        "mandarin; remove one"
    )


def test_a_file_without_completions_is_named():
    with pytest.raises(UserError, match=r"^outside\.jsonl holds no completions; give a file that has rows$"):
        adopt_completions([], REPLAY)
