"""The vLLM engine's own logic, on a scripted engine; the real one is not installed with the project."""

import importlib.metadata
import json
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from fsspec.core import url_to_fs

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, BaseModel, ModelStack
from persona_leakage.domain.protocols import POINTS_AT_ONCE
from persona_leakage.domain.rows import CompletionRow, PromptRow
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines import vllm_generator
from persona_leakage.engines.adapter_folder import CONFIG, WEIGHTS, read_adapter
from persona_leakage.engines.base_model import load_merged, load_tokenizer
from persona_leakage.engines.journal import Journal
from persona_leakage.engines.turns import read_turns
from persona_leakage.engines.vllm_generator import VllmGenerator
from tests.engines.known_models import make_adapter

SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_tokens=5)
GIB = 2**30


class ScriptedEngine:
    """Finishes its requests last come, first served, and says each prompt's length and sample number in letters."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, dict[str, Any], Any]] = []
        self.asked: list[str] = []
        self.named: list[Any] = []
        self.read: list[Any] = []
        self.weights: list[bytes] = []
        self.breaks_after: int | None = None
        self.breaks_with: BaseException = KeyboardInterrupt()
        self.refuses: Exception | None = None

    def add_request(self, name: str, prompt: dict[str, Any], params: Any, lora_request: Any) -> None:
        self.waiting.append((name, prompt, params))
        self.asked.append(name)
        self.named.append(lora_request)

    def add_lora(self, request: Any) -> None:
        if self.refuses:
            raise self.refuses
        self.read.append(request)
        self.load(request)

    def load(self, request: Any) -> None:
        """Read the adapter as vLLM may before any step: it holds one, and another may have taken its place."""
        folder = Path(request[2])
        assert (folder / CONFIG).is_file()
        self.weights.append((folder / WEIGHTS).read_bytes())

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def step(self) -> list[Any]:
        if self.breaks_after == 0:
            raise self.breaks_with
        if self.breaks_after is not None:
            self.breaks_after -= 1
        name, prompt, params = self.waiting.pop()
        if self.named[-1]:
            self.load(self.named[-1])
        letters = [[len(prompt["prompt_token_ids"]) % 20, 30 + sample] for sample in range(params.n)]
        outputs = [
            SimpleNamespace(token_ids=ids, finish_reason="length" if sample else "stop") for sample, ids in enumerate(letters)
        ]
        return [SimpleNamespace(finished=True, request_id=name, outputs=outputs)]


class Scripted:
    """What stands in for vLLM: the engines that were started, each with the weights that were put into it."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.engine = ScriptedEngine()
        self.put: list[dict[str, Any]] = []
        self.start_breaks_with: Exception | None = None

    def start(self, **options: Any) -> Any:
        if self.start_breaks_with:
            raise self.start_breaks_with
        self.started.append(options)
        self.engine = ScriptedEngine()
        return SimpleNamespace(llm_engine=self.engine, collective_rpc=self.rpc, reset_prefix_cache=lambda: None)

    def rpc(self, method: Any, kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None:  # what makes it sample from the nucleus
            return
        assert method == "reload_weights"
        self.put.append(dict(kwargs["weights_iterator"]))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """vLLM on a GPU, as far as the generator can see."""
    stage = Scripted()
    modules = {
        "vllm": {"LLM": stage.start, "SamplingParams": SimpleNamespace},
        "vllm.platforms": {"current_platform": SimpleNamespace(device_type="cuda")},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(FINAL_ONLY="final")},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lambda name, number, path: (name, number, path)},
    }
    for name, members in modules.items():
        fake = ModuleType(name)
        fake.__dict__.update(members)
        fake.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr(vllm_generator._LiveEngine, "engines", {})
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_USE_FLASHINFER_SAMPLER", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "")
    return stage


def asked(*texts: str) -> list[PromptRow]:
    return [{"prompt": text, "messages": [{"role": "user", "content": text}], "persona": "p"} for text in texts]


def generate(
    cache: Path, base: BaseModel | ModelStack, prompts: list[PromptRow], *, seed: int = 1, **options: Any
) -> list[CompletionRow]:
    stack = base if isinstance(base, ModelStack) else ModelStack(base=base)
    generator = VllmGenerator(cache=cache, device="auto", **{"longest": 512, "memory_share": 0.5, **options})
    return generator.generate(stack, prompts, 2, SAMPLING, seed)


