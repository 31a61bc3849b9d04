"""Sample completions with vLLM. Needs the extra `vllm`; nothing else of the project imports it."""

import importlib.util
import json
import logging
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import Adapter, BaseModel, ModelStack
from persona_leakage.domain.packages import installed_version, package_requirements
from persona_leakage.domain.protocols import POINTS_AT_ONCE
from persona_leakage.domain.rows import CompletionRow, PromptRow
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines.adapter_folder import CONFIG, at_hand, require_trained_on
from persona_leakage.engines.base_model import chat_ids, load_merged, load_tokenizer, pick_device, weights_folder
from persona_leakage.engines.completion_rows import completion_entries, completion_rows, entry_key, sampling_progress
from persona_leakage.engines.journal import Journal, open_journal
from persona_leakage.engines.turns import fit_turns
from persona_leakage.engines.vllm_nucleus import use_nucleus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# a batch is padded to the next of these, so they lie close together
_GRAPH_SIZES = (
    *(1, 2, 4, 8, 16),
    *range(32, 128, 16),
    *range(128, 256, 32),
    *range(256, 1024, 64),
    *range(1024, 2048, 128),
    *range(2048, 4097, 512),
)
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM makes room for one of these
_FLUSH_ROWS = 1000


@dataclass
class _LiveEngine:
    """A started engine, the model stack whose weights it holds now, and the numbers it knows adapters by.

    Starting an engine takes about a minute, so a process keeps one for a base model and a generator's options, and puts the
    weights of the next stack into it.
    """

    engines: ClassVar[dict[str, "_LiveEngine"]] = {}  # of the whole process

    llm: Any
    stack: str
    adapters: dict[str, int] = field(default_factory=dict)

    def put(self, stack: ModelStack, cache: Path, device: str) -> None:
        """Put the merged weights of a stack into the engine, unless it has them."""
        if self.stack == stack.fingerprint:
            return
        weights = load_merged(stack, cache, device, "sdpa").state_dict()
        self.stack = ""  # should loading break in the middle, no stack is in there
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights.items())})
        self.llm.reset_prefix_cache()
        self.stack = stack.fingerprint

    def serve(self, adapter: Adapter, folder: Path) -> Any:
        """Have the engine read an adapter from its folder, and return what a request names it by.

        Raises:
            UserError: the engine refuses the adapter.
        """
        from vllm.lora.request import LoRARequest

        number = self.adapters.setdefault(adapter.fingerprint, len(self.adapters) + 1)
        request = LoRARequest(adapter.fingerprint, number, str(folder))
        try:
            self.llm.llm_engine.add_lora(request)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"vLLM does not serve the adapter in {adapter.path} ({_one_line(error)}); set the generator's option adapters "
                "to merged"
            ) from error
        return request


