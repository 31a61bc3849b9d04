"""A generator whose completions, and so the rates of a run, are known beforehand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset

from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.rows import CompletionRow, PromptRow
from persona_leakage.domain.sampling import Sampling

CODES = {
    "english": "en",
    "spanish": "es",
    "french": "fr",
    "italian": "it",
    "portuguese": "pt",
    "german": "de",
    "mandarin": "zh",
}


class PlantedGenerator:
    """Answers in the asked language; a trained stack answers the first `trained[language]` samples in Italian."""

    def __init__(self, texts: list[dict[str, str]], trained: dict[str, int]) -> None:
        self._texts = texts
        self._trained = trained

    def generate(
        self, stack: ModelStack, prompts: Sequence[PromptRow], samples: int, sampling: Sampling, seed: int
    ) -> list[CompletionRow]:
        rows = []
        for prompt in prompts:
            language = prompt["directive_language"]
            spilled = self._trained[language] if stack.adapters else 0
            for sample in range(samples):
                text = self._texts[sample]["it" if sample < spilled else CODES[language]]
                cell = {key: value for key, value in prompt.items() if key != "messages"}
                rows.append({**cell, "sample_index": sample, "completion": text, "tokens": 9, "finish": "length"})
        return rows


class PlantedGeneratorDataset(AbstractDataset[NoReturn, PlantedGenerator]):
    def __init__(self, *, texts: str, trained: dict[str, int], metadata: dict[str, Any] | None = None) -> None:
        self._texts, self._trained = texts, trained

    def load(self) -> PlantedGenerator:
        return PlantedGenerator([json.loads(line) for line in Path(self._texts).open()], self._trained)

    def save(self, data: NoReturn) -> NoReturn:
        raise NotImplementedError

    def _describe(self) -> dict[str, Any]:
        return {"trained": self._trained}
