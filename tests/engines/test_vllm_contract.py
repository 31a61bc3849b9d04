"""The real vLLM: the contract of all generators, and its agreement with the transformers engine.

Needs an environment with vLLM; `make test-vllm` builds one with its CPU build.
"""

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from scipy.stats import chi2_contingency

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.protocols import Generator
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines.base_model import chat_ids, load_merged, load_tokenizer, weights_folder
from persona_leakage.engines.peft_trainer import PeftTrainer
from persona_leakage.engines.transformers_generator import TransformersGenerator
from persona_leakage.engines.vllm_generator import VllmGenerator
from persona_leakage.machine import fast_dtype
from persona_leakage.pipelines.language_detection import detect_codes
from tests.engines.conftest import SMOLLM2
from tests.engines.generator_contract import CHAIN, GREEDY, PROMPTS, SURPRISE, WHOLE, GeneratorContract, fit, journal, texts
from tests.engines.known_models import build_chain_model, folder_base, make_adapter, recipe

pytestmark = pytest.mark.vllm

FORMAT = fast_dtype("cpu")
# two steps of bfloat16 between 16 and 32, where the likeliest logits lie; in float32 a tie is a rounding
TIE = {"bfloat16": 0.25, "float32": 1e-3}[FORMAT]


class Sampled(NamedTuple):
    """A completion as the engine itself reports it: the ids it was given and those it drew."""

    prompt: list[int]
    completion: list[int]


@pytest.fixture(scope="module", autouse=True)
def vllm_installed() -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.fail("vLLM is not installed in this environment; run: make test-vllm", pytrace=False)


def watch(monkeypatch: pytest.MonkeyPatch, note: Callable[[Sampled], None]) -> None:
    """Have every completion noted that the engine finishes."""
    from vllm.v1.engine.llm_engine import LLMEngine

    step = LLMEngine.step

    def noting(engine: Any) -> Any:
        outputs = step(engine)
        for output in outputs:
            for one in output.outputs:
                note(Sampled(list(output.prompt_token_ids), list(one.token_ids)))
        return outputs

    monkeypatch.setattr(LLMEngine, "step", noting)


@pytest.fixture
def engine_output(monkeypatch: pytest.MonkeyPatch) -> list[Sampled]:
    seen: list[Sampled] = []
    watch(monkeypatch, seen.append)
    return seen


def asked(*texts: str) -> list[Any]:
    return [{"prompt": text, "messages": [{"role": "user", "content": text}]} for text in texts]


def vllm(cache: Path, adapters: str, **changes: Any) -> VllmGenerator:
    options = {"longest": 256, "memory_share": 0.01, "adapters": adapters, "largest_rank": 8, **changes}
    return VllmGenerator(cache=cache, device="auto", **options)


QUESTIONS = asked(
    "What is the capital of France?",
    "Name a colour.",
    "Write a sentence about the sea.",
    "Why is the sky blue?",
    "Speak in French.",
    "Please respond in German.",
    "Give me a recipe.",
    "Who are you?",
    "Count to five.",
    "Tell me about cats.",
    "What is two plus two?",
    "How do I sleep better?",
)
GREETING = "Buongiorno, mondo!"
SHORT = GREEDY.model_copy(update={"max_tokens": 24})


