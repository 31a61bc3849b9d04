import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines import vllm_generator, vllm_nucleus
from persona_leakage.engines.base_model import load_merged
from persona_leakage.engines.vllm_generator import VllmGenerator
from persona_leakage.engines.vllm_nucleus import DRAWS, sample, sample_in_torch, use_nucleus

CLOSE = 1e-6  # float32's rounding of a cumulative mass


def uniforms(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, DRAWS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def nucleus(logits: torch.Tensor, top_p: float, slack: float = 0.0) -> dict[int, float]:
    """Sort everything in float64; of equal logits the smaller id comes first. Tokens with their probabilities."""
    mass, tokens = logits.double().softmax(0).sort(descending=True, stable=True)
    kept = mass.cumsum(0) - mass < top_p + slack
    return dict(zip(tokens[kept].tolist(), (mass[kept] / mass[kept].sum()).tolist(), strict=True))


def shapes() -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(1)
    normal = torch.randn(6, 1200, generator=numbers)
    return {
        "flat": torch.zeros(700),
        "nearly flat": 0.01 * normal[0],
        "spread": 2 * normal[1],
        "peaked": 6 * normal[2],
        "one token": torch.tensor([0.0, 50.0, 0.0]),
        "ties in bfloat16": (3 * normal[3]).bfloat16(),
        "half": (3 * normal[4]).half(),
        "forbidden": torch.where(normal[5] > 0, 2 * normal[5], -torch.inf),
        "vocabulary of one": torch.zeros(1),
        "two": torch.tensor([1.0, 2.0]),
    }


@pytest.mark.parametrize("top_p", [1e-6, 0.05, 0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("shape", shapes())
def test_all_of_the_nucleus_is_drawn_in_proportion_and_nothing_else(shape: str, top_p: float) -> None:
    logits, rows = shapes()[shape], 2000

    drawn = sample(logits.expand(rows, -1), torch.full((rows,), top_p), uniforms(rows))

    inner, outer = nucleus(logits, top_p, -CLOSE), nucleus(logits, top_p, CLOSE)
    counts = np.bincount(drawn, minlength=len(logits))
    assert set(drawn.tolist()) <= set(outer)
    expected = {token: share * rows for token, share in nucleus(logits, top_p).items()}
    assert all(counts[token] for token, count in expected.items() if token in inner and count > 30)
    common = [token for token, count in expected.items() if count >= 10]
    seen, wanted = [int(counts[token]) for token in common], [expected[token] for token in common]
    if rows - sum(wanted) > 1:
        seen, wanted = [*seen, rows - sum(seen)], [*wanted, rows - sum(wanted)]
    assert len(seen) < 2 or chisquare(seen, np.array(wanted) * sum(seen) / sum(wanted)).pvalue > 1e-4


def test_frequencies_over_many_draws_are_those_of_the_renormalised_nucleus() -> None:
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log().expand(200_000, -1)

    counts = np.bincount(sample(logits, torch.full((200_000,), 0.9), uniforms(200_000)), minlength=4)

    assert counts[2] == 0
    assert chisquare(counts[[0, 1, 3]], 200_000 * np.array([0.15, 0.5, 0.3]) / 0.95).pvalue > 1e-4
    assert chisquare(counts[[0, 1, 3]], 200_000 * np.array([0.16, 0.49, 0.3]) / 0.95).pvalue < 1e-4


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.4, {1}), (0.5, {1}), (0.50001, {1, 3}), (0.75, {1, 3}), (0.75001, {0, 1, 3}), (1.0, {0, 1, 2, 3})]
)
def test_a_mass_that_reaches_top_p_exactly_is_enough_and_of_equal_logits_the_smaller_id_is_first(
    top_p: float, kept: set[int]
) -> None:
    logits = torch.tensor([0.125, 0.5, 0.125, 0.25]).log2() * float(np.log(2))  # the smaller of the two eighths is token 0

    drawn = sample(logits.expand(5000, -1), torch.full((5000,), top_p), uniforms(5000))

    assert set(drawn.tolist()) == kept


def test_rows_of_a_batch_have_their_own_top_p_and_are_drawn_as_they_would_be_alone() -> None:
    logits = torch.randn(40, 500, generator=torch.Generator().manual_seed(2)) * torch.linspace(0, 8, 40)[:, None]
    top_p, numbers = torch.linspace(0.02, 1, 40), uniforms(40)

    together = sample(logits, top_p, numbers)

    alone = [sample(logits[[row]], top_p[[row]], numbers[[row]]).item() for row in range(40)]
    assert together.tolist() == alone
    for row, p, token in zip(logits, top_p.tolist(), alone, strict=True):
        assert token in nucleus(row, p, CLOSE)


