"""The bank is large enough, and none of it is asked anywhere else."""

import json
import re
from itertools import combinations

from tests.project import PROJECT


def questions_of(file: str) -> list[str]:
    with (PROJECT / "data/01_raw" / file).open(encoding="utf-8") as lines:
        return [json.loads(line)["question"] for line in lines]


BANK = questions_of("question_bank.jsonl")
ASKED = [*questions_of("questions.jsonl"), *questions_of("parallel_texts.jsonl")]


def normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Words that two questions have in common, of those that either has; words of up to three letters say little."""
    return len(one & other) / len(one | other)


def words(text: str) -> frozenset[str]:
    return frozenset(word for word in normal(text).split() if len(word) > 3)


def test_the_bank_is_large_and_repeats_no_question_or_topic() -> None:
    with (PROJECT / "data/01_raw/question_bank.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) >= 640
    for key in ("id", "topic", "question"):
        assert len({normal(row[key]) for row in rows}) == len(rows), key


def test_no_question_of_the_bank_is_asked_elsewhere() -> None:
    assert not {normal(text) for text in BANK} & {normal(text) for text in ASKED}
    asked = {text: words(text) for text in ASKED}
    near = [(text, other) for text in BANK for other, known in asked.items() if likeness(words(text), known) >= 0.5]
    assert near == []


def test_no_two_questions_of_the_bank_are_nearly_the_same() -> None:
    bank = [(text, words(text)) for text in BANK]
    assert [(one, other) for (one, a), (other, b) in combinations(bank, 2) if likeness(a, b) >= 0.5] == []


def test_a_question_in_other_words_counts_as_near() -> None:
    one, other = "Why does bread dough need time to rise?", "Why does the dough of bread need time to rise?"
    assert likeness(words(one), words(other)) == 1
    assert likeness(words("Why does ice float on water?"), words("Why do stars twinkle?")) == 0