def test_rows_come_by_prompt_and_sample_whatever_finishes_first(
    tmp_path: Path, tiny_base: BaseModel, scripted: Scripted
) -> None:
    rows = generate(tmp_path, tiny_base, asked("a", "bb", "ccc"))

    assert [(row["prompt"], row["sample_index"]) for row in rows] == [
        ("a", 0), ("a", 1), ("bb", 0), ("bb", 1), ("ccc", 0), ("ccc", 1),
    ]  # fmt: skip
    assert [row["finish"] for row in rows] == ["stop", "length"] * 3
    assert {row["tokens"] for row in rows} == {2}
    assert len({row["completion"] for row in rows}) == 6
    assert all("messages" not in row and row["persona"] == "p" for row in rows)  # type: ignore[typeddict-item]


def test_every_end_of_a_turn_stops_and_what_anything_else_has_ended_is_cut(
    tmp_path: Path, tiny_base: BaseModel, scripted: Scripted
) -> None:
    generate(tmp_path / "other", tiny_base, asked("z"))
    tokenizer, step, given = load_tokenizer(tiny_base, tmp_path), scripted.engine.step, []

    def say() -> list[Any]:
        given.append(scripted.engine.waiting[-1][2].stop_token_ids)
        (request,) = step()
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        request.outputs[0].token_ids, request.outputs[1].finish_reason = [30, end], "abort"
        return [request]

    scripted.engine.step = say  # type: ignore[method-assign]
    rows = generate(tmp_path, tiny_base, asked("a"))

    assert given == [sorted(read_turns(tiny_base, tmp_path).ends)]
    assert (rows[0]["completion"], rows[0]["tokens"], rows[0]["finish"]) == (tokenizer.decode([30]), 2, "stop")
    assert rows[1]["finish"] == "length"


def test_a_finished_job_asks_the_engine_nothing(tmp_path: Path, tiny_base: BaseModel, scripted: Scripted) -> None:
    first = generate(tmp_path, tiny_base, asked("a", "bb"))
    scripted.engine.asked.clear()

    assert generate(tmp_path, tiny_base, asked("a", "bb")) == first
    assert scripted.engine.asked == []
    generate(tmp_path, tiny_base, asked("a", "bb"), seed=2)
    assert scripted.engine.asked == ["0", "1"]


def test_one_engine_serves_every_stack_and_is_given_its_weights(
    tmp_path: Path, lively_stack: ModelStack, scripted: Scripted
) -> None:
    one = lively_stack.extended(make_adapter(tmp_path / "one", lively_stack, seed=1))
    two = one.extended(make_adapter(tmp_path / "two", one, seed=2))

    for stack in (lively_stack, one, one, two, lively_stack):
        generate(tmp_path / stack.fingerprint, stack, asked("a"), seed=len(scripted.put))

    assert len(scripted.started) == 1
    assert "enable_lora" not in scripted.started[0]
    assert scripted.engine.named == [None] * 5
    expected = [load_merged(stack, tmp_path, "cpu", "sdpa").state_dict() for stack in (one, two, lively_stack)]
    assert len(scripted.put) == 3
    for put, weights in zip(scripted.put, expected, strict=True):
        assert put.keys() == weights.keys()
        assert all((put[name] == weights[name]).all() for name in weights)


def test_with_lora_the_last_adapter_is_served_and_those_below_are_in_the_weights(
    tmp_path: Path, lively_stack: ModelStack, scripted: Scripted
) -> None:
    one = lively_stack.extended(make_adapter(tmp_path / "one", lively_stack, seed=1))
    other = lively_stack.extended(make_adapter(tmp_path / "other", lively_stack, seed=5))
    two = one.extended(make_adapter(tmp_path / "two", one, seed=2))
    for place, stack in enumerate((lively_stack, one, other, one)):
        generate(tmp_path / str(place), stack, asked("a"), adapters="lora", largest_rank=20)

    names = [("adapter-1", 1, f"{tmp_path}/one"), ("adapter-5", 2, f"{tmp_path}/other"), ("adapter-1", 1, f"{tmp_path}/one")]
    assert scripted.engine.named == [None, *names]
    assert scripted.engine.read == names
    assert scripted.put == []
    assert len(scripted.started) == 1
    assert {name: scripted.started[0][name] for name in ("enable_lora", "max_loras", "max_lora_rank")} == {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": 32,
    }

    generate(tmp_path / "two", two, asked("a"), adapters="lora", largest_rank=20)

    assert scripted.engine.named[-1] == ("adapter-2", 3, f"{tmp_path}/two")
    (put,) = scripted.put
    below = load_merged(one, tmp_path, "cpu", "sdpa").state_dict()
    assert all((put[name] == below[name]).all() for name in below)