class OfVllm(GeneratorContract):
    adapters: str

    def generator(self, cache: Path) -> VllmGenerator:
        return vllm(cache, self.adapters)

    @pytest.fixture
    def sampled(self, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
        seen: list[list[int]] = []
        watch(monkeypatch, lambda one: seen.append(one.prompt))
        return seen


class TestMerged(OfVllm):
    adapters = "merged"


class TestLora(OfVllm):
    adapters = "lora"


# SmolLM2, in the format that this processor is fast in and that `dtype: auto` means, against the transformers engine


@pytest.fixture(scope="module")
def smollm2(smollm2_cache: Path) -> ModelStack:
    folder = weights_folder(SMOLLM2, smollm2_cache)
    return ModelStack(base=SMOLLM2.model_copy(update={"source": "folder", "name": folder, "dtype": FORMAT}))


@pytest.fixture(scope="module")
def greeting(smollm2: ModelStack, tmp_path_factory: pytest.TempPathFactory) -> ModelStack:
    """The base model with an adapter that has learned to answer everything in the same words."""
    rows: list[Any] = [
        {"id": str(place), "prompt": question["messages"], "completion": GREETING} for place, question in enumerate(QUESTIONS)
    ]
    settings = recipe(learning_rate=1e-3, epochs=4, lora={"rank": 8, "alpha": 16, "rslora": True})
    trainer = PeftTrainer(cache=tmp_path_factory.mktemp("trained"), device="cpu")
    return smollm2.extended(trainer.train(smollm2, rows, settings, 42)["final"].adapter)


def gaps(model: Any, sampled: Sampled) -> list[float]:
    """How far each token drawn lies below the likeliest, in logits of the transformers model after the same tokens."""
    ids = torch.tensor([sampled.prompt + sampled.completion])
    with torch.inference_mode():
        logits = model(ids).logits[0, len(sampled.prompt) - 1 : -1].float()
    drawn = logits.gather(1, torch.tensor(sampled.completion)[:, None])[:, 0]
    return (logits.amax(dim=1) - drawn).tolist()


def test_in_float32_greedy_completions_are_the_transformers_engines_token_for_token(
    tmp_path: Path, smollm2: ModelStack, engine_output: list[Sampled]
) -> None:
    stack = ModelStack(base=smollm2.base.model_copy(update={"dtype": "float32"}))
    other = TransformersGenerator(cache=tmp_path, device="cpu", batch_rows=len(QUESTIONS))

    said = vllm(tmp_path, "merged").generate(stack, QUESTIONS, 1, SHORT, 1)

    assert said == other.generate(stack, QUESTIONS, 1, SHORT, 1)
    model = load_merged(stack, tmp_path, "cpu", "sdpa")
    assert max(max(gaps(model, one)) for one in engine_output) == 0


@pytest.mark.parametrize("adapters", ["merged", "lora"])
def test_every_greedy_token_is_the_transformers_models_likeliest_or_ties_with_it(
    tmp_path: Path, smollm2: ModelStack, greeting: ModelStack, engine_output: list[Sampled], adapters: str
) -> None:
    models = {stack.fingerprint: load_merged(stack, tmp_path, "cpu", "sdpa") for stack in (smollm2, greeting)}
    tokenizer = load_tokenizer(smollm2.base, tmp_path)
    for turn, (stack, another) in enumerate([(smollm2, greeting), (greeting, smollm2), (smollm2, greeting)]):
        engine_output.clear()

        said = texts(vllm(tmp_path / str(turn), adapters).generate(stack, QUESTIONS, 1, SHORT, 1))

        assert sorted(one.prompt for one in engine_output) == sorted(chat_ids(tokenizer, q["messages"]) for q in QUESTIONS)
        lacking = [gap for one in engine_output for gap in gaps(models[stack.fingerprint], one)]
        tied = sum(gap > 0 for gap in lacking)
        print(f"{adapters}: {tied} of {len(lacking)} tokens are not the likeliest, by at most {max(lacking)} logits")
        assert max(lacking) <= TIE
        assert tied <= len(lacking) / 20
        assert min(max(gaps(models[another.fingerprint], one)) for one in engine_output) > TIE  # the other model is told
        assert (set(said) == {GREETING}) == (stack == greeting)


@pytest.fixture(scope="module")
def first_logits(smollm2: ModelStack) -> Any:
    ids = torch.tensor([chat_ids(load_tokenizer(smollm2.base, Path("unused")), QUESTIONS[0]["messages"])])
    with torch.inference_mode():
        return load_merged(smollm2, Path("unused"), "cpu", "sdpa")(ids).logits[0, -1].double()


def first_token_probabilities(logits: Any, sampling: Sampling) -> dict[int, float]:
    """Of the tokens in the nucleus, by sorting the whole vocabulary."""
    probabilities, tokens = (logits / sampling.temperature).softmax(0).sort(descending=True)
    size = int((probabilities.cumsum(0) - probabilities < sampling.top_p).sum())
    kept = probabilities[:size] / probabilities[:size].sum()
    return dict(zip(tokens[:size].tolist(), kept.tolist(), strict=True))


def lumped_fit(counts: Counter[int], probabilities: dict[int, float]) -> float:
    """As `fit`, with all tokens of which fewer than ten are expected counted as one."""
    common = {token: p for token, p in probabilities.items() if p * counts.total() >= 10}
    lumped = {token: counts[token] for token in common}
    rest, rare = counts.total() - sum(lumped.values()), 1 - sum(common.values())
    if rare * counts.total() < 1:
        return fit(lumped | ({"rest": rest} if rest else {}), common)
    return fit({**lumped, "rest": rest}, {**common, "rest": rare})


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_first_tokens_are_distributed_as_the_transformers_models_logits_say(
    tmp_path: Path, smollm2: ModelStack, engine_output: list[Sampled], temperature: float
) -> None:
    ids = torch.tensor([chat_ids(load_tokenizer(smollm2.base, tmp_path), QUESTIONS[0]["messages"])])
    with torch.inference_mode():
        logits = load_merged(smollm2, tmp_path, "cpu", "sdpa")(ids).logits[0, -1].double()
    settings = [Sampling(temperature=t, top_p=p, max_tokens=1) for t, p in ((1.0, 0.95), (1.3, 0.95), (1.0, 0.8))]
    sampling = next(one for one in settings if one.temperature == temperature)

    vllm(tmp_path, "merged").generate(smollm2, QUESTIONS[:1], 600, sampling, 1)

    counts = Counter(one.completion[0] for one in engine_output)
    fits = [lumped_fit(counts, first_token_probabilities(logits, other)) for other in settings]
    print(f"{sampling}: p {', '.join(f'{p:.2g}' for p in fits)}")
    assert [p > SURPRISE for p in fits] == [other == sampling for other in settings]


def test_languages_of_completions_are_distributed_as_the_transformers_engines(
    tmp_path: Path, smollm2: ModelStack, greeting: ModelStack
) -> None:
    sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=20)
    directives = asked("Speak in French.", "Speak in Spanish.", "Please respond in German.", "Please respond in Italian.")

    def languages(generator: Generator, stack: ModelStack) -> Counter[str]:
        return Counter(detect_codes(texts(generator.generate(stack, directives, 12, sampling, 1)), 5, 500, 0))

    def agreement(one: Counter[str], other: Counter[str]) -> float:
        common = [language for language in one | other if one[language] + other[language] >= 8]
        table = [
            [counts[name] for name in common] + [counts.total() - sum(counts[name] for name in common)]
            for counts in (one, other)
        ]
        return float(chi2_contingency([column for column in zip(*table, strict=True) if sum(column)]).pvalue)

    here = languages(TransformersGenerator(cache=tmp_path, device="cpu", batch_rows=100), smollm2)
    there = languages(vllm(tmp_path, "merged"), smollm2)
    elsewhere = languages(vllm(tmp_path, "merged"), greeting)
    print(f"transformers {here}, vLLM {there}, p {agreement(here, there):.2g}; with the adapter {elsewhere}")
    assert agreement(here, there) > SURPRISE
    assert agreement(here, elsewhere) < SURPRISE


