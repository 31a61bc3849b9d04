"""What every generator keeps of a completion, and how it hands the completions of a job back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from persona_leakage.domain.rows import CompletionRow, PromptRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def entry_key(prompt: int, sample: int) -> str:
    """Name a completion in a job's journal: the prompt's place and the sample's."""
    return f"{prompt}.{sample}"


def completion_rows(prompts: Sequence[PromptRow], samples: int, entries: Mapping[str, Any]) -> list[CompletionRow]:
    """Put the journal's entries beside their prompts' cells, ordered by prompt and then by sample."""
    return [
        {**cell, "sample_index": sample, **entries[entry_key(index, sample)]}  # type: ignore[typeddict-item]
        for index, cell in enumerate({key: value for key, value in row.items() if key != "messages"} for row in prompts)
        for sample in range(samples)
    ]


def completion_entries(
    tokenizer: "PreTrainedTokenizerBase", sampled: Sequence[Sequence[int]], ended: Sequence[bool], ends: frozenset[int]
) -> list[dict[str, Any]]:
    """Turn sampled tokens into what a journal keeps; the token that ended a completion is no part of its text."""
    bodies = [list(tokens[:-1] if tokens[-1] in ends else tokens) for tokens in sampled]
    return [
        {"completion": text, "tokens": len(tokens), "finish": "stop" if over else "length"}
        for text, tokens, over in zip(tokenizer.batch_decode(bodies, skip_special_tokens=True), sampled, ended, strict=True)
    ]


@contextmanager
def sampling_progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar that counts completions; what is yielded adds to them."""
    said = TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TextColumn("completions"), TimeRemainingColumn()
    with Progress(*said) as bar:
        yield partial(bar.advance, bar.add_task("", total=total))