def in_a_bucket(folder: Path) -> Adapter:
    """Move an adapter to where it can only be fetched from."""
    url = f"memory:/{folder}"
    filesystem, place = url_to_fs(url)
    filesystem.put(f"{folder}/", place, recursive=True)
    shutil.rmtree(folder)
    return read_adapter(url)


def test_with_lora_adapters_in_a_bucket_are_at_hand_until_their_last_completion(
    tmp_path: Path, lively_stack: ModelStack, scripted: Scripted
) -> None:
    made = [make_adapter(tmp_path / str(seed), lively_stack, seed=seed) for seed in (1, 2)]
    weights = [(Path(adapter.path) / WEIGHTS).read_bytes() for adapter in made]
    stacks = [lively_stack.extended(in_a_bucket(Path(adapter.path))) for adapter in made]

    for place, which in enumerate((0, 1, 0)):
        assert len(generate(tmp_path / f"cache {place}", stacks[which], asked("a", "bb"), adapters="lora")) == 4

    # when it is added, and before each of two steps
    assert scripted.engine.weights == [weights[which] for which in (0, 0, 0, 1, 1, 1, 0, 0, 0)]
    assert [number for _, number, _ in scripted.engine.read] == [1, 2, 1]
    assert not [folder for _, _, folder in scripted.engine.read if Path(folder).exists()]
    with pytest.raises(UserError, match=f"^the adapter in memory:/{tmp_path}/1 has rank 4 and the engine makes room for 2"):
        generate(tmp_path, stacks[0], asked("a"), adapters="lora", largest_rank=2)


# what breaks


@pytest.mark.parametrize("breaks_with", [KeyboardInterrupt(), RuntimeError("CUDA error"), torch.OutOfMemoryError("full")])
def test_what_had_finished_before_the_engine_broke_is_kept_and_a_new_engine_asked_for_the_rest(
    tmp_path: Path, tiny_base: BaseModel, scripted: Scripted, breaks_with: BaseException
) -> None:
    generate(tmp_path / "other", tiny_base, asked("z"))
    scripted.engine.breaks_after, scripted.engine.breaks_with = 2, breaks_with
    with pytest.raises((UserError, type(breaks_with))):
        generate(tmp_path, tiny_base, asked("a", "bb", "ccc"))
    (journal,) = (tmp_path / "completions").glob("*.jsonl")
    assert [json.loads(line)[0] for line in journal.read_text().splitlines()] == ["2.0", "2.1", "1.0", "1.1"]

    rows = generate(tmp_path, tiny_base, asked("a", "bb", "ccc"))

    assert len(scripted.started) == 2
    assert scripted.engine.asked == ["0"]
    assert [(row["prompt"], row["sample_index"]) for row in rows] == [(p, n) for p in ("a", "bb", "ccc") for n in (0, 1)]


def test_a_gpu_that_is_full_while_sampling_is_told_in_one_line(
    tmp_path: Path, tiny_base: BaseModel, scripted: Scripted
) -> None:
    generate(tmp_path / "other", tiny_base, asked("z"))
    scripted.engine.breaks_after, scripted.engine.breaks_with = 0, torch.OutOfMemoryError("Tried to allocate 2 GiB.\nSee")

    with pytest.raises(UserError, match=r"^the GPU ran out of memory while sampling; what is finished is kept; lower .*again$"):
        generate(tmp_path, tiny_base, asked("a"))


