"""What every generator keeps of a completion, and how it hands the completions of a job back."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from persona_leakage.domain.rows import CompletionRow, PromptRow


def entry_key(prompt: int, sample: int) -> str:
    """Name a completion in a job's journal: the prompt's place and the sample's."""
    return f"{prompt}.{sample}"


def completion_rows(prompts: Sequence[PromptRow], samples: int, entries: Mapping[str, Any]) -> list[CompletionRow]:
    """Put the journal's entries beside their prompts' cells, ordered by prompt and then by sample."""
    rows: list[CompletionRow] = []
    for index, prompt in enumerate(prompts):
        cell = {key: value for key, value in prompt.items() if key != "messages"}
        for sample in range(samples):
            rows.append({**cell, "sample_index": sample, **entries[entry_key(index, sample)]})  # type: ignore[typeddict-item]
    return rows


def sampling_progress() -> Progress:
    """Make the bar that counts completions."""
    return Progress(TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TextColumn("completions"), TimeRemainingColumn())
