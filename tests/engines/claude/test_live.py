"""Single calls, through everything that the API does to them."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.engines.claude.messages import Failure
from tests.engines.claude.asking import (
    MODEL,
    OPTIONS,
    ask_in_a_process,
    claude,
    in_time,
    kill,
    once,
    question,
    questions,
    rows,
    stored,
)
from tests.fake_anthropic import TRANSIENT, FakeAnthropic, score

# failures that pass


def test_every_row_is_answered_and_billed_once_though_most_calls_fail(api: FakeAnthropic, folder: Path) -> None:
    prompts = rows(560)
    api.faults, api.fault_probability = TRANSIENT, 0.7

    answers = claude(api, folder, concurrency=24).ask(questions(prompts), "judge")

    assert [(answer.outcome, answer.text) for answer in answers] == [("answered", score(prompt)) for prompt in prompts]
    assert api.billed == once(prompts)
    assert len(stored(folder)) == 560
    assert sum(api.asked.values()) > 2 * 560
    assert {reply["fault"] for reply in api.events("reply")} >= {"429", "529", "500", "dropped", "cut", "garbled"}


def test_every_row_is_answered_and_billed_once_with_the_retries_of_the_sdk_too(api: FakeAnthropic, folder: Path) -> None:
    prompts = rows(24)
    api.faults, api.fault_probability = TRANSIENT, 0.7

    answers = claude(api, folder, concurrency=24, sdk_retries=2).ask(questions(prompts), "judge")

    assert [answer.text for answer in answers] == [score(prompt) for prompt in prompts]
    assert api.billed == once(prompts)


@pytest.mark.parametrize("fault", [*TRANSIENT, "slow"])
def test_a_call_is_tried_again_after(fault: Any, api: FakeAnthropic, folder: Path) -> None:
    api.plan("messages", fault, fault)

    [answer] = claude(api, folder, timeout_seconds=0.5).ask(questions(["a"]), "judge")

    assert (answer.outcome, answer.text) == ("answered", score("a"))
    assert api.asked == {"a": 3}
    assert api.billed == {"a": 1}


def test_parameters_of_a_question_reach_the_api(api: FakeAnthropic, folder: Path) -> None:
    claude(api, folder).ask([question("a", temperature=0.25, max_tokens=7)], "judge")

    [request] = api.events("request")
    assert (request["model"], request["temperature"], request["max_tokens"]) == (MODEL, 0.25, 7)


def test_a_schema_of_the_answer_reaches_the_api(api: FakeAnthropic, folder: Path) -> None:
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}}
    claude(api, folder).ask([question("a", json_schema=schema)], "judge")

    [request] = api.events("request")
    assert request["output_config"] == {"format": {"type": "json_schema", "schema": schema}}


def test_a_web_page_instead_of_an_answer_is_tried_again(api: FakeAnthropic, folder: Path) -> None:
    api.plan("messages", "page")
    [answer] = claude(api, folder).ask(questions(["a"]), "judge")

    assert answer.outcome == "answered"
    assert api.billed == {"a": 1}


# crashes


def test_a_run_killed_while_it_waits_for_the_api_pays_for_nothing_twice(api: FakeAnthropic, folder: Path) -> None:
    prompts, goes_on = rows(120), threading.Event()

    def answer(prompt: str) -> str:
        if int(prompt.split()[1]) >= 60:
            goes_on.wait(20)
        return score(prompt)

    api.answer = answer
    child = ask_in_a_process(api, folder, prompts)
    # the 60 first rows are stored, and all eight threads wait
    assert in_time(lambda: len(stored(folder)) == 60 and len(api.events("request")) == 68)
    kill(child)
    goes_on.set()
    first_run = stored(folder)

    answers = claude(api, folder).ask(questions(prompts), "judge")

    assert [answer.text for answer in answers] == [score(prompt) for prompt in prompts]
    assert api.billed == once(prompts)
    assert len(first_run) == 60
    assert first_run.items() <= stored(folder).items()


def test_a_run_killed_at_any_moment_pays_twice_at_most_for_the_answers_in_flight(api: FakeAnthropic, folder: Path) -> None:
    prompts = rows(160)
    api.think_seconds = 0.01
    child = ask_in_a_process(api, folder, prompts, slow_disk=0.02)  # answers arrive faster than the disk takes them
    assert in_time(lambda: len(api.billed) >= 80)
    kill(child)

    answers = claude(api, folder, concurrency=16).ask(questions(prompts), "judge")

    assert [answer.text for answer in answers] == [score(prompt) for prompt in prompts]
    assert sum(api.billed.values()) - 160 <= OPTIONS["concurrency"]


def test_the_log_of_the_api_can_be_read_after_a_kill(api: FakeAnthropic, folder: Path) -> None:
    claude(api, folder).ask(questions(rows(3)), "judge")
    assert api.billed == once(rows(3))

    events = [json.loads(line) for line in api.log.read_text().splitlines()]

    assert Counter(event["prompt"] for event in events if event["what"] == "billed") == once(rows(3))
    assert [event["key_ok"] for event in events if event["what"] == "request"] == [True] * 3


def test_an_interrupt_ends_an_outage_without_waiting_for_the_deadline(api: FakeAnthropic, folder: Path) -> None:
    api.down = "529"
    child = ask_in_a_process(api, folder, rows(20), deadline_seconds=60)
    assert in_time(lambda: len(api.events("request")) > 16)
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    child.communicate(timeout=20)

    assert child.returncode != 0
    assert time.monotonic() - began < 15


def test_answers_in_flight_are_stored_when_the_run_is_interrupted(api: FakeAnthropic, folder: Path) -> None:
    prompts, goes_on = rows(30), threading.Event()
    api.answer = lambda prompt: score(prompt) if goes_on.wait(20) else ""
    child = ask_in_a_process(api, folder, prompts)
    assert in_time(lambda: len(api.events("request")) == 8)
    child.send_signal(signal.SIGINT)
    time.sleep(0.2)
    goes_on.set()
    child.communicate(timeout=20)

    assert len(api.billed) == len(stored(folder))


def test_answers_in_flight_are_stored_when_the_key_is_refused(api: FakeAnthropic, folder: Path) -> None:
    refused = threading.Event()

    def answer(prompt: str) -> str:
        refused.wait(5)
        time.sleep(0.2)
        return score(prompt)

    def fault(prompt: str) -> Any:
        if prompt != "row 7":
            return None
        refused.set()
        return "401"

    api.answer, api.fault_of = answer, fault
    with pytest.raises(UserError, match="refuses the key"):
        claude(api, folder).ask(questions(rows(8)), "judge")

    assert len(api.billed) == 7
    assert len(stored(folder)) == 7


# failures that last


def test_an_outage_ends_at_the_deadline_keeps_what_is_stored_and_is_made_up_for_later(api: FakeAnthropic, folder: Path) -> None:
    claude(api, folder).ask(questions(["a", "b"]), "judge")
    api.down = "529"
    began = time.monotonic()
    answers = claude(api, folder, deadline_seconds=1).ask(questions(["a", "b", "c", "d", "e"]), "judge")

    assert 0.5 < time.monotonic() - began < 5
    assert [answer.outcome for answer in answers] == ["answered"] * 2 + ["api_error"] * 3
    assert all("529" in answer.cause for answer in answers[2:])
    assert len(stored(folder)) == 2

    api.down = None
    before = api.asked
    answers = claude(api, folder).ask(questions(["a", "b", "c", "d", "e"]), "judge")

    assert [answer.outcome for answer in answers] == ["answered"] * 5
    assert api.asked - before == once("cde")
    assert api.billed == once("abcde")


def test_a_long_queue_ends_at_the_deadline_too(api: FakeAnthropic, folder: Path) -> None:
    api.down = "500"
    began = time.monotonic()
    answers = claude(api, folder, deadline_seconds=0.5).ask(questions(rows(300)), "judge")

    assert time.monotonic() - began < 5
    assert {answer.outcome for answer in answers} == {"api_error"}
    assert sum("500" in answer.cause for answer in answers) >= 8
    assert all(answer.cause for answer in answers)


def test_an_api_that_cannot_be_reached_is_an_api_error(api: FakeAnthropic, folder: Path) -> None:
    client = claude(api, folder, base_url="http://127.0.0.1:9", deadline_seconds=0.3)
    [answer] = client.ask(questions(["a"]), "judge")

    assert answer.outcome == "api_error"
    assert "connection lost" in answer.cause


def test_an_api_that_never_answers_ends_at_the_deadline(api: FakeAnthropic, folder: Path) -> None:
    api.down = "slow"
    began = time.monotonic()
    [answer] = claude(api, folder, deadline_seconds=0.6, timeout_seconds=0.3).ask(questions(["a"]), "judge")

    assert time.monotonic() - began < 4
    assert answer.outcome == "api_error"
    assert "timeout" in answer.cause


def test_a_pause_longer_than_the_deadline_is_not_waited_for(api: FakeAnthropic, folder: Path) -> None:
    api.down, api.retry_after = "429 retry-after", 3600
    began = time.monotonic()
    [answer] = claude(api, folder, deadline_seconds=2).ask(questions(["a"]), "judge")

    assert time.monotonic() - began < 5
    assert answer.outcome == "api_error"
    assert "429" in answer.cause


def test_a_pause_longer_than_the_deadline_is_not_waited_for_by_the_sdk_either(api: FakeAnthropic, folder: Path) -> None:
    api.down, api.retry_after = "429 retry-after", 3
    began = time.monotonic()
    [answer] = claude(api, folder, deadline_seconds=0.5, sdk_retries=1).ask(questions(["a"]), "judge")

    assert time.monotonic() - began < 2.5
    assert answer.outcome == "api_error"


def test_a_request_the_api_does_not_accept_is_given_up_at_once(api: FakeAnthropic, folder: Path) -> None:
    api.fault_of = lambda prompt: "400" if prompt == "bad" else None
    bad, good = claude(api, folder).ask(questions(["bad", "good"]), "judge")

    assert (bad.outcome, good.outcome) == ("api_error", "answered")
    assert "400" in bad.cause
    assert api.asked == {"bad": 1, "good": 1}
    assert len(stored(folder)) == 1


def between(requests: Sequence[dict[str, Any]], start: float, seconds: float) -> list[float]:
    """Requests in a pause; the first moments of it are those in which the client has not read of it yet."""
    return [request["at"] - start for request in requests if start + 0.15 < request["at"] < start + seconds - 0.02]


def test_no_thread_calls_in_the_pause_the_api_asks_for(api: FakeAnthropic, folder: Path) -> None:
    api.think_seconds = 0.03
    api.retry_after = 0.5
    api.plan("messages", "429 retry-after")
    claude(api, folder).ask(questions(rows(40)), "judge")

    [start] = [reply["at"] for reply in api.events("reply") if reply["status"] == 429]
    assert between(api.events("request"), start, 0.5) == []
    assert api.billed == once(rows(40))


def test_no_thread_calls_before_the_date_that_the_api_names(api: FakeAnthropic, folder: Path) -> None:
    api.retry_after = formatdate(time.time() + 3, usegmt=True)
    api.plan("messages", "429 retry-after")
    answers = claude(api, folder).ask(questions(rows(40)), "judge")

    [start] = [reply["at"] for reply in api.events("reply") if reply["status"] == 429]
    assert between(api.events("request"), start, 3) == []
    assert {answer.outcome for answer in answers} == {"answered"}


REPLIED = {"date": "Sat, 28 Nov 2026 10:00:00 GMT"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "Sat, 28 Nov 2026 10:00:30 GMT", **REPLIED}, 31),
        ({"retry-after": "Sat, 28 Nov 2026 11:00:30 +0100", **REPLIED}, 31),
        ({"retry-after": "Sat, 28 Nov 2026 10:00:30 -0000", **REPLIED}, 31),
        ({"retry-after": "Saturday, 28-Nov-26 10:00:30 GMT", **REPLIED}, 31),
        ({"retry-after": "Sat, 28 Nov 2026 09:00:00 GMT", **REPLIED}, 0),
        ({"retry-after": "soon", **REPLIED}, None),
        (REPLIED, None),
    ],
)
def test_a_reply_asks_for_seconds_or_names_a_date_by_its_own_clock(headers: dict[str, str], seconds: float | None) -> None:
    response = httpx2.Response(429, headers=headers, request=httpx2.Request("POST", "http://127.0.0.1"))

    assert Failure(anthropic.RateLimitError("busy", response=response, body=None)).retry_after == seconds


def test_a_pause_is_longer_when_the_api_asks_for_another_in_it(api: FakeAnthropic, folder: Path) -> None:
    api.retry_after = 0.6
    calls: Counter[str] = Counter()

    def fault(prompt: str) -> Any:
        calls[prompt] += 1
        if prompt in ("row 0", "row 1") and calls[prompt] == 1:
            time.sleep(0.1 if prompt == "row 0" else 0.5)  # so the second pause lasts till 0.5 seconds after the first
            return "429 retry-after"
        return None

    api.draw = lambda _endpoint, prompt: fault(prompt)  # type: ignore[method-assign, assignment]
    claude(api, folder, concurrency=2).ask(questions(rows(20)), "judge")

    pauses = [reply["at"] for reply in api.events("reply") if reply["status"] == 429]
    assert len(pauses) == 2
    assert [between(api.events("request"), start, 0.6) for start in pauses] == [[], []]
