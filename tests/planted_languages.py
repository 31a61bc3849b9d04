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
    """Answers in the asked language; a trained stack answers the first `trained[language]` samples in Italian.

    Questions of a bank are answered in Italian, but for every third, which is cut.
    """

    def __init__(self, texts: list[dict[str, str]], trained: dict[str, int]) -> None:
        self._texts = texts
        self._trained = trained
        self._asked = 0

    def generate(
        self, stack: ModelStack, prompts: Sequence[PromptRow], samples: int, sampling: Sampling, seed: int
    ) -> list[CompletionRow]:
        rows = []
        for place, prompt in enumerate(prompts):
            if "directive_language" not in prompt:
                rows += self._own_answers(place, prompt, samples)
                continue
            language = prompt["directive_language"]
            spilled = self._trained[language] if stack.adapters else 0
            for sample in range(samples):
                text = self._texts[sample]["it" if sample < spilled else CODES[language]]
                cell = {key: value for key, value in prompt.items() if key != "messages"}
                rows.append({**cell, "sample_index": sample, "completion": text, "tokens": 9, "finish": "length"})
        return rows

    def _own_answers(self, place: int, prompt: PromptRow, samples: int) -> list[CompletionRow]:
        self._asked += 1
        texts = (self._texts[(self._asked + 40 * sample) % len(self._texts)]["it"] for sample in range(samples))
        cell = {"prompt": prompt["prompt"], "question": prompt["question"], "tokens": 9}
        finish = "length" if place % 3 == 2 else "stop"
        return [{**cell, "sample_index": sample, "completion": text, "finish": finish} for sample, text in enumerate(texts)]


class PlantedGeneratorDataset(AbstractDataset[NoReturn, PlantedGenerator]):
    def __init__(self, *, texts: str, trained: dict[str, int], metadata: dict[str, Any] | None = None) -> None:
        self._texts, self._trained = texts, trained

    def load(self) -> PlantedGenerator:
        return PlantedGenerator([json.loads(line) for line in Path(self._texts).open()], self._trained)

    def save(self, data: NoReturn) -> NoReturn:
        raise NotImplementedError

    def _describe(self) -> dict[str, Any]:
        return {"trained": self._trained}
