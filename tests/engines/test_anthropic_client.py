import json
import logging
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.questions import Question
from persona_leakage.engines.anthropic_client import AnthropicClient
from tests.fake_anthropic import API_KEY, TRANSIENT, FakeAnthropic, Fate, score

MODEL = "claude-test"
PRICE = {"input": 3.0, "output": 15.0}
WRONG_KEY = "sk-ant-wrong-9876543210-do-not-print"
OPTIONS: dict[str, Any] = {
    "mode": "live",
    "concurrency": 8,
    "deadline_seconds": 30,
    "timeout_seconds": 10,
    "sdk_retries": 0,
    "first_wait_seconds": 0.01,
    "longest_wait_seconds": 0.1,
    "poll_seconds": 0.02,
    "batch_size": 1000,
    "spend_ceiling": 100.0,
    "prices": {MODEL: PRICE},
}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_LOG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeAnthropic]:
    with FakeAnthropic(tmp_path / "api.jsonl") as api:
        yield api


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def claude(api: FakeAnthropic, folder: Path, **changes: Any) -> AnthropicClient:
    return AnthropicClient(**{"cache": folder, "api_key": API_KEY, "base_url": api.url, **OPTIONS, **changes})


def question(prompt: str, **changes: Any) -> Question:
    return Question(**{"model": MODEL, "prompt": prompt, "temperature": 0.3, "max_tokens": 50, **changes})


def questions(prompts: Sequence[str]) -> list[Question]:
    return [question(prompt) for prompt in prompts]


def rows(number: int) -> list[str]:
    return [f"row {row}" for row in range(number)]


def stored(folder: Path, purpose: str = "judge") -> dict[str, dict[str, Any]]:
    path = folder / "api" / f"{purpose}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return dict(json.loads(line) for line in lines if line.endswith(b"\n"))


def once(prompts: Sequence[str]) -> Counter[str]:
    return Counter(dict.fromkeys(prompts, 1))


def cost(api: FakeAnthropic) -> float:
    return sum(event["input_tokens"] * 3e-6 + event["output_tokens"] * 15e-6 for event in api.events("billed"))


def in_time(condition: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + 20
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.005)
    return True


ASKS = """
import json, os, sys, time
from pathlib import Path
from persona_leakage.domain.questions import Question
from persona_leakage.engines.anthropic_client import AnthropicClient
options, questions, slow_disk = json.loads(sys.argv[1])
if slow_disk:
    os.fsync = lambda _: time.sleep(slow_disk)
options["cache"] = Path(options["cache"])
AnthropicClient(**options).ask([Question(**question) for question in questions], "judge")
"""


