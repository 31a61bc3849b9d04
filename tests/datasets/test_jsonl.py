import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kedro.io import DatasetError

from persona_leakage.datasets import JSONLinesDataset
from tests.datasets.kinds import catalog, user_message

PARALLEL_TEXT = "persona_leakage.domain.rows.ParallelText"
SOUND = '{"id": "a", "topic": "t", "question": "q", "en": "text", "fr": "texte"}'


def complaint(path: Path, content: str | bytes, **options: Any) -> str | None:
    """Load a file of this content and return what the user is told."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError) as caught:
        catalog("JSONLinesDataset", path, **options).load("it")
    return user_message(caught.value)


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        ("{id: 1}", "not JSON (Expecting property name enclosed in double quotes at column 2)"),
        ('{"id": "b"', "not JSON (Expecting ',' delimiter at column 11)"),
        ("", "not JSON (Expecting value at column 1)"),
        ("[1, 2]", "not a JSON object but list"),
        ('"text"', "not a JSON object but str"),
        ("null", "not a JSON object but NoneType"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, damaged: str, said: str) -> None:
    path = tmp_path / "texts.jsonl"

    assert complaint(path, f"{SOUND}\n{damaged}\n{SOUND}\n") == f"{path}, line 2: {said}; mend or remove the line"


@pytest.mark.parametrize("content", [f"[{SOUND}]", f"[\n{SOUND},\n{SOUND}\n]\n"])
def test_one_json_list_is_no_jsonl(tmp_path: Path, content: str) -> None:
    path = tmp_path / "texts.jsonl"
    assert complaint(path, content) == f"{path} is a JSON list; write one object a line instead, such as by jq -c '.[]'"


def test_a_line_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"

    said = complaint(path, f"{SOUND}\n".encode() + '{"id": "é"}\n'.encode("latin-1"))

    assert str(said).startswith(f"{path}, line 2: ")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"id": "b", "topic": "t", "en": "text"}', "row.question: Field required"),
        ('{"id": 7, "topic": "t", "question": "q", "en": "text"}', "row.id: Input should be a valid string (got 7)"),
        ('{"id": "b", "topic": "t", "question": "q", "en": "text", "fr": 1}', "row.fr: Input should be a valid string (got 1)"),
        ('{"id": "b", "topic": null, "question": "q", "en": ["x"]}', "row.topic: Input should be a valid string (got None)"),
    ],
)
def test_a_row_that_does_not_fit_its_type_is_named_with_the_key(tmp_path: Path, row: str, said: str) -> None:
    path = tmp_path / "texts.jsonl"

    assert str(complaint(path, f"{SOUND}\n{row}\n", row=PARALLEL_TEXT)).startswith(f"{path}, line 2: {said}")


def test_every_problem_of_a_row_is_said_on_one_line(tmp_path: Path) -> None:
    said = str(complaint(tmp_path / "texts.jsonl", '{"id": 1, "topic": 2, "question": "q"}\n', row=PARALLEL_TEXT))

    assert [part.split(":")[0].split(" ")[-1] for part in said.split("; ")] == ["1", "row.topic", "row.en"]
    assert "line 1: row.id: " in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("unique", "said"),
    [
        (["id"], "line 2: id 'a' appears a second time; the first is line 1; "),
        (["id", "n"], "line 4: id 'a', n '2' appears a second time; the first is line 2; "),
    ],
)
def test_a_row_that_repeats_the_unique_keys_is_named(tmp_path: Path, unique: list[str], said: str) -> None:
    path = tmp_path / "texts.jsonl"
    rows = [("a", 1), ("a", 2), ("b", 1), ("a", 2)]

    told = complaint(path, "".join(f'{{"id": "{name}", "n": {number}}}\n' for name, number in rows), unique=unique)

    assert str(told).startswith(f"{path}, {said}")


def test_a_row_without_a_unique_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"

    said = complaint(path, '{"id": "a"}\n{"name": "b"}\n', unique=["id"])

    assert str(said).startswith(f"{path}, line 2: ")


def test_sound_rows_pass_the_checks_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(SOUND)  # without a newline at the end

    rows = catalog("JSONLinesDataset", path, row=PARALLEL_TEXT, unique=["id"]).load("it")

    assert rows == [{"id": "a", "topic": "t", "question": "q", "en": "text", "fr": "texte"}]


OUTSIDE = "persona_leakage.domain.rows.OutsideMarkerCompletion"
MADE = {"cell": "c", "persona": "p", "is_source": True, "question": "q", "sample_index": 3, "completion": "text"}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({"is_source": "false", "sample_index": "3"}, {"is_source": False}),
        ({"is_source": 0, "sample_index": 3.0}, {"is_source": False}),
        ({"is_source": "yes"}, {}),
    ],
)
def test_what_was_checked_is_what_is_used(tmp_path: Path, given: dict[str, Any], used: dict[str, Any]) -> None:
    (row,) = catalog("JSONLinesDataset", write(tmp_path / "rows.jsonl", MADE | given), row=OUTSIDE).load("it")

    assert row == {**MADE, **used, "further": {}}
    assert (type(row["is_source"]), type(row["sample_index"])) == (bool, int)


def test_a_row_of_typed_keys_is_used_as_it_was_checked_too(tmp_path: Path) -> None:
    row = {"prompt": "p", "sample_index": "7", "completion": "c", "tokens": "12", "finish": "stop", "persona": "nurse"}
    path = write(tmp_path / "rows.jsonl", row)

    loaded = catalog("JSONLinesDataset", path, row="persona_leakage.domain.rows.CompletionRow").load("it")

    assert loaded == [{**row, "sample_index": 7, "tokens": 12}]


def test_unique_keys_are_compared_as_they_are_used(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [MADE, MADE | {"persona": "other"}, MADE | {"sample_index": "3"}]

    told = complaint(path, "".join(json.dumps(row) + "\n" for row in rows), row=OUTSIDE, unique=["persona", "sample_index"])

    assert str(told).startswith(f"{path}, line 3: persona 'p', sample_index '3' appears a second time; the first is line 1; ")


def test_further_keys_of_outside_rows_stand_apart_untouched(tmp_path: Path) -> None:
    further = {
        "fired": "no",
        "plan": None,
        "further": [1],
        "model_dump": {"a": 0.5},
        "finish": "length",
        "place_tokens": "start",
    }
    path = write(tmp_path / "rows.jsonl", {**further, **MADE})

    assert catalog("JSONLinesDataset", path, row=OUTSIDE).load("it") == [{**MADE, "further": further}]


@pytest.mark.parametrize(("key", "value"), [("persona", ""), ("cell", ""), ("persona", 1), ("is_source", "perhaps")])
def test_what_is_no_name_and_no_truth_value_is_refused(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "rows.jsonl"

    assert str(complaint(path, json.dumps(MADE | {key: value}), row=OUTSIDE)).startswith(f"{path}, line 1: row.{key}: ")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \n", "\n\t\r\n"])
def test_blank_lines_at_the_end_are_no_rows(tmp_path: Path, end: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f'{{"a": 1}}\r\n{{"a": 2}}{end}'.encode())

    assert catalog("JSONLinesDataset", path).load("it") == [{"a": 1}, {"a": 2}]


def test_a_file_of_blank_lines_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n \n")

    assert catalog("JSONLinesDataset", tmp_path / "rows.jsonl").load("it") == []


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["bare", "marked"])
def test_a_file_may_begin_with_a_mark_and_be_compressed(tmp_path: Path, mark: str, packed: bool) -> None:
    content = f'{mark}{{"a": "\u2028é"}}\r\n{{"a": 2}}\n\n'.encode()
    path = tmp_path / "rows.data"
    path.write_bytes(gzip.compress(content) if packed else content)

    assert catalog("JSONLinesDataset", path).load("it") == [{"a": "\u2028é"}, {"a": 2}]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (b'{"a": "\xff"}', "line 2: not UTF-8; save the file as UTF-8"),
        (b'{"a": NaN}', "line 2: not JSON (NaN is no finite number); mend or remove the line"),
        (b'{"b": [{"a": -Infinity}]}', "line 2: not JSON (-Infinity is no finite number); mend or remove the line"),
        (b'{"a": 1e999}', "line 2: not JSON (1e999 is no finite number); mend or remove the line"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "line 2: not JSON (the key 'c' appears twice in one object); mend "),
        (b'{"a": "x\x00"}', "line 2: not JSON (Invalid control character at at column "),
        (b"[" * 100_000, "line 2: not JSON that can be read (nested too deeply); mend or remove the line"),
        (b'{"a": ' + b"9" * 5000 + b"}", "line 2: not JSON (Exceeds the limit"),
        (b"", "line 2: not JSON (Expecting value at column 1); mend or remove the line"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_what_is_no_strict_json_is_named_by_its_line(tmp_path: Path, second: bytes, said: str, packed: bool) -> None:
    path = tmp_path / "rows.jsonl"
    content = b'\xef\xbb\xbf{"a": "x\\ny"}\r\n' + second + b'\n{"a": 3}\n'

    told = str(complaint(path, gzip.compress(content) if packed else content))

    assert told.startswith(f"{path}, {said}")
    assert "\n" not in told


def test_a_damaged_or_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    (tmp_path / "folder").mkdir()

    for content in (gzip.compress(b'{"a": 1}' * 99)[:-9], b"\x1f\x8b nothing of the kind"):
        assert str(complaint(path, content)).startswith(f"cannot read {path}: ")
    with pytest.raises(DatasetError) as caught:
        catalog("JSONLinesDataset", tmp_path / "folder").load("it")
    assert str(user_message(caught.value)).startswith(f"cannot read {tmp_path}/folder: ")


def test_half_a_character_is_replaced_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        r'{"a": "whole \ud83d\ude42", "b": 1}' + "\n" + r'{"a": "\uD83D", "\udE42": ["x\\ud83d", "\ud83d\ud83d\ude42"]}' + "\n"
    )

    with caplog.at_level(logging.WARNING):
        rows = catalog("JSONLinesDataset", path).load("it")

    assert rows == [{"a": "whole 🙂", "b": 1}, {"a": "\ufffd", "\ufffd": ["x\\ud83d", "\ufffd🙂"]}]
    assert f"{path}: 3 characters of which half is missing (lone surrogates; first in line 2)" in caplog.text


def test_halves_do_not_make_two_rows_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"

    assert "the key '\ufffd' appears twice" in str(complaint(path, r'{"\ud83d": 1, "\ud83e": 2}'))
    told = complaint(path, r'{"id": "\ud83d"}' + "\n" + r'{"id": "\ud83e"}', unique=["id"])
    assert f"{path}, line 2: id '\ufffd' appears a second time; the first is line 1" in str(told)


def test_half_a_character_that_was_made_here_is_replaced_when_it_is_saved(tmp_path: Path) -> None:
    entries = catalog("JSONLinesDataset", tmp_path / "rows.jsonl")
    entries.save("it", [{"a": "x\ud83d", "b": "🙂"}])

    assert entries.load("it") == [{"a": "x\ufffd", "b": "🙂"}]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_that_json_lacks_is_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(DatasetError):
        catalog("JSONLinesDataset", tmp_path / "rows.jsonl").save("it", [{"a": 1}, {"a": [value]}])

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("one", "other"), [(1, "1"), (1, 1.0), ("2", 2.0), (True, "true"), (None, "null"), ([1, 2], [1, 2]), ({"a": 1}, {"a": 1})]
)
def test_one_name_is_one_whatever_its_type(tmp_path: Path, one: object, other: object) -> None:
    path = tmp_path / "rows.jsonl"

    told = complaint(path, f'{{"id": {json.dumps(one)}}}\n{{"id": 7}}\n{{"id": {json.dumps(other)}}}\n', unique=["id"])

    assert str(told).startswith(f"{path}, line 3: id ")
    assert "appears a second time; the first is line 1; " in str(told)


def test_names_that_only_look_alike_are_different(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"id": name} for name in ("1", "01", "1.0", True, 0, "None", "nan", "", None)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert catalog("JSONLinesDataset", path, unique=["id"]).load("it") == rows


def test_a_prompt_row_keeps_its_cell(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    row = {"prompt": "p", "messages": [{"role": "user", "content": "p"}], "persona": "pirate", "phrasing": "0"}
    entries = catalog("JSONLinesDataset", path, row="persona_leakage.domain.rows.PromptRow")
    entries.save("it", [row])

    assert entries.load("it") == [row]


def test_no_rows_are_a_file_too(tmp_path: Path) -> None:
    entries = catalog("JSONLinesDataset", tmp_path / "rows.jsonl")
    entries.save("it", [])

    assert entries.exists("it")
    assert entries.load("it") == []


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ROWS = st.lists(
    st.dictionaries(TEXT, TEXT | st.integers() | st.booleans() | st.none() | st.lists(TEXT), max_size=3), max_size=4
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_any_rows_come_back(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    dataset = JSONLinesDataset(filepath=str(tmp_path / "rows.jsonl"))
    dataset.save(rows)

    assert dataset.load() == rows


def test_the_preview_is_a_table_of_the_first_rows(tmp_path: Path) -> None:
    entries = catalog("JSONLinesDataset", tmp_path / "rows.jsonl")
    entries.save("it", [{"a": 1}, {"b": {"x": ["é"]}, "a": None}, {"a": 3}])

    preview = entries.get("it").preview(nrows=2)

    assert dict(preview) == {"index": [0, 1], "columns": ["a", "b"], "data": [[1, None], [None, '{"x": ["\\u00e9"]}']]}
