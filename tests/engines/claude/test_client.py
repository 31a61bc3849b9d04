"""The key, the store, and what the model says."""

import logging
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from persona_leakage.domain.errors import UserError
from tests.engines.claude.asking import MODEL, PRICE, WRONG_KEY, claude, once, question, questions, rows, stored
from tests.fake_anthropic import API_KEY, TRANSIENT, FakeAnthropic, score

# the key


def test_a_refused_key_is_a_user_error_that_does_not_show_it(api: FakeAnthropic, folder: Path) -> None:
    with pytest.raises(UserError, match=r"refuses the key \(401\).*ANTHROPIC_API_KEY") as caught:
        claude(api, folder, api_key=WRONG_KEY).ask(questions(rows(200)), "judge")

    assert WRONG_KEY not in "".join(traceback.format_exception(caught.value))
    assert stored(folder) == {}
    assert len(api.events("request")) < 100  # the rest is not tried


def test_a_refused_key_is_a_user_error_of_a_batch(api: FakeAnthropic, folder: Path) -> None:
    with pytest.raises(UserError, match=r"refuses the key \(401\)") as caught:
        claude(api, folder, api_key=WRONG_KEY, mode="batch").ask(questions(rows(3)), "judge")

    assert WRONG_KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_the_key_is_never_written(
    mode: str,
    api: FakeAnthropic,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    with caplog.at_level(logging.DEBUG):
        before = {logger: logger.level for logger in loggers}
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        try:
            api.plan("create" if mode == "batch" else "messages", *TRANSIENT)
            client = claude(api, folder, mode=mode)
            client.ask(questions(rows(5)), "judge")
        finally:
            for logger, level in before.items():
                logger.setLevel(level)

    assert any(record.name.startswith("anthropic") and record.levelno == logging.DEBUG for record in caplog.records)
    assert API_KEY not in caplog.text
    assert not any(API_KEY in repr(vars(record)) for record in caplog.records)
    assert API_KEY not in repr(client) + str(client) + repr(vars(client))
    assert API_KEY not in "".join(capfd.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert not any(API_KEY.encode() in path.read_bytes() for path in files)


def test_a_key_with_a_stray_line_end_is_not_an_outage(
    api: FakeAnthropic, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = claude(api, folder, api_key=f"{API_KEY}\r\n", deadline_seconds=1)
    with caplog.at_level(logging.DEBUG):
        [answer] = client.ask(questions(["a"]), "judge")

    leaks = [record.name for record in caplog.records if API_KEY in record.getMessage() + str(record.exc_text)]
    assert (answer.outcome, leaks) == ("answered", [])


def test_without_a_key_only_stored_answers_are_served(api: FakeAnthropic, folder: Path) -> None:
    claude(api, folder).ask(questions(["a"]), "judge")
    known, unknown = claude(api, folder, api_key=None).ask(questions(["a", "b"]), "judge")

    assert (known.outcome, known.text) == ("answered", score("a"))
    assert (unknown.outcome, unknown.cause) == ("unscored", "no API key")
    assert api.asked == {"a": 1}
    assert len(stored(folder)) == 1


def test_a_model_is_looked_up_without_asking_it_anything(api: FakeAnthropic, folder: Path) -> None:
    assert claude(api, folder).refusal(MODEL, 5) is None
    assert claude(api, folder).refusal("claude-gone", 5) == "API error 404 not_found_error"
    assert claude(api, folder, api_key=WRONG_KEY).refusal(MODEL, 5) == "API error 401 authentication_error"
    assert claude(api, folder, base_url="http://127.0.0.1:9").refusal(MODEL, 5) == "API connection lost"
    assert not api.billed
    assert not folder.exists()


@pytest.mark.parametrize(("key", "has"), [(API_KEY, True), (None, False), ("", False), (" \n", False)])
def test_a_blank_key_is_none(key: str | None, has: bool, api: FakeAnthropic, folder: Path) -> None:
    assert claude(api, folder, api_key=key).has_key is has


# what the model says, and the store


def test_a_refusal_of_the_model_is_stored_and_not_asked_again(api: FakeAnthropic, folder: Path) -> None:
    api.fault_of = lambda prompt: "refusal" if prompt == "a" else None
    for _ in range(2):
        refused, answered = claude(api, folder).ask(questions(["a", "b"]), "judge")
        assert (refused.outcome, refused.text, answered.outcome) == ("refused", "", "answered")

    assert api.billed == once("ab")


@pytest.mark.parametrize("mode", ["live", "batch"])
@pytest.mark.parametrize("fault", ["truncated", "context", "paused"])
def test_an_answer_that_the_model_did_not_end_is_flagged(api: FakeAnthropic, folder: Path, fault: Any, mode: str) -> None:
    api.fault_of = lambda prompt: fault if prompt == "a" else None
    for _ in range(2):
        cut, whole = claude(api, folder, mode=mode).ask(questions(["a", "b"]), "judge")
        assert (cut.outcome, cut.truncated, whole.truncated) == ("answered", True, False)
        assert score("a").startswith(cut.text)

    assert api.billed == once("ab")
    assert sorted(entry["truncated"] for entry in stored(folder).values()) == [False, True]


def test_answers_come_in_the_order_of_the_questions_and_repeated_ones_are_asked_once(api: FakeAnthropic, folder: Path) -> None:
    def answer(prompt: str) -> str:
        time.sleep(0.2 if prompt == "slow" else 0)
        return score(prompt)

    api.answer = answer
    prompts = ["slow", "b", "a", "b", "slow", "c"]
    answers = claude(api, folder).ask(questions(prompts), "judge")

    assert [answer.text for answer in answers] == [score(prompt) for prompt in prompts]
    assert api.asked == once(["slow", "a", "b", "c"])
    assert all(answer.input_tokens > 0 and answer.output_tokens > 0 for answer in answers)


def test_a_question_is_another_one_with_another_temperature_model_limit_or_attempt(api: FakeAnthropic, folder: Path) -> None:
    prices = {MODEL: PRICE, "claude-other": PRICE}
    first = [question("a")]
    others = [question("a", temperature=0.7), question("a", max_tokens=51), question("a", attempt=1)]
    others.append(question("a", model="claude-other"))
    claude(api, folder, prices=prices).ask(first, "judge")
    claude(api, folder, prices=prices).ask([*first, *others], "judge")

    assert api.billed == {"a": 5}
    assert len(stored(folder)) == 5


def test_no_question_is_no_request(api: FakeAnthropic, folder: Path) -> None:
    assert claude(api, folder).ask([], "judge") == []
    assert api.events("request") == []


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_half_a_character_is_replaced_and_a_pair_of_halves_joined(api: FakeAnthropic, folder: Path, mode: str) -> None:
    api.answer = lambda prompt: f"{prompt}: \udc00b"
    prompts = ["a\ud83d", "\ud83d\ude42"]
    first = claude(api, folder, mode=mode, deadline_seconds=5).ask(questions(prompts), "judge")

    assert [answer.text for answer in first] == ["a\ufffd: \ufffdb", "🙂: \ufffdb"]
    assert api.billed == once(["a\ufffd", "🙂"])
    assert claude(api, folder, api_key=None).ask(questions(prompts), "judge") == first


def test_answers_in_any_script_come_back_from_the_store(api: FakeAnthropic, folder: Path) -> None:
    api.answer = lambda prompt: f"{prompt}\n\u2028žluťoučký 日本語 🙂\x00"
    first = claude(api, folder).ask(questions(["כן"]), "judge")

    assert first[0].text == "כן\n\u2028žluťoučký 日本語 🙂\x00"
    assert claude(api, folder, api_key=None).ask(questions(["כן"]), "judge") == first