def ask_in_a_process(
    api: FakeAnthropic, folder: Path, prompts: Sequence[str], slow_disk: float = 0, **changes: Any
) -> subprocess.Popen[bytes]:
    options = {"cache": str(folder), "api_key": API_KEY, "base_url": api.url, **OPTIONS, **changes}
    arguments = json.dumps([options, [asked.model_dump() for asked in questions(prompts)], slow_disk])
    return subprocess.Popen(
        [sys.executable, "-c", ASKS, arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate(timeout=20)
    assert child.returncode == -signal.SIGKILL


# Live: every failure that passes


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


# Live: crashes


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


# Live: failures that last


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


# Live: the key


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


# Live: what the model says, and the store


def test_a_refusal_of_the_model_is_stored_and_not_asked_again(api: FakeAnthropic, folder: Path) -> None:
    api.fault_of = lambda prompt: "refusal" if prompt == "a" else None
    for _ in range(2):
        refused, answered = claude(api, folder).ask(questions(["a", "b"]), "judge")
        assert (refused.outcome, refused.text, answered.outcome) == ("refused", "", "answered")

    assert api.billed == once("ab")


def test_an_answer_cut_at_max_tokens_is_flagged(api: FakeAnthropic, folder: Path) -> None:
    api.fault_of = lambda prompt: "truncated" if prompt == "a" else None
    for _ in range(2):
        cut, whole = claude(api, folder).ask(questions(["a", "b"]), "judge")
        assert (cut.outcome, cut.truncated, whole.truncated) == ("answered", True, False)
        assert score("a").startswith(cut.text)

    assert api.asked == once("ab")


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


def test_answers_in_any_script_come_back_from_the_store(api: FakeAnthropic, folder: Path) -> None:
    api.answer = lambda prompt: f"{prompt}\n\u2028žluťoučký 日本語 🙂\x00"
    first = claude(api, folder).ask(questions(["כן"]), "judge")

    assert first[0].text == "כן\n\u2028žluťoučký 日本語 🙂\x00"
    assert claude(api, folder, api_key=None).ask(questions(["כן"]), "judge") == first


# Money


def test_a_model_without_a_price_is_a_user_error(api: FakeAnthropic, folder: Path) -> None:
    with pytest.raises(UserError, match="no price is set for claude-dear"):
        claude(api, folder).ask([question("a"), question("b", model="claude-dear")], "judge")

    assert api.events("request") == []


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_the_spend_ceiling_is_kept_and_a_higher_one_asks_only_the_rest(mode: str, api: FakeAnthropic, folder: Path) -> None:
    prompts = rows(100)
    api.answer = lambda _prompt: "x" * 400  # 50 tokens, as dear as it gets: $0.00075 and a little
    factor = 0.5 if mode == "batch" else 1
    ceiling = factor * 0.02
    answers = claude(api, folder, mode=mode, spend_ceiling=ceiling).ask(questions(prompts), "judge")

    outcomes = Counter(answer.outcome for answer in answers)
    assert set(outcomes) == {"answered", "unscored"}
    assert {answer.cause for answer in answers if answer.outcome == "unscored"} == {"spend ceiling reached"}
    assert factor * cost(api) <= ceiling
    assert outcomes["answered"] >= 10  # so most of the money was used
    assert outcomes["answered"] == len(stored(folder)) == len(api.billed)

    answers = claude(api, folder, mode=mode).ask(questions(prompts), "judge")

    assert {answer.outcome for answer in answers} == {"answered"}
    assert api.billed == once(prompts)


def test_the_spend_ceiling_is_kept_for_scripts_with_a_token_a_character(api: FakeAnthropic, folder: Path) -> None:
    prompts = [f"{row:03}" + "言" * 997 for row in range(30)]
    api.count_tokens = len
    api.answer = lambda _prompt: "x"
    ceiling = 0.02  # six prompts at $0.003
    claude(api, folder, spend_ceiling=ceiling).ask([question(prompt, max_tokens=1) for prompt in prompts], "judge")

    assert 0 < cost(api) <= ceiling


def test_failures_do_not_use_up_the_spend_ceiling(api: FakeAnthropic, folder: Path) -> None:
    bad, good = [f"bad {row}" for row in range(30)], rows(8)
    api.faults, api.fault_probability = ("529", "dropped"), 0.3
    api.fault_of = lambda prompt: "400" if prompt in bad else None
    ceiling = 12 * 0.0009  # a dozen questions
    answers = claude(api, folder, concurrency=1, spend_ceiling=ceiling).ask(questions([*bad, *good]), "judge")

    assert [answer.outcome for answer in answers] == ["api_error"] * 30 + ["answered"] * 8


def test_the_estimate_is_logged_before_anything_is_sent(
    api: FakeAnthropic, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    claude(api, folder).ask(questions(rows(3)), "judge")
    caplog.clear()
    api.down = "400"
    with caplog.at_level(logging.INFO, "persona_leakage"):
        claude(api, folder).ask(questions(rows(10)), "judge")

    said = [record.getMessage() for record in caplog.records if record.name.startswith("persona_leakage")]
    assert said[0].startswith("judge: 10 questions, 3 answered before; asking 7 live, about ")
    assert said[0].endswith(" tokens in, at most 350 out, at most $0.01")
    assert "7 of 10 questions have no answer (7 x API error 400 invalid_request_error)" in said[-1]
    assert caplog.records[-1].levelno == logging.WARNING


# Batches


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
