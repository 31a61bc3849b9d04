"""Sample completions with vLLM. Needs the extra `vllm`; nothing else of the project imports it."""

import importlib.util
import logging
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.protocols import POINTS_AT_ONCE
from persona_leakage.domain.rows import CompletionRow, PromptRow
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines.base_model import chat_ids, load_merged, load_tokenizer, pick_device, weights_folder
from persona_leakage.engines.completion_rows import completion_rows, entry_key, sampling_progress
from persona_leakage.engines.journal import Journal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_GRAPH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
_FLUSH_ROWS = 1000


class _LiveEngine:
    """A started engine and the model stack whose weights it holds now.

    Starting an engine takes about a minute, so a process keeps one a base model and puts the merged weights of the next stack
    into it.
    """

    engines: dict[str, "_LiveEngine"] = {}  # noqa: RUF012 - one for the whole process

    def __init__(self, llm: Any, stack: str) -> None:
        self.llm = llm
        self.stack = stack


class VllmGenerator:
    """Generates with one live engine a process and journals what is finished, so that an interrupted job goes on there.

    The chat template is applied by us, as in the transformers engine, and the stack is merged. Random numbers come from one
    generator for the whole engine, seeded from the job and from how far it has come: a job repeats on the same machine and
    versions, and a job that was interrupted ends with other, equally distributed completions.
    """

    def __init__(self, *, cache: Path, device: str, longest: int, memory_share: float) -> None:
        """Set the limits of the engine.

        Args:
            cache: where finished completions are kept.
            device: `auto` or `cuda`; vLLM's CPU build, where that is what is installed, computes on the CPU.
            longest: tokens of prompt and completion that the engine makes room for.
            memory_share: of the GPU's memory for the key-value cache of all processes that share it.
        """
        self._cache = cache
        self._device = device
        self._longest = longest
        self._memory_share = memory_share

    def generate(
        self, stack: ModelStack, prompts: Sequence[PromptRow], samples: int, sampling: Sampling, seed: int
    ) -> list[CompletionRow]:
        """Sample every prompt `samples` times; see `domain.protocols.Generator`.

        Raises:
            UserError: vLLM is missing, an adapter is damaged, a prompt is too long, the GPU is out of memory, or the disk full.
        """
        chats = [row["messages"] for row in prompts]
        job = fingerprint("vllm", stack.fingerprint, chats, samples, sampling, seed)
        with Journal(self._cache / "completions" / f"{job}.jsonl") as journal:
            missing = [index for index in range(len(prompts)) if entry_key(index, samples - 1) not in journal.entries]
            if missing:
                tokenizer = load_tokenizer(stack.base, self._cache)
                ids = {index: chat_ids(tokenizer, chats[index]) for index in missing}
                longest = max(map(len, ids.values())) + sampling.max_tokens
                if longest > self._longest:
                    raise UserError(
                        f"a prompt with its completion may take {longest} tokens and the engine is made for {self._longest}; "
                        "raise the generator's option longest"
                    )
                llm = self._engine_with(stack)
                _seed(fingerprint(job, len(missing)))
                self._fill(journal, llm, tokenizer, ids, samples, sampling)
            else:
                logger.info("All %d completions of job %s were sampled before", len(prompts) * samples, job)
            return completion_rows(prompts, samples, journal.entries)

    def _fill(
        self,
        journal: Journal,
        llm: Any,
        tokenizer: "PreTrainedTokenizerBase",
        ids: dict[int, list[int]],
        samples: int,
        sampling: Sampling,
    ) -> None:
        with sampling_progress() as bar:
            task = bar.add_task("", total=len(ids) * samples)
            waiting: dict[str, dict[str, Any]] = {}
            for index, outputs in _finished(llm, ids, samples, sampling):
                texts = tokenizer.batch_decode([output.token_ids for output in outputs], skip_special_tokens=True)
                for sample, (output, text) in enumerate(zip(outputs, texts, strict=True)):
                    finish = "length" if output.finish_reason == "length" else "stop"
                    waiting[entry_key(index, sample)] = {"completion": text, "tokens": len(output.token_ids), "finish": finish}
                if len(waiting) >= _FLUSH_ROWS:
                    journal.append(waiting)
                    waiting = {}
                bar.advance(task, samples)
            if waiting:
                journal.append(waiting)

    def _engine_with(self, stack: ModelStack) -> Any:
        """Start the engine, or put the stack's weights into the live one."""
        if importlib.util.find_spec("vllm") is None:
            raise UserError("the generator is vLLM, which is not installed; run: pip install --editable '.[vllm]'")
        base = fingerprint(stack.base)
        live = _LiveEngine.engines.get(base)
        if live is None:
            live = _LiveEngine(self._start(stack), ModelStack(base=stack.base).fingerprint)
            _LiveEngine.engines[base] = live
        if live.stack != stack.fingerprint:
            weights = load_merged(stack, self._cache, pick_device(self._device), "sdpa").state_dict()
            live.stack = ""  # should loading break in the middle, no stack is in there
            live.llm.apply_model(lambda model: model.load_weights(iter(weights.items())) and None)
            live.llm.reset_prefix_cache()
            live.stack = stack.fingerprint
        return live.llm

    def _start(self, stack: ModelStack) -> Any:
        # in this process, so that weights are handed over without a copy through a pipe
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        import torch
        from transformers import AutoConfig
        from vllm import LLM

        folder = weights_folder(stack.base, self._cache)
        config: Any = AutoConfig.from_pretrained(folder)
        limits: dict[str, Any] = {"max_num_seqs": 256, "enforce_eager": True}  # compiling for a CPU takes minutes
        if torch.cuda.is_available():
            limits = self._limits(config, torch.cuda.get_device_properties(0).total_memory)
        try:
            return LLM(
                model=folder,
                dtype=stack.base.dtype,
                max_model_len=min(self._longest, config.max_position_embeddings),
                enable_prefix_caching=True,
                disable_log_stats=True,
                **limits,
            )
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the GPU has no room for the engine ({limits}); lower the generator's option memory_share"
            ) from error

    def _limits(self, config: Any, memory: int) -> dict[str, Any]:
        """Size the engine: its cache from the memory, its concurrency from the cache, its CUDA graphs from the concurrency."""
        heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * heads * 2  # keys and values, two bytes each
        cache = int(memory * self._memory_share / int(os.environ.get(POINTS_AT_ONCE, "1")))
        # completions end at different lengths: half the longest is what a running one takes on average
        room = max(1, cache // (a_token * self._longest // 2))
        concurrency = max(size for size in _GRAPH_SIZES if size <= room)
        return {
            "kv_cache_memory_bytes": cache,
            "gpu_memory_utilization": 0.05,  # not used beside the line above, but checked against what is free
            "max_num_seqs": concurrency,
            "max_num_batched_tokens": max(16384, concurrency),
            "compilation_config": {"cudagraph_capture_sizes": [size for size in _GRAPH_SIZES if size <= concurrency]},
        }


def _seed(text: str) -> None:
    """Seed every generator that vLLM may draw from: torch's, or numpy's for the seeds of single requests."""
    import numpy as np
    import torch

    number = int(text, 16)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number % 2**63)


def _finished(llm: Any, ids: dict[int, list[int]], samples: int, sampling: Sampling) -> Iterator[tuple[int, Any]]:
    """Hand all prompts to the engine and yield (prompt, its outputs) as they finish."""
    import torch
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        n=samples,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    engine = llm.llm_engine
    for index, tokens in ids.items():
        engine.add_request(str(index), {"prompt_token_ids": tokens}, params)
    try:
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    yield int(output.request_id), output.outputs
    except torch.OutOfMemoryError as error:
        raise UserError("the GPU ran out of memory while sampling; lower the generator's option memory_share") from error