def test_a_batch_may_be_empty() -> None:
    assert sample(torch.zeros(0, 5), torch.zeros(0), uniforms(0)).shape == (0,)


# its place in vLLM


class Runner:
    """As much of a worker of vLLM as the installation looks at."""

    def __init__(self, sampler: Any) -> None:
        self.device = torch.device("cpu")
        self.model_runner = SimpleNamespace(sampler=sampler)

    def collective_rpc(self, method: Any) -> None:
        method(self)


class FirstSampler(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.forward = self.forward_native

    def forward_native(self, logits: Any, generators: Any, k: Any, p: Any) -> Any:
        return "vLLM's own", None

    def forward_cuda(self, logits: Any, generators: Any, k: Any, p: Any) -> Any:
        return "FlashInfer", None


def test_vllms_first_runner_samples_with_it_where_only_top_p_is_asked() -> None:
    own = FirstSampler()
    use_nucleus(Runner(SimpleNamespace(topk_topp_sampler=own)))
    logits, p = torch.tensor([[0.0, 9.0]]), torch.tensor([0.5])

    assert own(logits, {}, None, p)[0].tolist() == [1]
    for others in [({}, None, None), ({}, torch.tensor([1]), p), ({0: torch.Generator()}, None, p)]:
        assert own(logits, *others)[0] == "vLLM's own"


def second_runner(monkeypatch: pytest.MonkeyPatch, **members: Any) -> Any:
    class Sampler:
        use_flashinfer = False

    for name, content in {
        "vllm_second": {"flashinfer_sample": None, "apply_top_k_top_p": lambda logits, k, p: logits + k, **members},
        "vllm.v1.sample.ops.topk_topp_sampler": {"random_sample": lambda probabilities, generators: probabilities.argmax(1)},
    }.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    Sampler.__module__ = "vllm_second"
    return Sampler()


def test_vllms_second_runner_samples_with_it_in_flashinfers_place(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = second_runner(monkeypatch)

    use_nucleus(Runner(sampler))

    assert sampler.use_flashinfer
    replaced = sys.modules["vllm_second"].flashinfer_sample
    assert replaced(torch.tensor([[0.0, 9.0]]), None, torch.tensor([0.5])).tolist() == [1]
    assert replaced(torch.tensor([[0.0, 9.0]]), torch.tensor([[20.0, 0.0]]), torch.tensor([0.5])).tolist() == [0]


def test_flashinfer_stays_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    second, first = second_runner(monkeypatch), FirstSampler()
    second.use_flashinfer = True
    first.forward = first.forward_cuda

    use_nucleus(Runner(second))
    use_nucleus(Runner(SimpleNamespace(topk_topp_sampler=first)))

    assert sys.modules["vllm_second"].flashinfer_sample is None
    assert first(torch.zeros(1, 2), {}, None, torch.tensor([0.5])) == ("FlashInfer", None)


@pytest.mark.parametrize("lacks", ["flashinfer_sample", "apply_top_k_top_p", "use_flashinfer", "sampler", "kernel"])
def test_a_vllm_without_the_place_keeps_its_own_sampler_and_says_so_once(
    lacks: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sampler = second_runner(monkeypatch)
    runner = Runner(sampler)
    if lacks in ("flashinfer_sample", "apply_top_k_top_p"):
        del sys.modules["vllm_second"].__dict__[lacks]
    elif lacks == "use_flashinfer":
        del type(sampler).use_flashinfer
    elif lacks == "sampler":
        del runner.model_runner.sampler
    else:
        runner.device = torch.device("cuda")
        monkeypatch.setattr(vllm_nucleus, "sample", lambda logits, top_p, numbers: top_p.long() + 3)
        check = vllm_nucleus._check_kernel
        monkeypatch.setattr(vllm_nucleus, "_check_kernel", lambda device: check(torch.device("cpu")))

    with caplog.at_level(logging.WARNING):
        use_nucleus(runner)

    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "vLLM keeps its own sampler, which is slow for a large vocabulary and top_p below 1"
    ]
    assert not getattr(sampler, "use_flashinfer", False)


# with triton and the real vLLM, on the CPU


INTERPRETED = """
import sys, torch
from persona_leakage.engines.nucleus_kernel import sample_on_gpu
torch.save([sample_on_gpu(*given) for given in torch.load(sys.argv[1])], sys.argv[2])
"""


@pytest.mark.vllm
def test_the_gpus_kernel_draws_what_torch_draws(tmp_path: Path) -> None:
    top_p = torch.tensor([1e-6, 0.05, 0.5, 0.8, 0.95, 1.0])
    cases = [(logits.expand(6, -1), top_p, uniforms(6, seed=3)) for logits in shapes().values()]
    for vocabulary in (2047, 2048, 2049, 9000):  # a block has 2048
        logits = torch.randn(vocabulary, 16, generator=torch.Generator().manual_seed(5)).T  # not contiguous
        numbers = uniforms(16, seed=4)
        numbers[:, 0] = torch.linspace(0, 0.9999, 16, dtype=torch.float64)  # at 1 rounding decides
        cases += [(logits, torch.full((16,), top_p), numbers) for top_p in (0.3, 0.95)]
    torch.save(cases, tmp_path / "given")

    # triton interprets in a process that knew so when it imported triton
    command = [sys.executable, "-c", INTERPRETED, str(tmp_path / "given"), str(tmp_path / "drawn")]
    subprocess.run(command, check=True, env={**os.environ, "TRITON_INTERPRET": "1"})

    for given, drawn in zip(cases, torch.load(tmp_path / "drawn"), strict=True):
        assert drawn.tolist() == sample_in_torch(*given).tolist()


@pytest.mark.vllm
def test_the_second_runner_of_the_installed_vllm_has_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.worker.gpu.sample import sampler as module

    monkeypatch.setattr(module, "flashinfer_sample", module.flashinfer_sample)  # to be put back
    # no runner of this kind starts without a GPU, so the sampler is one without state
    sampler = object.__new__(module.Sampler)
    sampler.use_flashinfer = sampler.use_xpu_sampler = False
    sampler.logprobs_mode = "raw_logprobs"
    sampler.needs_logits_processing = np.zeros(2000, dtype=bool)
    sampler.sampling_states = SimpleNamespace(
        get_top_k_top_p=lambda *_: (None, torch.full((2000,), 0.5)),
        any_greedy=lambda _: False,
        any_explicit_seed=lambda _: False,
    )
    use_nucleus(Runner(sampler))
    logits, unused, rows = torch.tensor([0.3, 0.4, 0.2, 0.1]).log().expand(2000, -1), torch.zeros(2000), np.arange(2000)

    drawn, _ = sampler.sample(logits, unused, unused, rows, unused, unused, unused, rows)

    assert chisquare(np.bincount(drawn), 2000 * np.array([3 / 7, 4 / 7])).pvalue > 1e-4


@pytest.mark.vllm
def test_vllm_samples_with_it_below_top_p_one_and_stays_in_the_nucleus(
    tmp_path: Path, lively_stack: ModelStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.v1.engine.llm_engine import LLMEngine

    monkeypatch.setattr(vllm_generator._LiveEngine, "engines", {})
    calls: list[int] = []
    seen: list[tuple[list[int], list[int]]] = []
    step = LLMEngine.step

    def counting(logits: torch.Tensor, top_p: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        calls.append(len(logits))
        return sample(logits, top_p, numbers)

    def noting(engine: Any) -> Any:
        outputs = step(engine)
        seen.extend((list(out.prompt_token_ids), list(one.token_ids)) for out in outputs for one in out.outputs)
        return outputs

    monkeypatch.setattr(vllm_nucleus, "sample", counting)
    monkeypatch.setattr(LLMEngine, "step", noting)
    generator = VllmGenerator(cache=tmp_path, device="auto", longest=256, memory_share=0.01)
    prompts: list[Any] = [{"prompt": text, "messages": [{"role": "user", "content": text}]} for text in ("a", "bb", "ccc")]

    def outside(top_p: float, of: float) -> float:
        """Sample at one top_p; the share of tokens that lie outside the nucleus of another."""
        seen.clear()
        generator.generate(lively_stack, prompts, 20, Sampling(temperature=1.0, top_p=top_p, max_tokens=8), 1)
        left = []
        for prompt, completion in seen:
            rows = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            left += [token not in nucleus(row, of, 1e-3) for row, token in zip(rows, completion, strict=True)]
        assert len(left) > 200
        return sum(left) / len(left)

    with torch.inference_mode():
        model = load_merged(lively_stack, tmp_path, "cpu", "sdpa")
        assert outside(0.6, of=0.6) == 0
        drawn = sum(len(completion) for _, completion in seen)
        assert sum(calls) >= drawn
        calls.clear()
        assert outside(1.0, of=0.6) > 0.2
        assert calls == []
