"""Whole runs with Claude as judge and translator, against a local API that fails as the real one does."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.fake_anthropic import API_KEY, TRANSIENT, FakeAnthropic
from tests.project import PROJECT, Project

pytestmark = pytest.mark.slow

LANGUAGES = {
    "English": ("en", "english"),
    "Spanish": ("es", "spanish"),
    "French": ("fr", "french"),
    "Italian": ("it", "italian"),
    "Portuguese": ("pt", "portuguese"),
    "German": ("de", "german"),
    "Mandarin Chinese": ("zh", "mandarin"),
}
TEXTS = [json.loads(line) for line in (PROJECT / "data/01_raw/parallel_texts.jsonl").open()]
LABEL_OF = {row[code]: label for row in TEXTS for code, label in LANGUAGES.values()}
PARAMETERS = """
lang_inversion:
  scoring:
    judge: {model: claude-test, temperature: 0.0, max_tokens: 512, shows_directive: false}
"""
CATALOG = """
language_model:
  type: persona_leakage.datasets.EngineDataset
  engine: anthropic_client
  cache: ${globals:cache}
  credentials: anthropic
  options:
    mode: MODE
    base_url: URL
    concurrency: 8
    deadline_seconds: 60
    timeout_seconds: 5
    sdk_retries: 0
    first_wait_seconds: 0.01
    longest_wait_seconds: 0.1
    poll_seconds: 0.05
    batch_size: 200
    spend_ceiling: 50
    prices: {claude-test: {input: 1, output: 5}}
