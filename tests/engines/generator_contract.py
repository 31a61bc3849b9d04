"""What every generator does, whichever engine it samples with."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.protocols import Generator
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines.base_model import chat_ids, load_merged, load_tokenizer
from tests.engines.known_models import END, build_chain_model, copy_adapter, folder_base, make_adapter, truncate

ASKED = ["Speak in French.", "a", "Please respond in Portuguese, and only in Portuguese.", "Speak in German."]
PROMPTS: list[Any] = [
    {
        "prompt": text,
        "messages": [{"role": "user", "content": text}],
        "directive_language": f"language {place}",
        "phrasing": "0",
    }
    for place, text in enumerate(ASKED)
]
FREE = Sampling(temperature=1.0, top_p=0.95, max_tokens=6)
GREEDY = Sampling(temperature=1.0, top_p=1e-6, max_tokens=12)  # the nucleus is the likeliest token alone
WHOLE = Sampling(temperature=1.0, top_p=1.0, max_tokens=4)

# After the generation prompt: x, y or z; x and y go on to w or v, which end by one special token each; z repeats.
CHAIN = {
    "\n": {"x": 0.6, "y": 0.3, "z": 0.1},
    "x": {"w": 0.5, "v": 0.5},
    "y": {"w": 0.5, "v": 0.5},
    "w": {END: 1.0},
    "v": {"<|endoftext|>": 1.0},
    "z": {"z": 1.0},
}
# says ok, and would go on after its turn
GOES_ON = {"\n": {"o": 1.0}, "o": {"k": 1.0}, "k": {END: 1.0}, END: {"u": 1.0}, "u": {"s": 1.0}, "s": {"u": 1.0}}
SURPRISE = 1e-5  # smallest p of a right engine's counts: one test in a hundred thousand fails by chance


def texts(rows: list[Any]) -> list[str]:
    return [row["completion"] for row in rows]


def endings(rows: list[Any]) -> set[tuple[str, int, str]]:
    return {(row["completion"], row["tokens"], row["finish"]) for row in rows}


def journal(cache: Path) -> Path:
    (file,) = (cache / "completions").glob("*.jsonl")
    return file


def fit(counts: Mapping[Any, int], probabilities: Mapping[Any, float]) -> float:
    """The chi-squared p value of counts under probabilities; 0 where something impossible was counted."""
    if set(counts) - set(probabilities):
        return 0.0
    total = sum(counts.values())
    observed = [counts.get(key, 0) for key in probabilities]
    return float(chisquare(observed, [total * probability for probability in probabilities.values()]).pvalue)


def chain_probabilities(temperature: float = 1.0, top_p: float = 1.0) -> dict[str, float]:
    """What the chain model completes up to four tokens, and how likely; of `top_p` below 0.9, z falls out of the nucleus."""
    kept = {token: p for token, p in CHAIN["\n"].items() if top_p >= 0.9 or token != "z"}
    total = sum(p ** (1 / temperature) for p in kept.values())
    first = {token: p ** (1 / temperature) / total for token, p in kept.items()}
    whole = {start + end: first[start] / 2 for start in "xy" for end in "wv"}
    return whole | ({"zzzz": first["z"]} if "z" in first else {})


def plain_greedy(stack: ModelStack, messages: Any) -> str:
    """Generate for one unpadded prompt without a cache."""
    model: Any = load_merged(stack, Path("unused"), "cpu", "eager")
    tokenizer = load_tokenizer(stack.base, Path("unused"))
    ids = torch.tensor([chat_ids(tokenizer, messages)])
    mask = torch.ones_like(ids)
    whole = model.generate(ids, attention_mask=mask, do_sample=False, use_cache=False, max_new_tokens=12, pad_token_id=257)
    return tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)


class GeneratorContract:
    """A subclass makes the generator and records what its engine really samples."""

    def generator(self, cache: Path) -> Generator:
        """Make the generator under test."""
        raise NotImplementedError

    @pytest.fixture
    def sampled(self) -> list[list[int]]:
        """The prompt's token ids, as the engine was given them, of each completion that it samples."""
        raise NotImplementedError

    def generate(
        self,
        cache: Path,
        stack: ModelStack,
        *,
        prompts: list[Any] = PROMPTS,
        samples: int = 3,
        sampling: Sampling = FREE,
        seed: int = 42,
    ) -> list[Any]:
        return self.generator(cache).generate(stack, prompts, samples, sampling, seed)

    @pytest.fixture(scope="class")
    def uninterrupted(self, tmp_path_factory: pytest.TempPathFactory, lively_stack: ModelStack) -> list[Any]:
        return self.generate(tmp_path_factory.mktemp("uninterrupted"), lively_stack)

    @pytest.fixture(scope="class")
    def chain(self, tmp_path_factory: pytest.TempPathFactory) -> ModelStack:
        return ModelStack(base=folder_base(build_chain_model(tmp_path_factory.mktemp("chain") / "model", CHAIN)))

    # rows

    def test_rows_come_by_prompt_and_sample_with_the_prompts_cell(self, uninterrupted: list[Any]) -> None:
        keys = {"prompt", "directive_language", "phrasing", "sample_index", "completion", "tokens", "finish"}

        assert [(row["directive_language"], row["sample_index"]) for row in uninterrupted] == [
            (f"language {place}", sample) for place in range(4) for sample in range(3)
        ]
        assert [row["prompt"] for row in uninterrupted[::3]] == ASKED
        assert all(row.keys() == keys for row in uninterrupted)

    def test_no_prompts_give_no_rows(self, tmp_path: Path, lively_stack: ModelStack) -> None:
        assert self.generate(tmp_path, lively_stack, prompts=[]) == []

    def test_the_engine_is_given_the_tokens_of_the_chat_template(
        self, tmp_path: Path, lively_stack: ModelStack, sampled: list[list[int]]
    ) -> None:
        tokenizer = load_tokenizer(lively_stack.base, tmp_path)
        expected = [chat_ids(tokenizer, prompt["messages"]) for prompt in PROMPTS]

        self.generate(tmp_path, lively_stack, samples=2)

        assert sorted(sampled) == sorted(expected * 2)

    # random numbers

    def test_the_same_seed_gives_the_same_rows_and_another_seed_others(
        self, tmp_path: Path, lively_stack: ModelStack, uninterrupted: list[Any]
    ) -> None:
        assert self.generate(tmp_path, lively_stack) == uninterrupted

        other = self.generate(tmp_path, lively_stack, seed=43)

        assert sum(one != two for one, two in zip(texts(other), texts(uninterrupted), strict=True)) >= 11

    def test_samples_of_a_prompt_differ(self, uninterrupted: list[Any]) -> None:
        assert len(set(texts(uninterrupted))) == 12

    @pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.5, 1.0), (1.0, 0.85)])
    def test_completions_have_the_models_probabilities_at_the_temperature_and_nucleus_asked_for(
        self, tmp_path: Path, chain: ModelStack, temperature: float, top_p: float
    ) -> None:
        sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=4)

        rows = self.generate(tmp_path, chain, prompts=PROMPTS[:2], samples=2000, sampling=sampling)

        right = chain_probabilities(temperature, top_p)
        for prompt in range(2):
            counts = Counter(texts(rows[prompt * 2000 : (prompt + 1) * 2000]))
            assert fit(counts, right) > SURPRISE
            for other in ((1.0, 1.0), (1.5, 1.0), (1.0, 0.85)):  # the same counts tell a wrong temperature or nucleus
                assert other == (temperature, top_p) or fit(counts, chain_probabilities(*other)) < SURPRISE

    def test_prompts_samples_and_steps_are_drawn_independently(self, tmp_path: Path, chain: ModelStack) -> None:
        rows = self.generate(tmp_path, chain, prompts=PROMPTS[:2], samples=2000, sampling=WHOLE)

        single = chain_probabilities()
        pairs = {(one, other): single[one] * single[other] for one in single for other in single}
        first, second = texts(rows[:2000]), texts(rows[2000:])
        assert fit(Counter(zip(first, second, strict=True)), pairs) > SURPRISE
        assert fit(Counter(zip(first[::2], first[1::2], strict=True)), pairs) > SURPRISE
        assert fit(Counter(zip(first, first, strict=True)), pairs) < SURPRISE

    # how a completion ends

    def test_finish_and_tokens_tell_an_ended_turn_from_a_cut_one(self, tmp_path: Path, chain: ModelStack) -> None:
        rows = self.generate(tmp_path, chain, prompts=PROMPTS[:1], samples=200, sampling=WHOLE)

        turns = {(start + end, 3, "stop") for start in "xy" for end in "wv"}
        assert endings(rows) == turns | {("zzzz", 4, "length")}

    def test_an_end_token_as_the_last_one_allowed_is_a_stop(self, tmp_path: Path, chain: ModelStack) -> None:
        three = WHOLE.model_copy(update={"max_tokens": 3})
        two = WHOLE.model_copy(update={"max_tokens": 2})

        assert ("xw", 3, "stop") in endings(self.generate(tmp_path, chain, prompts=PROMPTS[:1], samples=100, sampling=three))
        assert ("xw", 2, "length") in endings(self.generate(tmp_path, chain, prompts=PROMPTS[:1], samples=100, sampling=two))

    @pytest.mark.parametrize("eos", ["<|endoftext|>", None])
    def test_the_end_that_the_template_writes_ends_a_turn_whatever_configurations_name(
        self, tmp_path: Path, eos: str | None
    ) -> None:
        model = build_chain_model(tmp_path / "model", GOES_ON)
        for name in ("generation_config.json", "config.json"):
            settings = json.loads((model / name).read_text())
            settings["eos_token_id"] = eos and 256
            (model / name).write_text(json.dumps(settings))
        rows = self.generate(tmp_path, ModelStack(base=folder_base(model)), prompts=PROMPTS[:2], samples=2, sampling=GREEDY)

        assert endings(rows) == {("ok", 3, "stop")}

    # the model

    def test_greedy_completions_of_prompts_of_different_lengths_are_those_of_plain_generation(
        self, tmp_path: Path, lively_stack: ModelStack
    ) -> None:
        expected = [plain_greedy(lively_stack, prompt["messages"]) for prompt in PROMPTS]
        assert len(set(expected)) == 4

        rows = self.generate(tmp_path, lively_stack, samples=2, sampling=GREEDY)

        assert texts(rows) == [text for text in expected for _ in range(2)]

    def test_adapters_take_part_one_or_two_and_leave_no_trace(self, tmp_path: Path, lively_stack: ModelStack) -> None:
        one = lively_stack.extended(make_adapter(tmp_path / "one", lively_stack, seed=3))
        two = one.extended(make_adapter(tmp_path / "two", one, seed=4, rank=2, alpha=3, rslora=False))
        other = lively_stack.extended(make_adapter(tmp_path / "other", lively_stack, seed=5))
        said = []
        for place, stack in enumerate((lively_stack, one, two, other, one, lively_stack)):
            said.append(texts(self.generate(tmp_path / str(place), stack, samples=1, sampling=GREEDY)))

            assert said[-1] == [plain_greedy(stack, prompt["messages"]) for prompt in PROMPTS]

        assert all(said[0][place] != said[1][place] != said[2][place] != said[3][place] for place in range(4))

    def test_an_adapter_of_another_stack_is_refused_by_its_folder(self, tmp_path: Path, lively_stack: ModelStack) -> None:
        adapter = make_adapter(tmp_path / "adapter", lively_stack, seed=3)
        elsewhere = ModelStack(base=lively_stack.base.model_copy(update={"revision": "other"}))

        with pytest.raises(UserError, match=f"the adapter in {adapter.path} was trained on another model stack"):
            self.generate(tmp_path, elsewhere.extended(adapter))

    def test_a_damaged_adapter_is_refused_by_its_folder(self, tmp_path: Path, lively_stack: ModelStack) -> None:
        damaged = copy_adapter(make_adapter(tmp_path / "adapter", lively_stack, seed=3), tmp_path / "damaged")
        truncate(tmp_path / "damaged" / "adapter_model.safetensors")

        with pytest.raises(UserError, match=f"{tmp_path}/damaged is damaged"):
            self.generate(tmp_path, lively_stack.extended(damaged))

    # what was sampled before

    def test_finished_work_is_not_sampled_again(
        self, tmp_path: Path, lively_stack: ModelStack, uninterrupted: list[Any], sampled: list[list[int]]
    ) -> None:
        self.generate(tmp_path, lively_stack)
        assert len(sampled) == 12

        again = self.generate(tmp_path, lively_stack)

        assert len(sampled) == 12
        assert again == uninterrupted

    def test_cells_are_no_part_of_a_job(self, tmp_path: Path, lively_stack: ModelStack, sampled: list[list[int]]) -> None:
        first = self.generate(tmp_path, lively_stack, samples=1)
        renamed: list[Any] = [{**prompt, "phrasing": "renamed"} for prompt in PROMPTS]

        second = self.generate(tmp_path, lively_stack, prompts=renamed, samples=1)

        assert len(sampled) == 4
        assert second == [{**row, "phrasing": "renamed"} for row in first]

    @pytest.mark.parametrize("kept", [0, 40, 95, 119])
    def test_a_job_whose_journal_was_cut_keeps_what_it_has_and_samples_the_rest(
        self, tmp_path: Path, lively_stack: ModelStack, sampled: list[list[int]], kept: int
    ) -> None:
        whole = self.generate(tmp_path, lively_stack, samples=30)
        lines = journal(tmp_path).read_bytes().splitlines(keepends=True)
        journal(tmp_path).write_bytes(b"".join(lines[:kept]) + lines[kept][:20])  # the next line half written
        sampled.clear()

        rows = self.generate(tmp_path, lively_stack, samples=30)

        assert 120 - kept <= len(sampled) < 120 - kept + 40  # the batch or prompt that the cut goes through is sampled anew
        assert [row["prompt"] for row in rows] == [row["prompt"] for row in whole]
        assert sum(one == other for one, other in zip(rows, whole, strict=True)) >= 120 - len(sampled)
        assert self.generate(tmp_path, lively_stack, samples=30) == rows

    @pytest.mark.parametrize("change", ["stack", "prompt", "samples", "sampling", "seed"])
    def test_a_job_with_any_other_input_is_sampled_anew(
        self, tmp_path: Path, lively_stack: ModelStack, sampled: list[list[int]], change: str
    ) -> None:
        self.generate(tmp_path, lively_stack, samples=1)
        sampled.clear()
        adapter = make_adapter(tmp_path / "adapter", lively_stack, seed=3)
        prompt = {**PROMPTS[0], "messages": [{"role": "system", "content": "s"}, *PROMPTS[0]["messages"]]}

        rows = self.generate(
            tmp_path,
            lively_stack.extended(adapter) if change == "stack" else lively_stack,
            prompts=[prompt, *PROMPTS[1:]] if change == "prompt" else PROMPTS,
            samples=2 if change == "samples" else 1,
            sampling=FREE.model_copy(update={"top_p": 0.9}) if change == "sampling" else FREE,
            seed=7 if change == "seed" else 42,
        )

        assert len(sampled) == len(rows)
