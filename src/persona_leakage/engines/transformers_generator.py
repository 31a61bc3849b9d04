"""Sample completions with models of transformers."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.rows import CompletionRow, PromptRow
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines.base_model import chat_ids, has_plain_attention, load_merged, load_tokenizer, pick_device
from persona_leakage.engines.completion_rows import completion_entries, completion_rows, entry_key, sampling_progress
from persona_leakage.engines.journal import open_journal
from persona_leakage.engines.turns import fit_turns

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
            UserError: the chat template does not fit, an adapter is damaged, or the disk is full.
        """
        chats = [row["messages"] for row in prompts]
        turns = fit_turns(stack.base, self.cache, chats)
        job = fingerprint("transformers", stack.fingerprint, chats, samples, sampling, seed, self.batch_rows, *turns.unforeseen)
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

            from persona_leakage.engines import grouped_attention
            from persona_leakage.engines.decoding import require_own_answers, sample_batch
            from persona_leakage.engines.nucleus import row_uniforms

            attention = grouped_attention.NAME if has_plain_attention(stack.base, self.cache) else "sdpa"
            model = load_merged(stack, self.cache, pick_device(self.device), attention)
            require_own_answers(model, ids, tokenizer.pad_token_id)
            with sampling_progress(sum(map(len, missing))) as advance:
                for batch in missing:
                    names = [json.dumps([seed, chats[index], sample]) for index, sample in batch]
                    uniforms = row_uniforms(names, sampling.max_tokens)
                    rows, pad = [ids[index] for index, _ in batch], tokenizer.pad_token_id
                    sampled = sample_batch(model, rows, uniforms, sampling, set(turns.ends), pad)
                    ended = [tokens[-1] in turns.ends for tokens in sampled]
                    entries = completion_entries(tokenizer, sampled, ended, turns.ends)
                    journal.append({entry_key(*request): entry for request, entry in zip(batch, entries, strict=True)})
                    advance(len(batch))
            return completion_rows(prompts, samples, journal.entries)