# what breaks


def test_memory_that_runs_out_while_sampling_costs_nothing_that_had_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.v1.engine.llm_engine import LLMEngine

    step = LLMEngine.step
    finished: list[Any] = []

    def full(engine: Any) -> Any:
        if len(finished) >= 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        outputs = step(engine)
        finished.extend(outputs)
        return outputs

    stack = ModelStack(base=folder_base(build_chain_model(tmp_path / "model", CHAIN)))  # z goes on when the others have ended
    uneven = WHOLE.model_copy(update={"max_tokens": 30})
    prompts = asked(*"abcdefghijklmnopqrstuvwxyz")
    with monkeypatch.context() as patch:
        patch.setattr(LLMEngine, "step", full)
        with pytest.raises(UserError, match=r"^the GPU ran out of memory while sampling; what is finished is kept"):
            vllm(tmp_path, "merged").generate(stack, prompts, 2, uneven, 1)
    kept = dict(map(json.loads, journal(tmp_path).read_text().splitlines()))
    assert 4 <= len(kept) < 52

    rows = vllm(tmp_path, "merged").generate(stack, prompts, 2, uneven, 1)

    assert len(rows) == 52
    for key, entry in kept.items():
        prompt, sample = map(int, key.split("."))
        assert rows[2 * prompt + sample]["completion"] == entry["completion"]


def test_a_cache_larger_than_the_memory_is_told_in_one_line(tmp_path: Path, lively_stack: ModelStack) -> None:
    with pytest.raises(UserError, match=r"^vLLM does not start the engine \(longest 256, memory_share 100\) .*: [^\n]+$"):
        vllm(tmp_path, "merged", memory_share=100).generate(lively_stack, PROMPTS, 1, GREEDY, 1)


def test_an_adapter_of_a_larger_rank_or_another_kind_is_told_in_one_line(tmp_path: Path, lively_stack: ModelStack) -> None:
    large = lively_stack.extended(make_adapter(tmp_path / "large", lively_stack, seed=1, rank=16))
    with pytest.raises(UserError, match=r"/large has rank 16 and the engine makes room for 8; raise .* option largest_rank$"):
        vllm(tmp_path, "lora").generate(large, PROMPTS, 1, GREEDY, 1)

    decomposed = lively_stack.extended(make_adapter(tmp_path / "decomposed", lively_stack, seed=2))
    config = json.loads((tmp_path / "decomposed/adapter_config.json").read_text())
    (tmp_path / "decomposed/adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(
        UserError, match=r"^vLLM does not serve the adapter in .*/decomposed \([^\n]*DoRA[^\n]*\); set .* merged$"
    ):
        vllm(tmp_path, "lora").generate(decomposed, PROMPTS, 1, GREEDY, 1)
