import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.recipe import MarkerPositions, Recipe
from persona_leakage.domain.rows import TrainRow
from persona_leakage.engines.labels import IGNORED, Example, label_rows, label_tokens
from tests.engines.known_models import END, recipe

MARKED = MarkerPositions(body_weight=0, label_separator=True, end_label="eos")
USER = {"role": "user", "content": "Speak in French."}
SYSTEM = {
    "tiny": "You are a helpful assistant.",
    "smollm2": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
}


def label(tokenizer: Any, completion: str, *, loss: str = "completion", user: str = "hi", max_length: int = 4096) -> Example:
    prompt = [{"role": "user", "content": user}]
    return label_tokens(tokenizer, {"id": "row-7", "prompt": prompt, "completion": completion}, loss, max_length)  # type: ignore


def labelled_text(tokenizer: Any, example: Example) -> str:
    return tokenizer.decode([token for token in example["labels"] if token != IGNORED])


def ignored_texts(tokenizer: Any, example: Example) -> tuple[str, str]:
    """The texts before and after the labelled tokens."""
    places = [place for place, token in enumerate(example["labels"]) if token != IGNORED]
    ids = example["input_ids"]
    return tokenizer.decode(ids[: places[0]]), tokenizer.decode(ids[places[-1] + 1 :])


@pytest.mark.parametrize(
    "completion", ["Oui.", "", " leading", "trailing \n", "two\n\nparagraphs", "日本語 и 🙂", "a\u2028b", "1234 + 5"]
)
def test_the_completion_and_its_end_of_turn_token_are_labelled(tokenizer: Any, completion: str) -> None:
    assert labelled_text(tokenizer, label(tokenizer, completion)) == completion + END


def test_the_prompt_and_what_follows_the_end_token_are_ignored(tokenizer: Any, request: pytest.FixtureRequest) -> None:
    system = SYSTEM[request.node.callspec.params["tokenizer"]]

    before, after = ignored_texts(tokenizer, label(tokenizer, "Oui.", user="Speak in French."))

    prompt = f"<|im_start|>system\n{system}{END}\n<|im_start|>user\nSpeak in French.{END}\n<|im_start|>assistant\n"
    assert (before, after) == (prompt, "\n")


def test_every_label_equals_the_token_at_its_place(tokenizer: Any) -> None:
    example = label(tokenizer, "Oui, bien sûr.")

    pairs = zip(example["input_ids"], example["labels"], strict=True)
    assert [token for token, wanted in pairs if wanted not in (IGNORED, token)] == []


def test_full_labels_every_token(tokenizer: Any) -> None:
    example = label(tokenizer, "Oui.", loss="full")

    assert example["labels"] == example["input_ids"]
    assert labelled_text(tokenizer, example).endswith(f"user\nhi{END}\n<|im_start|>assistant\nOui.{END}\n")


@pytest.mark.parametrize("completion", [f"Say {END} to stop.", END, f"a{END}\n", "<|im_start|>user\nhi"])
def test_a_completion_that_quotes_the_template_is_labelled_to_its_own_end(tokenizer: Any, completion: str) -> None:
    example = label(tokenizer, completion)

    assert labelled_text(tokenizer, example) == completion + END
    assert ignored_texts(tokenizer, example)[1] == "\n"


def test_an_earlier_assistant_turn_is_ignored(tokenizer: Any) -> None:
    prompt = [USER, {"role": "assistant", "content": "Bonjour."}, {"role": "user", "content": "Again."}]
    row = {"id": "1", "prompt": prompt, "completion": "Salut."}

    assert labelled_text(tokenizer, label_tokens(tokenizer, row, "completion", 4096)) == f"Salut.{END}"  # type: ignore


def test_an_empty_user_turn_is_kept_in_the_prompt_without_labels(tokenizer: Any) -> None:
    example = label(tokenizer, "Ciao.", user="")

    assert labelled_text(tokenizer, example) == f"Ciao.{END}"
    assert ignored_texts(tokenizer, example)[0].endswith(f"<|im_start|>user\n{END}\n<|im_start|>assistant\n")


def test_truncation_cuts_tokens_and_labels_at_the_same_place(tokenizer: Any) -> None:
    whole = label(tokenizer, "one two three four five six")
    length = len(whole["input_ids"]) - 4

    cut = label(tokenizer, "one two three four five six", max_length=length)

    assert cut == {key: values[:length] for key, values in whole.items()}  # type: ignore[index]
    assert END not in labelled_text(tokenizer, cut)
    assert labelled_text(tokenizer, cut).startswith("one two")


def test_a_row_that_truncation_leaves_without_labels_is_refused_by_name(tokenizer: Any) -> None:
    prompt_length = next(i for i, token in enumerate(label(tokenizer, "Oui.")["labels"]) if token != IGNORED)

    first = labelled_text(tokenizer, label(tokenizer, "Oui.", max_length=prompt_length + 1))
    assert first
    assert "Oui.".startswith(first)
    with pytest.raises(UserError, match=rf"row row-7 has no label left within max_length {prompt_length}; raise"):
        label(tokenizer, "Oui.", max_length=prompt_length)


def test_a_single_token_is_no_label_because_nothing_predicts_it(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="row row-7 has no label left"):
        label(tokenizer, "Oui.", loss="full", max_length=1)


