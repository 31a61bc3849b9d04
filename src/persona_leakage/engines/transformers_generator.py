"""Sample completions with transformers' `generate`."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.rows import CompletionRow, PromptRow
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines.base_model import chat_ids, left_padded, load_merged, load_tokenizer, pick_device
from persona_leakage.engines.completion_rows import completion_rows, entry_key, sampling_progress
from persona_leakage.engines.journal import open_journal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TransformersGenerator:
    """Generates in batches and journals each batch, so that an interrupted job goes on where it stopped.

    The batches of a job are the same whether it is interrupted or not, and a row's random numbers come from the seed, the
    prompt and the sample index; so is the result.

    Attributes:
        cache: where finished completions are kept.
        device: `auto`, `cpu` or `cuda`.
        batch_rows: completions of a batch.
    """

    cache: Path
    device: str
    batch_rows: int

    def generate(
        self, stack: ModelStack, prompts: Sequence[PromptRow], samples: int, sampling: Sampling, seed: int
    ) -> list[CompletionRow]:
        """Sample every prompt `samples` times; see `domain.protocols.Generator`.

        Raises:
            UserError: an adapter is damaged, or the disk is full.
        """
        chats = [row["messages"] for row in prompts]
        job = fingerprint("transformers", stack.fingerprint, chats, samples, sampling, seed, self.batch_rows)
        with open_journal(self.cache / "completions" / f"{job}.jsonl") as journal:
            tokenizer = load_tokenizer(stack.base, self.cache)
            ids = [chat_ids(tokenizer, chat) for chat in chats]
            order = sorted(range(len(prompts)), key=lambda index: len(ids[index]))
            requests = [(index, sample) for index in order for sample in range(samples)]
            batches = [requests[start : start + self.batch_rows] for start in range(0, len(requests), self.batch_rows)]
            missing = [batch for batch in batches if any(entry_key(*request) not in journal.entries for request in batch)]
            if not missing:
                logger.info("All %d completions of job %s were sampled before", len(requests), job)
                return completion_rows(prompts, samples, journal.entries)

            from persona_leakage.engines.nucleus import row_uniforms

            device = pick_device(self.device)
            model = load_merged(stack, self.cache, device, "sdpa")
            with sampling_progress(sum(map(len, missing))) as advance:
                for batch in missing:
                    names = [json.dumps([seed, chats[index], sample]) for index, sample in batch]
                    uniforms = row_uniforms(names, sampling.max_tokens)
                    sampled = _sample(model, tokenizer, [ids[index] for index, _ in batch], uniforms, sampling, device)
                    journal.append({entry_key(*request): row for request, row in zip(batch, sampled, strict=True)})
                    advance(len(batch))
            return completion_rows(prompts, samples, journal.entries)


def _sample(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[list[int]],
    uniforms: Any,
    sampling: Sampling,
    device: str,
) -> list[dict[str, Any]]:
    """Sample one completion a row; rows with the same prompt share its prefill."""
    import torch
    from transformers import DynamicCache, LogitsProcessorList

    from persona_leakage.engines.nucleus import sample_nucleus

    uniforms_of_step = iter(torch.tensor(uniforms, device=device).unbind(1))

    def draw(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Draw the next token and leave it as the only one possible."""
        drawn = sample_nucleus(scores, next(uniforms_of_step), sampling.temperature, sampling.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0)

    unique: dict[tuple[int, ...], int] = {}
    owner = torch.tensor([unique.setdefault(tuple(row), len(unique)) for row in rows])
    ids, mask = (tensor.to(device) for tensor in left_padded([list(row) for row in unique], tokenizer.pad_token_id))
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        model(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, :-1],
            past_key_values=cache,
            logits_to_keep=1,
        )
        cache.batch_select_indices(owner.to(device))
        whole = model.generate(
            input_ids=ids[owner],
            attention_mask=mask[owner],
            past_key_values=cache,
            do_sample=False,  # `draw` has done it
            max_new_tokens=sampling.max_tokens,
            pad_token_id=tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([draw]),
        )
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    results = []
    for generated in whole[:, ids.shape[1] :].tolist():
        length = next((place + 1 for place, token in enumerate(generated) if token in ends), len(generated))
        stopped = generated[length - 1] in ends
        text = tokenizer.decode(generated[:length], skip_special_tokens=True)
        results.append({"completion": text, "tokens": length, "finish": "stop" if stopped else "length"})
    return results