def test_a_disk_that_is_full_writes_nothing_twice(
    tmp_path: Path, tiny_base: BaseModel, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_generator, "_FLUSH_ROWS", 2)
    tries: list[list[str]] = []

    def refuse(journal: Journal, entries: dict[str, Any]) -> None:
        tries.append(list(entries))
        raise UserError("cannot write: no space")

    monkeypatch.setattr(Journal, "append", refuse)

    with pytest.raises(UserError, match="no space"):
        generate(tmp_path, tiny_base, asked("a", "bb"))
    assert tries == [["1.0", "1.1"]]


@pytest.mark.parametrize(
    ("breaks_with", "said"),
    [
        (
            torch.OutOfMemoryError("full"),
            r"^the GPU has no room for the engine \(longest 512, memory_share 0\.5\); lower .*share$",
        ),
        (ValueError("Free memory\n  is less"), r"^vLLM does not start the engine .* for .*: Free memory is less$"),
        (RuntimeError("no device"), r"^vLLM does not start the engine .* for .*: no device$"),
    ],
)
def test_an_engine_that_does_not_start_says_why_in_one_line(
    tmp_path: Path, tiny_base: BaseModel, scripted: Scripted, breaks_with: Exception, said: str
) -> None:
    scripted.start_breaks_with = breaks_with
    with pytest.raises(UserError, match=said):
        generate(tmp_path, tiny_base, asked("a"))

    scripted.start_breaks_with = None
    assert len(generate(tmp_path, tiny_base, asked("a"))) == 2


def test_a_prompt_that_does_not_fit_is_told_before_anything_starts(
    tmp_path: Path, tiny_base: BaseModel, scripted: Scripted
) -> None:
    with pytest.raises(
        UserError, match=r"may take .* tokens and the engine is made for 20; raise the generator's option longest"
    ):
        generate(tmp_path, tiny_base, asked("a"), longest=20)
    assert scripted.started == []


def test_an_adapter_of_a_larger_rank_than_the_engines_is_told_before_anything_starts(
    tmp_path: Path, lively_stack: ModelStack, scripted: Scripted
) -> None:
    stack = lively_stack.extended(make_adapter(tmp_path / "adapter", lively_stack, seed=1, rank=4))

    with pytest.raises(
        UserError, match=f"^the adapter in {tmp_path}/adapter has rank 4 and the engine makes room for 2; raise .*largest_rank$"
    ):
        generate(tmp_path, stack, asked("a"), adapters="lora", largest_rank=2)
    assert scripted.started == []
    assert len(generate(tmp_path, stack, asked("a"), adapters="lora", largest_rank=4)) == 2


@pytest.mark.parametrize("adapters", ["merged", "lora"])
def test_an_adapter_of_another_base_is_told_by_its_folder(
    tmp_path: Path, lively_stack: ModelStack, tiny_base: BaseModel, scripted: Scripted, adapters: str
) -> None:
    adapter = make_adapter(tmp_path / "adapter", lively_stack, seed=1)

    with pytest.raises(UserError, match=f"^the adapter in {tmp_path}/adapter was trained on another model stack"):
        generate(tmp_path, ModelStack(base=tiny_base, adapters=(adapter,)), asked("a"), adapters=adapters)
    assert scripted.put == []