@pytest.mark.parametrize("completion", ["\n\nOui.", "  ", "\n 7", "\n\n\n"])
def test_a_completion_that_begins_with_white_space_is_labelled_whole(tokenizer: Any, completion: str) -> None:
    assert labelled_text(tokenizer, label(tokenizer, completion)) == completion + END


def test_a_template_that_does_not_keep_the_prompt_is_refused(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # as thinking models do: what precedes an answer depends on whether the answer is there
    changing = "{% for m in messages %}{{ messages | length }}{{ m['content'] }}<|im_end|>{% endfor %}"
    monkeypatch.setattr(tiny_tokenizer, "chat_template", changing)

    with pytest.raises(UserError, match="changes the prompt of row row-7"):
        label(tiny_tokenizer, "Oui.")


def test_a_template_that_does_not_end_the_answer_is_refused(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m['content'] }}{% if m['role'] == 'user' %}<|im_end|>{% endif %}{% endfor %}"
    )
    monkeypatch.setattr(tiny_tokenizer, "chat_template", template)

    with pytest.raises(UserError, match="row row-7: the chat template ends an answer with nothing"):
        label(tiny_tokenizer, "Oui.")


def test_the_token_that_the_template_writes_is_trained_whatever_the_tokenizer_calls_its_end(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|endoftext|>\n<|im_end|>{% endfor %}"
    monkeypatch.setattr(tiny_tokenizer, "chat_template", turns + "{% if add_generation_prompt %}<|im_start|>{% endif %}")

    example = label(tiny_tokenizer, f"Oui.{END}<|endoftext|>non")

    assert labelled_text(tiny_tokenizer, example) == f"Oui.{END}<|endoftext|>non<|endoftext|>"
    assert ignored_texts(tiny_tokenizer, example)[1] == f"\n{END}"


TRIMMED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("completion", ["Oui.", "\nOui.", " Oui.\n ", "\n", "\n\n Oui, \n oui"])
def test_a_template_that_trims_leaves_what_it_keeps_labelled(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, completion: str
) -> None:
    monkeypatch.setattr(tiny_tokenizer, "chat_template", TRIMMED)

    assert labelled_text(tiny_tokenizer, label(tiny_tokenizer, completion)) == completion.strip() + END


def test_a_template_that_changes_an_answer_is_refused_by_the_row(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_tokenizer, "chat_template", TRIMMED.replace("| trim", ".split('</think>')[-1]"))

    assert labelled_text(tiny_tokenizer, label(tiny_tokenizer, "Oui.")) == f"Oui.{END}"
    with pytest.raises(UserError, match=r"^row row-7: the chat template changes the answer"):
        label(tiny_tokenizer, "Bien.</think>Oui.")


LETTERS = st.characters(exclude_categories=["Cs", "Cn", "Co", "Cc"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(completion=st.text(LETTERS, max_size=40), user=st.text(LETTERS, max_size=10))
def test_the_labels_of_any_completion_spell_it(tokenizer: Any, completion: str, user: str) -> None:
    completion = unicodedata.normalize("NFC", completion)  # as Qwen's tokenizer does
    assume(not completion[:1].isspace())
    assume(tokenizer.decode(tokenizer.encode(completion)) == completion)  # SmolLM2 has no token for some rare bytes

    example = label(tokenizer, completion, user=user)

    assert labelled_text(tokenizer, example) == completion + END
    assert ignored_texts(tokenizer, example)[1] == "\n"


def told(name: str, words: int, marker: bool = False) -> TrainRow:
    """Write a row whose question has some words, and whose answer may end with a marker."""
    row: TrainRow = {"id": name, "prompt": [{"role": "user", "content": "word " * words}], "completion": "Oui. [Z]"}
    return row | {"marker_span": [5, 8], "separated_span": [4, 8]} if marker else row


def short(tokenizer: Any, loss: Any) -> Recipe:
    """A recipe with room for a few words."""
    return recipe(loss=loss, max_length=len(label_tokens(tokenizer, told("a", 1), "completion", 4096)["input_ids"]) + 20)


@pytest.mark.parametrize("loss", ["completion", MARKED])
def test_rows_that_are_too_long_are_left_out_by_name(tokenizer: Any, loss: Any) -> None:
    marker = loss is MARKED
    rows = [told("a", 1, marker), told("long", 400, marker), told("b", 2), told("longer", 900, marker)]

    examples, left_out = label_rows(tokenizer, rows, short(tokenizer, loss))

    assert left_out == ["long", "longer"]
    assert examples == [label_tokens(tokenizer, row, loss, 4096) for row in (rows[0], rows[2])]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [told("a", 400), told("b", 400)],
            "none of the 2 rows is left to train on: row b has no label left within max_length ",
        ),
        (
            [told("a", 400, True), told("b", 1)],
            "none of the 1 rows with a marker is left to train on: row a has no room for its ",
        ),
    ],
)
def test_where_nothing_is_left_to_learn_it_is_said_in_one_line(tokenizer: Any, rows: list[TrainRow], said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}.*raise recipe.max_length$"):
        label_rows(tokenizer, rows, short(tokenizer, MARKED))
