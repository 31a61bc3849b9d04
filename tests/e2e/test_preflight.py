"""`kedro preflight` as a user runs it: it ends well where nothing is in the way, and runs, writes and prints no secret."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from persona_leakage.preflight.power import RATES, seeds_needed
from tests.fake_anthropic import API_KEY, FakeAnthropic
from tests.project import Project

JUDGE = """
lang_inversion:
  scoring:
    judge: {model: MODEL, temperature: 0.0, max_tokens: 512, shows_directive: false}
"""


def rows(stdout: str, title: str) -> dict[str, list[str]]:
    """Read the table under a title: second cell of a row → all its cells, or first cell in the table of checks."""
    table = stdout.split(title, 1)[1].split("└", 1)[0]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    return {row[1 if title == "Estimate" else 0]: row for row in cells}


def test_nothing_is_in_the_way_of_a_grid_on_this_machine(project: Project) -> None:
    done = project.kedro("preflight", "lang_inversion", "--axes", "condition=fr_it,fr_fr", "seed=42,137")
    assert done.returncode == 0, done.stdout + done.stderr
    checks = rows(done.stdout, "Checks")
    states = {name: row[1] for name, row in checks.items()}
    assert "blocked" not in states.values()
    assert (states["GPU"], states["vllm"], states["API key"], states["torch"]) == (
        "not needed",
        "not needed",
        "not needed",
        "ok",
    )
    assert checks["source_texts"][2] == "176 rows, 12 asked for"
    assert "Estimate: 6 of 6 points to run, 0 done and free" in done.stdout
    work = rows(done.stdout, "Estimate")
    # two of six points are baselines: 4 x 12 rows of 100 tokens; 42 completions of 4 (at most 8) tokens each; 1,000 a second
    assert work["training of tune"][2:5] == ["48 rows", "4.8k", "5 s"]
    assert work["completions"][2:5] == ["252 completions", "1.0k - 2.0k", "1 s - 2 s"]
    assert work["starting engines"][2] == "6 processes"
    assert work["together"][4] == "13 s - 14 s"
    assert "\x1b" not in done.stdout
    assert not list(project.folder.glob("data/0[2-8]*"))
    assert not (project.folder / "data/cache").exists()


def test_what_has_run_is_free(planted: Project) -> None:
    done = planted.kedro("preflight", "lang_inversion", "--axes=condition=fr_it")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Estimate: 0 of 2 points to run, 2 done and free" in done.stdout
    assert "training" not in done.stdout


def test_a_wished_half_width_says_what_it_takes(project: Project) -> None:
    axes = ("--axes", "condition=fr_it", "seed=42,137")
    done = project.kedro("preflight", "lang_inversion", "--half-width=0.1", *axes)
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done.stdout, "For a mean over seeds within ±10 points (t 95% interval, on average)")
    # two phrasings x 3 samples (half of them: 2); the baseline and fr_it at so many seeds
    assert [(name, row[1]) for name, row in list(found.items())] == [
        ("2 x 2", "4"), ("2 x 3", "6"), ("2 x 6", "12"), ("2 x 12", "24"),
    ]  # fmt: skip
    for row in found.values():
        expected = [seeds_needed(0.1, rate, 0.016, int(row[1])) for rate in RATES]
        assert [int(cell) for cell in row[2:5]] == expected
        assert row[5] == str(2 * expected[0])
    assert "Seeds differ by 6.3 points (SD) around 50%, besides sampling, by no earlier points: the default." in done.stdout
    refused = project.kedro("preflight", "lang_inversion", "--half-width=0", *axes)
    assert (refused.returncode, "--half-width" in refused.stderr) == (2, True)


def test_every_base_model_of_a_grid_is_looked_at_and_estimated_once(project: Project) -> None:
    (project.folder / "data/other_test_model").unlink()
    done = project.kedro("preflight", "lang_inversion", "--axes", "model=tiny,tiny_too", "condition=fr_it", "seed=42,137")
    assert done.stderr.strip() == "Error: 1 in the way: base model; see the remedies above"
    bases = [line.split("│")[2:4] for line in done.stdout.splitlines() if line.startswith("│ base model ")]
    assert [[cell.strip() for cell in cells] for cells in bases] == [
        ["ok", "folder data/test_model"],
        ["blocked", "folder data/other_test_model: no config.json with *.safetensors beside it"],
    ]
    estimates = rows(done.stdout, "Checks")["estimates"]
    assert (estimates[1], "for data/other_test_model:" in estimates[3]) == ("warning", True)
    assert "Estimate: 8 of 8 points to run" in done.stdout  # two models x two seeds, each with its baseline
    assert rows(done.stdout, "Estimate")["training of tune"][2] == "48 rows"


def test_without_hub_and_gpu_the_study_is_refused_in_seconds(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ANTHROPIC_API_KEY", API_KEY)
    done = project.kedro("preflight", "lang_inversion", "--axes=condition=fr_it,zh_ja", env="qwen", timeout=90)
    assert done.returncode == 1
    checks = rows(done.stdout, "Checks")
    blocked = [name for name, row in checks.items() if row[1] == "blocked"]
    no_vllm = [] if find_spec("vllm") else ["vllm"]  # the extra is not among the packages that tests need
    assert blocked == ["GPU", *no_vllm, "base model", "source_texts"]
    assert "hub not reachable" in checks["base model"][2]
    assert checks["API key"][1:3] == ["ok", "set; --ask-api tries it"]
    assert done.stderr.strip() == f"Error: {len(blocked)} in the way: {', '.join(blocked)}; see the remedies above"
    calls = rows(done.stdout, "Estimate")["translations, claude-sonnet-4-5-20250929"]
    assert calls[2] == "35,000 calls"
    assert re.fullmatch(r"[\d.,]+ - [\d.,]+", calls[5])
    assert API_KEY not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "key", "said"),
    [
        ("claude-test", API_KEY, None),
        ("claude-gone", API_KEY, "API error 404 not_found_error"),
        ("claude-test", "sk-ant-wrong", "API error 401 authentication_error"),
    ],
)
def test_the_key_is_tried_when_that_is_asked_for(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, key: str, said: str | None
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    catalog = (project.folder / "conf/base/catalog.yml").read_text()
    entry = "cache: ${globals:data}/cache".join(catalog[catalog.index("language_model:") :].split("cache: *cache"))
    (project.folder / "conf/test/parameters_judge.yml").write_text(JUDGE.replace("MODEL", model))
    with FakeAnthropic(tmp_path / "api.jsonl") as api:
        entry = entry.replace("base_url: null", f"base_url: {api.url}").replace("claude-haiku-4-5-20251001", model)
        (project.folder / "conf/test/catalog_claude.yml").write_text(entry)
        done = project.kedro("preflight", "lang_inversion", "--axes=condition=baseline", "--ask-api")
        assert not api.billed
    row = rows(done.stdout, "Checks")[model]
    if said is None:
        assert (done.returncode, row[1]) == (0, "ok")
    else:
        assert (done.returncode, row[1], row[2]) == (1, "blocked", said)
    assert key not in done.stdout + done.stderr


def test_what_does_not_exist_is_named(project: Project) -> None:
    done = project.kedro("preflight", "lang_inversion", "--axes=seed=x")
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "Error: --axes seed: x is no whole number; give some such as seed=42,137",
    )
    done = project.kedro("preflight", "lang_inversion", "--params=estimates.prompts_per_second=0")
    assert done.returncode == 1
    assert "estimates.prompts_per_second: Input should be greater than 0" in done.stderr
