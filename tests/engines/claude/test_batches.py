"""Message batches."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persona_leakage.engines.claude import AnthropicClient
from tests.engines.claude.asking import MODEL, ask_in_a_process, claude, in_time, kill, once, question, questions, rows, stored
from tests.fake_anthropic import TRANSIENT, FakeAnthropic, Fate, score


@pytest.fixture
def batches(api: FakeAnthropic, folder: Path) -> Callable[..., AnthropicClient]:
    return lambda **changes: claude(api, folder, mode="batch", **changes)


def created(api: FakeAnthropic) -> list[list[str]]:
    """Prompts of each batch."""
    return [[request["params"]["messages"][0]["content"] for request in batch["requests"]] for batch in api.batches.values()]


def test_a_batch_answers_everything(api: FakeAnthropic, folder: Path, batches: Callable[..., AnthropicClient]) -> None:
    prompts = [*rows(50), "row 3", "declined", "long"]
    contents: dict[str, Any] = {"declined": "refusal", "long": "truncated"}
    api.fault_of = contents.get
    api.looks_in_progress = 3
    answers = batches().ask(questions(prompts), "judge")

    assert [answer.text for answer in answers[:51]] == [score(prompt) for prompt in prompts[:51]]
    assert [answer.outcome for answer in answers] == ["answered"] * 51 + ["refused", "answered"]
    assert [answer.truncated for answer in answers] == [False] * 52 + [True]
    assert api.billed == once(prompts)
    assert len(created(api)) == 1
    assert api.events("request", "messages") == []

    assert batches().ask(questions(prompts), "judge") == answers
    assert len(created(api)) == 1


def test_parameters_of_a_question_reach_the_api_in_a_batch(api: FakeAnthropic, batches: Callable[..., AnthropicClient]) -> None:
    batches().ask([question("a", temperature=0.25, max_tokens=7)], "judge")

    [[request]] = [batch["requests"] for batch in api.batches.values()]
    assert {key: request["params"][key] for key in ("model", "temperature", "max_tokens")} == {
        "model": MODEL,
        "temperature": 0.25,
        "max_tokens": 7,
    }


def test_many_questions_go_in_several_batches(api: FakeAnthropic, batches: Callable[..., AnthropicClient]) -> None:
    answers = batches(batch_size=20).ask(questions(rows(50)), "judge")

    assert [answer.text for answer in answers] == [score(prompt) for prompt in rows(50)]
    assert [len(batch) for batch in created(api)] == [20, 20, 10]
    assert api.billed == once(rows(50))


def test_a_batch_submitted_by_a_run_that_was_killed_is_collected(
    api: FakeAnthropic, folder: Path, batches: Callable[..., AnthropicClient]
) -> None:
    api.looks_in_progress = 1_000_000
    child = ask_in_a_process(api, folder, rows(30), mode="batch")
    assert in_time(lambda: bool(api.events("request", "retrieve")))
    kill(child)
    assert stored(folder) == {}

    api.looks_in_progress = 0
    answers = batches().ask(questions(rows(40)), "judge")

    assert {answer.outcome for answer in answers} == {"answered"}
    assert created(api) == [rows(30), rows(40)[30:]]
    assert api.billed == once(rows(40))


def test_a_batch_still_in_progress_at_the_deadline_is_collected_later(
    api: FakeAnthropic, batches: Callable[..., AnthropicClient]
) -> None:
    api.looks_in_progress = 1_000_000
    began = time.monotonic()
    answers = batches(deadline_seconds=0.5).ask(questions(rows(5)), "judge")

    assert time.monotonic() - began < 4
    assert {answer.outcome for answer in answers} == {"api_error"}
    assert all("deadline" in answer.cause for answer in answers)

    api.looks_in_progress = 0
    assert {answer.outcome for answer in batches().ask(questions(rows(5)), "judge")} == {"answered"}
    assert len(created(api)) == 1


def test_results_that_another_run_wants_are_not_thrown_away(
    api: FakeAnthropic, batches: Callable[..., AnthropicClient]
) -> None:
    api.looks_in_progress = 1_000_000
    batches(deadline_seconds=0.2).ask(questions(rows(6)), "judge")
    api.looks_in_progress = 0
    batches().ask(questions(rows(2)), "judge")
    batches().ask(questions(rows(6)), "judge")

    assert api.billed == once(rows(6))


def fates(fate: Fate) -> Callable[[str, int], Fate]:
    """Give the fate to two rows of the first batch."""
    return lambda prompt, batch: fate if batch == 1 and prompt in ("row 1", "row 4") else "succeeded"


@pytest.mark.parametrize("fate", ["missing", "errored", "expired", "canceled"])
def test_a_question_that_a_batch_did_not_answer_goes_in_another(
    fate: Fate, api: FakeAnthropic, batches: Callable[..., AnthropicClient]
) -> None:
    api.fate_of = fates(fate)
    answers = batches().ask(questions(rows(6)), "judge")

    assert [answer.text for answer in answers] == [score(prompt) for prompt in rows(6)]
    assert created(api) == [rows(6), ["row 1", "row 4"]]
    assert api.billed == once(rows(6))


def test_a_question_that_is_not_valid_is_given_up_at_once(
    api: FakeAnthropic, folder: Path, batches: Callable[..., AnthropicClient]
) -> None:
    api.fate_of = lambda prompt, _batch: "refused" if prompt == "row 1" else "succeeded"
    answers = batches().ask(questions(rows(3)), "judge")

    assert [answer.outcome for answer in answers] == ["answered", "api_error", "answered"]
    assert answers[1].cause == "batch: invalid_request_error"
    assert created(api) == [rows(3)]
    assert len(stored(folder)) == 2


def test_results_that_come_twice_count_once(api: FakeAnthropic, folder: Path, batches: Callable[..., AnthropicClient]) -> None:
    api.fate_of = fates("duplicate")
    answers = batches().ask(questions(rows(6)), "judge")

    assert [answer.text for answer in answers] == [score(prompt) for prompt in rows(6)]
    assert len(created(api)) == 1
    assert len((folder / "api" / "judge.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("fate", "cause"), [("missing", "missing"), ("errored", "api_error"), ("expired", "expired"), ("canceled", "canceled")]
)
def test_a_question_that_no_batch_answers_is_an_api_error(
    fate: Fate, cause: str, api: FakeAnthropic, folder: Path, batches: Callable[..., AnthropicClient]
) -> None:
    api.fate_of = lambda prompt, _batch: fate if prompt == "row 1" else "succeeded"
    answers = batches(deadline_seconds=5).ask(questions(rows(3)), "judge")

    assert [answer.outcome for answer in answers] == ["answered", "api_error", "answered"]
    assert cause in answers[1].cause
    assert len(stored(folder)) == 2
    assert 2 <= len(created(api)) <= 6


@pytest.mark.parametrize("endpoint", ["create", "retrieve", "results"])
@pytest.mark.parametrize("fault", [*TRANSIENT, "slow"])
def test_a_call_about_a_batch_is_tried_again_after(
    fault: Any, endpoint: Any, api: FakeAnthropic, batches: Callable[..., AnthropicClient]
) -> None:
    api.plan(endpoint, fault, fault)
    answers = batches(timeout_seconds=0.3).ask(questions(rows(3)), "judge")

    assert [answer.text for answer in answers] == [score(prompt) for prompt in rows(3)]
    assert api.billed == once(rows(3))
    assert len(api.events("request", endpoint)) >= 3


def test_a_batch_is_not_submitted_in_an_outage_that_lasts(api: FakeAnthropic, batches: Callable[..., AnthropicClient]) -> None:
    api.down = "529"
    began = time.monotonic()
    answers = batches(deadline_seconds=0.6).ask(questions(rows(3)), "judge")

    assert time.monotonic() - began < 4
    assert {answer.outcome for answer in answers} == {"api_error"}
    assert all("529" in answer.cause for answer in answers)

    api.down = None
    assert {answer.outcome for answer in batches().ask(questions(rows(3)), "judge")} == {"answered"}
    assert api.billed == once(rows(3))


def test_a_batch_that_the_api_has_forgotten_is_submitted_again(
    api: FakeAnthropic, batches: Callable[..., AnthropicClient]
) -> None:
    api.looks_in_progress = 1_000_000
    batches(deadline_seconds=0.2).ask(questions(rows(3)), "judge")
    api.looks_in_progress = 0
    api.forget_batches()
    answers = batches().ask(questions(rows(3)), "judge")

    assert {answer.outcome for answer in answers} == {"answered"}


def test_a_batch_whose_results_the_api_has_forgotten_is_submitted_again(
    api: FakeAnthropic, batches: Callable[..., AnthropicClient]
) -> None:
    api.plan("results", "404")
    answers = batches().ask(questions(rows(3)), "judge")

    assert {answer.outcome for answer in answers} == {"answered"}
    assert created(api) == [rows(3), rows(3)]


def test_an_api_that_knows_no_batches_is_an_api_error(api: FakeAnthropic, batches: Callable[..., AnthropicClient]) -> None:
    api.plan("create", "404")
    answers = batches().ask(questions(rows(3)), "judge")

    assert {(answer.outcome, answer.cause) for answer in answers} == {("api_error", "API error 404 not_found_error")}
    assert len(api.events("request", "create")) == 1
