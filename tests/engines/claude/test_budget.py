"""What is spent, and told beforehand."""

import logging
from collections import Counter
from pathlib import Path

import pytest

from persona_leakage.domain.errors import UserError
from tests.engines.claude.asking import claude, cost, once, question, questions, rows, stored
from tests.fake_anthropic import FakeAnthropic


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