@dataclass(frozen=True, kw_only=True)
class VllmGenerator:
    """Generates with one live engine a process and journals what is finished, so that an interrupted job goes on there.

    The chat template is applied by us, as in the transformers engine. Random numbers come from one generator for the whole
    engine, seeded from the job and from how far it has come: a job repeats on the same machine and versions, and a job that
    was interrupted ends with other, equally distributed completions.

    Attributes:
        cache: where finished completions are kept.
        device: `auto` or `cuda`; vLLM's CPU build, where that is what is installed, computes on the CPU.
        longest: tokens of prompt and completion that the engine makes room for.
        memory_share: of the GPU's memory for the key-value cache of all processes that share it.
        adapters: `merged` puts a stack's adapters into the weights, which samples fastest. `lora` does so with all but the
            last and serves that beside them: the weights stay as they are where only the last one changes, but every
            token costs more.
        largest_rank: of the adapters that the engine makes room for, with `lora`.
    """

    cache: Path
    device: str
    longest: int
    memory_share: float
    adapters: str = "merged"
    largest_rank: int = 32

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UserError: `adapters` is neither, or no engine makes room for such a rank.
        """
        if self.adapters not in ("merged", "lora"):
            raise UserError(f"the generator's option adapters is '{self.adapters}'; choose merged or lora")
        if not 1 <= self.largest_rank <= _LORA_RANKS[-1]:
            raise UserError(
                f"the generator's option largest_rank is {self.largest_rank}; vLLM serves ranks from 1 to {_LORA_RANKS[-1]}"
            )

    def generate(
        self, stack: ModelStack, prompts: Sequence[PromptRow], samples: int, sampling: Sampling, seed: int
    ) -> list[CompletionRow]:
        """Sample every prompt `samples` times; see `domain.protocols.Generator`.

        Raises:
            UserError: the chat template does not fit, vLLM is missing or does not fit to torch, there is no GPU or not enough
                of its memory, a prompt is too long, the disk is full, or an adapter is damaged, of another stack or of a larger
                rank than the engine's.
        """
        chats = [row["messages"] for row in prompts]
        turns = fit_turns(stack.base, self.cache, chats)
        job = fingerprint("vllm", self.adapters, stack.fingerprint, chats, samples, sampling, seed, *turns.unforeseen)
        with open_journal(self.cache / "completions" / f"{job}.jsonl") as journal:
            missing = [index for index in range(len(prompts)) if entry_key(index, samples - 1) not in journal.entries]
            if missing:
                tokenizer = load_tokenizer(stack.base, self.cache)
                ids = {index: chat_ids(tokenizer, chats[index]) for index in missing}
                longest = max(map(len, ids.values())) + sampling.max_tokens
                if longest > self.longest:
                    raise UserError(
                        f"a prompt with its completion may take {longest} tokens and the engine is made for {self.longest}; "
                        "raise the generator's option longest"
                    )
                with self._split(stack) as (below, beside), self._engine(stack) as live:
                    live.put(below, self.cache, pick_device(self.device))
                    adapter = live.serve(*beside) if beside else None
                    _seed(fingerprint(job, len(missing)))
                    finished = _finished(live.llm, ids, samples, sampling, turns.ends, adapter)
                    _keep(finished, tokenizer, turns.ends, journal, len(ids) * samples)
            else:
                logger.info("All %d completions of job %s were sampled before", len(prompts) * samples, job)
            return completion_rows(prompts, samples, journal.entries)

    @contextmanager
    def _split(self, stack: ModelStack) -> Iterator[tuple[ModelStack, tuple[Adapter, Path] | None]]:
        """Split a stack into what goes into the weights, and the adapter that is served beside them with its folder, if one is.

        The folder is there for as long as the block runs: the engine reads it when the adapter is added, and again with any
        batch that names an adapter which has given way to another.
        """
        if self.adapters == "merged" or not stack.adapters:
            yield stack, None
            return
        below, last = ModelStack(base=stack.base, adapters=stack.adapters[:-1]), stack.adapters[-1]
        require_trained_on(last, below)
        with at_hand(last.path) as folder:
            rank = json.loads((folder / CONFIG).read_text())["r"]
            if rank > self.largest_rank:
                raise UserError(
                    f"the adapter in {last.path} has rank {rank} and the engine makes room for {self.largest_rank}; "
                    "raise the generator's option largest_rank"
                )
            yield below, (last, folder)

    @contextmanager
    def _engine(self, stack: ModelStack) -> Iterator[_LiveEngine]:
        """Start the engine or take the live one; one that breaks is not used again, for requests are left in it."""
        key = fingerprint(stack.base, self.longest, self.memory_share, self.adapters, self.largest_rank)
        if key not in _LiveEngine.engines:
            _LiveEngine.engines[key] = _LiveEngine(self._start(stack.base), ModelStack(base=stack.base).fingerprint)
        import torch

        try:
            yield _LiveEngine.engines[key]
        except BaseException as error:
            del _LiveEngine.engines[key]
            if isinstance(error, torch.OutOfMemoryError):
                raise UserError(
                    "the GPU ran out of memory while sampling; what is finished is kept; lower the generator's option "
                    "memory_share and start the same command again"
                ) from error
            raise

    def _start(self, base: BaseModel) -> Any:
        # in this process, so that weights are handed over without a copy through a pipe
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it warns of what is meant here
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # threads tied to cores slow down all else in the process
        llm_class = _import_vllm()
        import torch
        from transformers import AutoConfig

        folder = weights_folder(base, self.cache)
        revision = base.revision if base.source == "hub" else None
        limits = self._limits(AutoConfig.from_pretrained(folder, revision=revision), 2 if base.dtype == "bfloat16" else 4)
        said = f"the engine (longest {self.longest}, memory_share {self.memory_share})"
        try:
            llm = llm_class(
                model=folder,
                revision=revision,
                tokenizer_revision=revision,
                dtype=base.dtype,
                enable_prefix_caching=True,
                disable_log_stats=True,
                **limits,
            )
        except torch.OutOfMemoryError as error:
            raise UserError(f"the GPU has no room for {said}; lower the generator's option memory_share") from error
        except (ValueError, RuntimeError) as error:
            raise UserError(f"vLLM does not start {said} for {base.name}: {_one_line(error)}") from error
        use_nucleus(llm)
        return llm

    def _limits(self, config: Any, number_bytes: int) -> dict[str, Any]:
        """Size the engine: its cache from the memory, its concurrency from the cache, its CUDA graphs from the concurrency."""
        import torch

        on_gpu = torch.cuda.is_available()
        heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * heads * number_bytes  # keys and values
        cache = int(_memory(on_gpu) * self.memory_share / int(os.environ.get(POINTS_AT_ONCE, "1")))
        # completions end at different lengths: half the longest is what a running one takes on average
        room = max(1, cache // (a_token * self.longest // 2))
        concurrency = max(size for size in _GRAPH_SIZES if size <= (room if on_gpu else min(room, 256)))
        limits = {
            "max_model_len": min(self.longest, config.max_position_embeddings),
            "kv_cache_memory_bytes": cache,
            "max_num_seqs": concurrency,
        }
        if self.adapters == "lora":  # a job has one adapter, so a batch needs room for one; the next takes its place
            rank = min(rank for rank in _LORA_RANKS if rank >= self.largest_rank)
            limits |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
        if not on_gpu:
            return {**limits, "enforce_eager": True}  # compiling for a CPU takes minutes
        return {
            **limits,
            "gpu_memory_utilization": 0.05,  # not used beside kv_cache_memory_bytes, but checked against what is free
            "max_num_batched_tokens": max(16384, concurrency),
            "compilation_config": {"cudagraph_capture_sizes": [size for size in _GRAPH_SIZES if size <= concurrency]},
        }


def _memory(on_gpu: bool) -> int:
    """Tell the bytes of the GPU's memory, or of the machine's."""
    import torch

    if on_gpu:
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _import_vllm() -> Any:
    """Import vLLM's engine.

    Raises:
        UserError: vLLM is missing, was built for another torch or for a GPU that is not there, or fails to load.
    """
    install = "run: pip install --editable '.[vllm]'"
    if importlib.util.find_spec("vllm") is None:
        raise UserError(f"the generator is vLLM, which is not installed; {install}")
    _require_matching_torch(install)
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except (ImportError, AttributeError, OSError, RuntimeError) as error:  # what missing symbols and operators end in
        raise UserError(f"vLLM is installed and cannot be loaded ({_one_line(error)}); {install}") from error
    if not current_platform.device_type:
        raise UserError(
            "vLLM is installed for a GPU and none is visible; take the transformers_generator of conf/embedded/catalog.yml, "
            "or a machine with a GPU"
        )
    return LLM


def _require_matching_torch(install: str) -> None:
    """Refuse a torch that vLLM was not compiled for: what it then fails with says nothing of it."""
    torch = str(installed_version("torch"))
    for package in ("vllm", "vllm-cpu"):
        needed = package_requirements(package).get("torch")
        if needed is not None and not needed.contains(torch, prereleases=True):
            version = installed_version(package)
            raise UserError(f"{package} {version} needs torch{needed} and torch {torch} is installed; {install}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _seed(text: str) -> None:
    """Seed every generator that vLLM may draw from: torch's, or numpy's for the seeds of single requests."""
    import numpy as np
    import torch

    number = int(text, 16)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number % 2**63)


def _finished(
    llm: Any, ids: dict[int, list[int]], samples: int, sampling: Sampling, ends: frozenset[int], adapter: Any
) -> Iterator[tuple[int, Any]]:
    """Hand all prompts to the engine and yield (prompt, its outputs) as they finish."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        n=samples,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        stop_token_ids=sorted(ends),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    engine = llm.llm_engine
    for index, tokens in ids.items():
        engine.add_request(str(index), {"prompt_token_ids": tokens}, params, lora_request=adapter)
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                yield int(output.request_id), output.outputs


def _keep(
    finished: Iterator[tuple[int, Any]],
    tokenizer: "PreTrainedTokenizerBase",
    ends: frozenset[int],
    journal: Journal,
    total: int,
) -> None:
    """Journal completions as they come; also those that came before the engine broke."""
    waiting: dict[str, dict[str, Any]] = {}

    def flush() -> None:
        entries = dict(waiting)
        waiting.clear()  # before writing: what the disk took half of must not be written again
        if entries:
            journal.append(entries)

    with sampling_progress(total) as advance:
        try:
            for index, outputs in finished:
                sampled, ended = zip(*((one.token_ids, one.finish_reason == "stop") for one in outputs), strict=True)
                for sample, entry in enumerate(completion_entries(tokenizer, sampled, ended, ends)):
                    waiting[entry_key(index, sample)] = entry
                if len(waiting) >= _FLUSH_ROWS:
                    flush()
                advance(len(outputs))
        finally:
            flush()