"""


def inside_tags(prompt: str) -> str:
    return prompt.split("<text>\n", 1)[1].split("\n</text>", 1)[0]


def judge(prompt: str) -> str:
    return json.dumps({"label": LABEL_OF[inside_tags(prompt)], "reasoning": "its words"})


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeAnthropic]:
    with FakeAnthropic(tmp_path / "api.jsonl") as api:
        api.answer = judge
        yield api


@pytest.fixture
def judged(project: Project, api: FakeAnthropic, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a judge, and 560 completions of fr_it to replay: under Spanish every fourth one is Italian."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", API_KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (project.folder / "conf/test/catalog_claude.yml").write_text(CATALOG.replace("URL", api.url).replace("MODE", "live"))
    (project.folder / "conf/test/parameters_judge.yml").write_text(PARAMETERS)
    with (project.folder / "completions.jsonl").open("w") as file:
        for name, (code, _) in LANGUAGES.items():
            for place, directive in enumerate(("Speak in", "Please respond in")):
                for sample in range(40):
                    spilled = name == "Spanish" and sample % 4 == 0
                    text = TEXTS[40 * place + sample]["it" if spilled else code]
                    row = {
                        "directive_language": name,
                        "prompt": f"{directive} {name}.",
                        "sample_index": sample,
                        "completion": text,
                    }
                    file.write(json.dumps(row) + "\n")
    return project


REPLAY = ("run", "--pipeline=lang_inversion_replay", "--params", "condition=fr_it,completions_file=completions.jsonl")
OUTPUT = "data/07_model_output/test/lang_inversion_replay/tiny/fr_it/seed_42"


def outcomes(project: Project) -> dict[str, int]:
    return json.loads((project.folder / OUTPUT / "judge_agreement.json").read_text())["outcomes"]


def test_with_seventy_percent_of_calls_failing_every_row_gets_its_label_and_none_is_billed_twice(
    judged: Project, api: FakeAnthropic
) -> None:
    api.faults, api.fault_probability = TRANSIENT, 0.7
    done = judged.kedro(*REPLAY)
    assert done.returncode == 0, done.stderr
    assert outcomes(judged) == {"label": 560}
    assert set(api.billed.values()) == {1}
    assert len(api.asked) == len(api.billed)
    rows = [json.loads(line) for line in (judged.folder / OUTPUT / "judgements.jsonl").read_text().splitlines()]
    texts = [json.loads(line)["completion"] for line in (judged.folder / "completions.jsonl").open()]
    assert [row["label"] for row in rows] == [LABEL_OF[text] for text in texts]
    rates = pd.read_csv(judged.folder / OUTPUT / "cell_rates.csv").set_index(["directive_language", "phrasing", "metric"])
    assert tuple(rates.loc[("spanish", "all", "judge:contamination"), ["hits", "n"]]) == (20, 80)
    assert tuple(rates.loc[("spanish", "all", "judge:unlabelled"), ["hits", "n"]]) == (0, 80)


def test_killed_in_the_middle_and_started_again_it_asks_only_what_has_no_answer(judged: Project, api: FakeAnthropic) -> None:
    api.faults, api.fault_probability = TRANSIENT, 0.3
    killed = threading.Event()

    def answer_until_the_kill(prompt: str) -> str:
        if sum(api.billed.values()) >= 100:
            killed.wait(30)
        return judge(prompt)

    api.answer = answer_until_the_kill
    command = [sys.executable, "-m", "kedro", *REPLAY]
    environment = judged.environment | {"KEDRO_ENV": "test"}
    first = subprocess.Popen(command, cwd=judged.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store = judged.folder / "data/cache/api/judge.jsonl"
    while not store.exists() or store.read_text().count("\n") < 100:
        assert first.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)  # the calls in flight now wait at the API, unbilled
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert 100 <= sum(api.billed.values()) < 120
    killed.set()

    done = judged.kedro(*REPLAY)
    assert done.returncode == 0, done.stderr
    assert outcomes(judged) == {"label": 560}
    assert set(api.billed.values()) == {1}


def test_an_api_that_is_down_ends_the_run_in_time_and_the_rest_can_be_asked_later(judged: Project, api: FakeAnthropic) -> None:
    catalog = judged.folder / "conf/test/catalog_claude.yml"
    catalog.write_text(catalog.read_text().replace("deadline_seconds: 60", "deadline_seconds: 2"))
    api.down = "529"
    done = judged.kedro(*REPLAY, timeout=60)
    assert done.returncode == 0, done.stderr
    assert outcomes(judged) == {"api_error": 560}
    said = " ".join(done.stdout.split())  # the log wraps its lines
    assert "questions have no answer" in said
    assert "start the same command again to ask only these" in said
    report = (judged.folder / "data/08_reporting/test/lang_inversion_replay/report.md").read_text()
    assert "**The judge left completions without a label**" in report
    assert "| fr_it | 560/560 = 100.0% [" in report
    rates = pd.read_csv(judged.folder / OUTPUT / "cell_rates.csv").set_index(["directive_language", "phrasing", "metric"])
    assert tuple(rates.loc[("french", "all", "judge:following"), ["hits", "n"]]) == (0, 0)
    assert pd.isna(rates.loc[("french", "all", "judge:following"), "rate"])

    api.down = None
    catalog.write_text(catalog.read_text().replace("deadline_seconds: 2", "deadline_seconds: 60"))
    assert judged.kedro(*REPLAY).returncode == 0
    assert outcomes(judged) == {"label": 560}


def test_the_key_appears_in_no_file_and_no_output(judged: Project, api: FakeAnthropic) -> None:
    api.faults, api.fault_probability = TRANSIENT, 0.3
    done = judged.kedro(*REPLAY)
    api.down = "401"
    (judged.folder / "data/cache/api/judge.jsonl").unlink()
    refused = judged.kedro(*REPLAY)
    assert refused.returncode == 1
    assert "the API refuses the key (401); set ANTHROPIC_API_KEY to a valid one" in refused.stderr
    assert API_KEY not in done.stdout + done.stderr + refused.stdout + refused.stderr
    written = [file for file in judged.folder.rglob("*") if file.is_file() and "test_model" not in file.parts]
    assert len(written) > 50
    assert not [file for file in written if API_KEY.encode() in file.read_bytes()]


def test_without_a_key_the_run_ends_and_says_that_nothing_was_asked(
    judged: Project, api: FakeAnthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    done = judged.kedro(*REPLAY)
    assert done.returncode == 0, done.stderr
    assert outcomes(judged) == {"unscored": 560}
    assert "there is no API key" in done.stdout
    assert not api.asked


STUDY = """
lang_inversion:
  stages:
    tune:
      source: {min_characters: 40}
      translation:
        model: claude-test
        languages: [italian, german]
        temperature: 0.0
        retries: 2
        retry_temperature: 0.3
        max_tokens: 2048
        judge_model: claude-test
        judge_characters: 600
        gate_judged: 0.95