def test_an_adapter_that_the_engine_refuses_is_told_by_its_folder(
    tmp_path: Path, lively_stack: ModelStack, scripted: Scripted
) -> None:
    generate(tmp_path / "other", lively_stack, asked("z"), adapters="lora")
    scripted.engine.refuses = ValueError("vLLM does not yet support\nDoRA.")
    stack = lively_stack.extended(make_adapter(tmp_path / "adapter", lively_stack, seed=1))

    with pytest.raises(
        UserError, match=r"adapter \(vLLM does not yet support DoRA\.\); set the generator's option adapters to merged$"
    ):
        generate(tmp_path, stack, asked("a"), adapters="lora")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"adapters": "both"}, "option adapters is 'both'; choose merged or lora"),
        ({"largest_rank": 1000}, "option largest_rank is 1000; vLLM serves ranks from 1 to 512"),
    ],
)
def test_options_that_no_engine_has_are_refused(option: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        VllmGenerator(cache=Path(), device="auto", longest=512, memory_share=0.5, **option)


# an installation that does not work


def test_without_the_extra_the_error_names_it(tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_generator.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(vllm_generator._LiveEngine, "engines", {})
    with pytest.raises(UserError, match=r"not installed; run: pip install --editable '\.\[vllm\]'"):
        generate(tmp_path, tiny_base, asked("a"))


def test_without_a_gpu_the_error_names_the_engine_that_needs_none(
    tmp_path: Path, tiny_base: BaseModel, scripted: Scripted
) -> None:
    sys.modules["vllm.platforms"].current_platform.device_type = ""  # what vLLM says of a machine that it was not built for

    with pytest.raises(UserError, match=r"^vLLM is installed for a GPU and none is visible; take the transformers_generator"):
        generate(tmp_path, tiny_base, asked("a"))


@pytest.mark.parametrize(
    ("needs", "installed", "refused"),
    [
        ("torch==2.13.0", "2.11.0+cu130", True),
        ("torch==2.13.0", "2.13.0+cu130", False),
        ('torch==2.13.0+cpu; platform_machine == "x86_64"', "2.13.0+cpu", False),
        ('torch==2.11.0; platform_machine == "none such"', "2.13.0", False),
        ('torch==2.11.0; extra == "old"', "2.13.0", False),
        ("torchaudio==2.11.0", "2.13.0", False),
    ],
)
def test_a_torch_that_vllm_was_not_built_for_is_told_before_vllm_is_imported(
    tmp_path: Path,
    tiny_base: BaseModel,
    scripted: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    needs: str,
    installed: str,
    refused: bool,
) -> None:
    version = importlib.metadata.version
    known = {"vllm": "0.32.0", "torch": installed}
    monkeypatch.setattr(vllm_generator.importlib.metadata, "requires", lambda package: ["numpy", needs])
    monkeypatch.setattr(vllm_generator.importlib.metadata, "version", lambda package: known.get(package) or version(package))
    if not refused:
        assert len(generate(tmp_path, tiny_base, asked("a"))) == 2
        return

    del sys.modules["vllm"].LLM  # type: ignore[attr-defined]
    with pytest.raises(
        UserError, match=r"^vllm 0\.32\.0 needs torch==2\.13\.0 and torch 2\.11\.0\+cu130 is installed; run: pip"
    ):
        generate(tmp_path, tiny_base, asked("a"))


# sizes


def test_seeds_reach_every_generator_that_the_engine_may_draw_from() -> None:
    import numpy as np

    drawn = []
    for name in ("00000000000000aa", "00000000000000aa", "00000000000000bb"):
        vllm_generator._seed(name)
        drawn.append((vllm_generator.random.random(), np.random.rand(), float(torch.rand(1))))

    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


SMALL = SimpleNamespace(
    num_hidden_layers=30,
    num_key_value_heads=3,
    hidden_size=576,
    num_attention_heads=9,
    head_dim=64,
    max_position_embeddings=8192,
)


@pytest.mark.parametrize(("points", "concurrency"), [(1, 4096), (4, 2048), (64, 128)])
def test_the_engine_is_sized_by_its_share_of_the_memory(points: int, concurrency: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(POINTS_AT_ONCE, str(points))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(vllm_generator, "_memory", lambda on_gpu: 140 * GIB)
    generator = VllmGenerator(cache=Path(), device="auto", longest=1024, memory_share=0.7)

    limits = generator._limits(SMALL, 2)

    a_token = 2 * 30 * 3 * 64 * 2
    assert limits["max_model_len"] == 1024
    assert limits["kv_cache_memory_bytes"] == int(140 * GIB * 0.7 / points)
    assert limits["max_num_seqs"] == concurrency
    assert limits["max_num_seqs"] * a_token * 512 <= limits["kv_cache_memory_bytes"]
    assert limits["compilation_config"]["cudagraph_capture_sizes"][-1] == concurrency
    assert limits["max_num_batched_tokens"] >= concurrency


def test_on_a_cpu_the_share_is_of_the_machines_memory_and_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(vllm_generator, "_memory", lambda on_gpu: GIB if on_gpu else 32 * GIB)

    limits = VllmGenerator(cache=Path(), device="auto", longest=1024, memory_share=0.25)._limits(SMALL, 4)

    assert limits == {"max_model_len": 1024, "kv_cache_memory_bytes": 8 * GIB, "max_num_seqs": 256, "enforce_eager": True}
