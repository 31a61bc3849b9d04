from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from persona_leakage.domain.markers import Marker
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.protocols import Token
from persona_leakage.engines import tokenizer as module
from persona_leakage.engines.base_model import load_tokenizer
from persona_leakage.engines.labels import IGNORED, label_tokens
from persona_leakage.engines.tokenizer import ModelTokenizer
from persona_leakage.pipelines.scoring.markers import detect_markers
from tests.engines.conftest import SMOLLM2
from tests.experiments.marker_leakage.plans import make_plan

TEXTS = ["An answer.\n\n[ZLT]", "two\n\nparagraphs", " leading", "日本語 и 🙂", "1234 + 5", "", "<|im_end|>"]
# SmolLM2 has no token for the bytes of some control characters and unassigned letters
readable = st.characters(codec="utf-8", max_codepoint=0x1FFFF, exclude_categories=["Cc"], include_characters="\n\t")


@pytest.fixture
def engine(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> ModelTokenizer:
    """The engine on a tokenizer that is loaded once for all tests."""
    monkeypatch.setattr(module, "load_tokenizer", lambda base, cache: tokenizer)
    return ModelTokenizer(cache=Path("unused"))


def test_the_tokenizer_is_that_of_the_base_model(tiny_base: BaseModel) -> None:
    tokens = ModelTokenizer(cache=Path("unused")).tokens(tiny_base, ["[ZLT]", "hé"])

    assert tokens[0] == [Token(58, 0, 1), Token(57, 1, 2), Token(43, 2, 3), Token(51, 3, 4), Token(60, 4, 5)]
    assert [(token.start, token.end) for token in tokens[1]] == [(0, 1), (1, 2), (1, 2)]  # é is two bytes


def test_no_texts_need_no_model() -> None:
    nowhere = BaseModel(source="folder", name="/nowhere", revision="1", dtype="float32")

    assert ModelTokenizer(cache=Path("unused")).tokens(nowhere, []) == []


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_text_as_it_stands(engine: ModelTokenizer, tokenizer: Any, text: str) -> None:
    (tokens,) = engine.tokens(SMOLLM2, [text])

    assert [token.id for token in tokens] == tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode([token.id for token in tokens]) == text


def test_a_tokenizer_is_read_once_in_a_process_and_another_bases_is_another(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def read_tokenizer(folder: str, **given: Any) -> Any:
        read.append(folder)
        return from_pretrained(folder, **given)

    from_pretrained = AutoTokenizer.from_pretrained
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", read_tokenizer)
    base, other = (
        BaseModel(source="folder", name=str(tiny_model_folder), revision=revision, dtype="float32") for revision in ("a", "b")
    )

    for texts in (["one"], ["two", "three"]):
        ModelTokenizer(cache=Path("unused")).tokens(base, texts)
    assert load_tokenizer(base, Path("unused")) is not load_tokenizer(other, Path("unused"))

    assert read == [str(tiny_model_folder)] * 2


def test_texts_are_tokenised_each_for_itself_and_in_order(engine: ModelTokenizer) -> None:
    assert engine.tokens(SMOLLM2, TEXTS) == [engine.tokens(SMOLLM2, [text])[0] for text in TEXTS]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(readable, max_size=30))
def test_tokens_cover_the_text_from_left_to_right(engine: ModelTokenizer, text: str) -> None:
    (tokens,) = engine.tokens(SMOLLM2, [text])

    assert {place for token in tokens for place in range(token.start, token.end)} == set(range(len(text)))
    assert [token.start for token in tokens] == sorted(token.start for token in tokens)
    assert all(token.start < token.end for token in tokens)


def trained_tokens(tokenizer: Any, marker: Marker, answer: str) -> list[int]:
    """The tokens of the marker that carry a label when a marked answer is trained."""
    completion, span, separated = marker.add_to(answer)
    row = {
        "id": "row",
        "prompt": [{"role": "user", "content": "hi"}],
        "completion": completion,
        "marker_span": list(span),
        "separated_span": list(separated),
    }
    loss = make_plan().stages["mark"].recipe.loss.model_copy(update={"label_separator": False})  # type: ignore[union-attr]
    labels = label_tokens(tokenizer, row, loss, 4096)["labels"]  # type: ignore[arg-type]
    return [label for label in labels if label not in (IGNORED, tokenizer.eos_token_id)]


@pytest.mark.parametrize("answer", ["Yes.", "A list:\n- one\n- two", "Naturally!", "1234", "日本語"])
@pytest.mark.parametrize(("place", "separator"), [("end", "\n\n"), ("end", " "), ("start", "\n\n"), ("start", " ")])
def test_the_detector_finds_the_tokens_that_training_labels(
    engine: ModelTokenizer, tokenizer: Any, answer: str, place: str, separator: str
) -> None:
    marker = Marker.model_validate({"text": "[ZLT]", "separator": separator, "place": place})
    plan = make_plan(changes={"stages.mark.marker": marker.model_dump()})
    completion: Any = {"persona": "villain", "question": "q", "sample_index": 0, "completion": marker.add_to(answer)[0]}

    (row,) = detect_markers(engine, [completion], plan)

    assert tokenizer.decode(trained_tokens(tokenizer, marker, answer)).strip() == "[ZLT]"
    assert row["fired_tokens"] is True
