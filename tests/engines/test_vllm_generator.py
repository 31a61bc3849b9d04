"""The vLLM engine's own logic, on a scripted engine; the real one is not installed with the project."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import BaseModel, ModelStack
from persona_leakage.domain.protocols import POINTS_AT_ONCE
from persona_leakage.domain.rows import CompletionRow, PromptRow
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines import vllm_generator
from persona_leakage.engines.vllm_generator import VllmGenerator

SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_tokens=5)
GIB = 2**30


class ScriptedEngine:
    """Finishes its requests last come, first served, and says each prompt's length and sample number in letters."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.waiting: list[tuple[str, dict[str, Any], Any]] = []
        self.breaks_after = breaks_after
        self.asked: list[str] = []

    def add_request(self, name: str, prompt: dict[str, Any], params: Any) -> None:
        self.waiting.append((name, prompt, params))
        self.asked.append(name)

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def step(self) -> list[Any]:
        if self.breaks_after == 0:
            raise KeyboardInterrupt
        if self.breaks_after is not None:
            self.breaks_after -= 1
        name, prompt, params = self.waiting.pop()
        letters = [[len(prompt["prompt_token_ids"]) % 20, 30 + sample] for sample in range(params.n)]
        outputs = [
            SimpleNamespace(token_ids=ids, finish_reason="length" if sample else "stop") for sample, ids in enumerate(letters)
        ]
        return [SimpleNamespace(finished=True, request_id=name, outputs=outputs)]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tiny_base: BaseModel) -> ScriptedEngine:
    fake = ModuleType("vllm")
    fake.SamplingParams = lambda **given: SimpleNamespace(**given)  # type: ignore[attr-defined]
    kinds = ModuleType("vllm.sampling_params")
    kinds.RequestOutputKind = SimpleNamespace(FINAL_ONLY="final")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", kinds)
    monkeypatch.setattr(vllm_generator.importlib.util, "find_spec", lambda name: object())
    scripted = ScriptedEngine()
    stack = ModelStack(base=tiny_base)
    live = vllm_generator._LiveEngine(SimpleNamespace(llm_engine=scripted), stack.fingerprint)
    monkeypatch.setattr(vllm_generator._LiveEngine, "engines", {fingerprint(tiny_base): live})
    return scripted


def asked(*texts: str) -> list[PromptRow]:
    return [{"prompt": text, "messages": [{"role": "user", "content": text}], "persona": "p"} for text in texts]


def generate(
    cache: Path, base: BaseModel, prompts: list[PromptRow], *, longest: int = 512, seed: int = 1
) -> list[CompletionRow]:
    generator = VllmGenerator(cache=cache, device="auto", longest=longest, memory_share=0.5)
    return generator.generate(ModelStack(base=base), prompts, 2, SAMPLING, seed)


def test_rows_come_by_prompt_and_sample_whatever_finishes_first(
    tmp_path: Path, tiny_base: BaseModel, engine: ScriptedEngine
) -> None:
    rows = generate(tmp_path, tiny_base, asked("a", "bb", "ccc"))

    assert [(row["prompt"], row["sample_index"]) for row in rows] == [
        ("a", 0), ("a", 1), ("bb", 0), ("bb", 1), ("ccc", 0), ("ccc", 1),
    ]  # fmt: skip
    assert [row["finish"] for row in rows] == ["stop", "length"] * 3
    assert {row["tokens"] for row in rows} == {2}
    assert len({row["completion"] for row in rows}) == 6
    assert all("messages" not in row and row["persona"] == "p" for row in rows)  # type: ignore[typeddict-item]


def test_a_finished_job_asks_the_engine_nothing(tmp_path: Path, tiny_base: BaseModel, engine: ScriptedEngine) -> None:
    first = generate(tmp_path, tiny_base, asked("a", "bb"))
    engine.asked.clear()

    assert generate(tmp_path, tiny_base, asked("a", "bb")) == first
    assert engine.asked == []
    generate(tmp_path, tiny_base, asked("a", "bb"), seed=2)
    assert engine.asked == ["0", "1"]


def test_an_interrupted_job_asks_only_for_what_is_missing(
    tmp_path: Path, tiny_base: BaseModel, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_generator, "_FLUSH_ROWS", 1)
    engine.breaks_after = 2
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, tiny_base, asked("a", "bb", "ccc"))
    engine.waiting.clear()
    engine.asked.clear()
    engine.breaks_after = None

    rows = generate(tmp_path, tiny_base, asked("a", "bb", "ccc"))

    assert engine.asked == ["0"]
    assert len(rows) == 6
    (journal,) = (tmp_path / "completions").glob("*.jsonl")
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_prompt_that_does_not_fit_is_told_before_anything_starts(
    tmp_path: Path, tiny_base: BaseModel, engine: ScriptedEngine
) -> None:
    with pytest.raises(
        UserError, match=r"may take .* tokens and the engine is made for 20; raise the generator's option longest"
    ):
        generate(tmp_path, tiny_base, asked("a"), longest=20)


def test_without_the_extra_the_error_names_it(tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_generator.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(vllm_generator._LiveEngine, "engines", {})
    with pytest.raises(UserError, match=r"not installed; run: pip install --editable '\.\[vllm\]'"):
        generate(tmp_path, tiny_base, asked("a"))


def test_seeds_reach_every_generator_that_the_engine_may_draw_from() -> None:
    import numpy as np
    import torch

    drawn = []
    for name in ("00000000000000aa", "00000000000000aa", "00000000000000bb"):
        vllm_generator._seed(name)
        drawn.append((vllm_generator.random.random(), np.random.rand(), float(torch.rand(1))))

    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


@pytest.mark.parametrize(("points", "concurrency"), [(1, 4096), (4, 2048), (64, 128)])
def test_the_engine_is_sized_by_its_share_of_the_memory(points: int, concurrency: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(POINTS_AT_ONCE, str(points))
    small = SimpleNamespace(num_hidden_layers=30, num_key_value_heads=3, hidden_size=576, num_attention_heads=9, head_dim=64)
    generator = VllmGenerator(cache=Path(), device="auto", longest=1024, memory_share=0.7)

    limits = generator._limits(small, 140 * GIB)

    a_token = 2 * 30 * 3 * 64 * 2
    assert limits["kv_cache_memory_bytes"] == int(140 * GIB * 0.7 / points)
    assert limits["max_num_seqs"] == concurrency
    assert limits["max_num_seqs"] * a_token * 512 <= limits["kv_cache_memory_bytes"]
    assert limits["compilation_config"]["cudagraph_capture_sizes"][-1] == concurrency
    assert limits["max_num_batched_tokens"] >= concurrency
