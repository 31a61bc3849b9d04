"""Questions for the client to ask, and a look at what it paid for and stored."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from persona_leakage.domain.questions import Question
from persona_leakage.engines.claude import AnthropicClient
from tests.fake_anthropic import API_KEY, FakeAnthropic

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
from persona_leakage.engines.claude import AnthropicClient
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