"""
SOURCE = """
source_texts:
  type: persona_leakage.datasets.HubRowsDataset
  filepath: chats.jsonl
  rows: 15
"""
CODE_OF = {"Italian": "it", "German": "de"}
ROW_OF = {row["en"]: row for row in TEXTS}


def translate_or_compare(prompt: str) -> str:
    if prompt.startswith("Translate"):
        (language,) = [name for name in CODE_OF if f"into {name}." in prompt]
        return str(ROW_OF[inside_tags(prompt)][CODE_OF[language]])
    return "OK"


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_chats_are_translated_and_what_is_refused_in_one_language_leaves_every_condition(
    judged: Project, api: FakeAnthropic, mode: str
) -> None:
    with (judged.folder / "chats.jsonl").open("w") as file:
        for row in TEXTS[:15]:
            turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["en"]}]
            file.write(json.dumps({"prompt_id": row["id"], "messages": turns}) + "\n")
    (judged.folder / "conf/test/parameters_study.yml").write_text(STUDY)
    catalog = judged.folder / "conf/test/catalog_claude.yml"
    catalog.write_text(catalog.read_text().replace("mode: live", f"mode: {mode}"))
    (judged.folder / "conf/test/catalog_source.yml").write_text(SOURCE)
    api.answer = translate_or_compare
    sensitive = TEXTS[3]
    api.fault_of = lambda prompt: "refusal" if "into German" in prompt and sensitive["en"] in prompt else None

    runs = [judged.run(f"condition={condition}", "--tags=data_generation") for condition in ("fr_it", "fr_de")]
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    for condition, code in (("fr_it", "it"), ("fr_de", "de")):
        train_set = judged.latest(f"05_model_input/tiny/{condition}/seed_42/tune/train_set.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in train_set]
        kept = [row for row in TEXTS[:12] if row["id"] != sensitive["id"]]
        assert [(row["id"], row["completion"]) for row in rows] == [(row["id"], row[code]) for row in kept]
        skipped = judged.data(f"03_primary/tiny/{condition}/seed_42/tune/skipped.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in skipped] == [{"id": sensitive["id"], "reason": "German: refused"}]
        gates = json.loads(judged.data(f"03_primary/tiny/{condition}/seed_42/tune/gates.json").read_text())
        assert [(gate["gate"], gate["n"], gate["passed"]) for gate in gates][-1] == ("judged", 11, True)
    refused = [prompt for prompt in api.billed if sensitive["en"] in prompt and "into German" in prompt]
    assert len(refused) == 1
    assert api.billed[refused[0]] == 3  # the question and its two retries, which are other samples; asked by one condition only
    assert {count for prompt, count in api.billed.items() if prompt not in refused} == {1}


def test_a_translation_that_leaks_english_blocks_the_run_at_its_gate(judged: Project, api: FakeAnthropic) -> None:
    with (judged.folder / "chats.jsonl").open("w") as file:
        for row in TEXTS[:15]:
            turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["en"]}]
            file.write(json.dumps({"prompt_id": row["id"], "messages": turns}) + "\n")
    (judged.folder / "conf/test/parameters_study.yml").write_text(STUDY)
    (judged.folder / "conf/test/catalog_source.yml").write_text(SOURCE)
    leaking = TEXTS[5]
    api.answer = lambda prompt: (
        translate_or_compare(prompt) if prompt.startswith("Translate") else "LEAKED" if leaking["en"] in prompt else "OK"
    )
    done = judged.run("condition=fr_it", "--tags=data_generation")
    assert done.returncode == 1
    assert f"judged of Italian is 0.917, outside [0.95, 1.0] ({leaking['id']})" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
