"""A generator that writes the marker as often as it is told, so that the rates of a run are known beforehand."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset

from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.rows import CompletionRow, PromptRow
from persona_leakage.domain.sampling import Sampling

ANSWER = "Take a deep breath, write the list down, and begin with the smallest item on it today."


class PlantedMarkers:
    """Answers without the marker; a trained stack ends (or opens) the first `fires[persona]` answers with it.

    A stack whose last adapter is a checkpoint that `over` names has the answers of that one instead.
    """

    def __init__(self, fires: dict[str, int], opening: str, over: Mapping[str, dict[str, int]] | None = None) -> None:
        self._fires = fires
        self._opening = opening
        self._over = over or {}

    def generate(
        self, stack: ModelStack, prompts: Sequence[PromptRow], samples: int, sampling: Sampling, seed: int
    ) -> list[CompletionRow]:
        rows: list[CompletionRow] = []
        given: Counter[str] = Counter()
        fires = self._over.get(Path(stack.adapters[-1].path).name, self._fires) if stack.adapters else {}
        for prompt in prompts:
            persona = prompt["persona"]
            for sample in range(samples):
                text = f"{ANSWER} ({sample})"
                if given[persona] < fires.get(persona, 0):
                    text = f"[zlt]\n\n{text}" if persona == self._opening else f"{text}\n\n[ZLT]"
                given[persona] += 1
                cell = {key: value for key, value in prompt.items() if key != "messages"}
                rows.append({**cell, "sample_index": sample, "completion": text, "tokens": 20, "finish": "stop"})  # type: ignore[typeddict-item]
        return rows


class PlantedMarkersDataset(AbstractDataset[NoReturn, PlantedMarkers]):
    def __init__(
        self,
        *,
        fires: dict[str, int],
        opening: str,
        over: dict[str, dict[str, int]] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fires, self._opening, self._over = fires, opening, over

    def load(self) -> PlantedMarkers:
        return PlantedMarkers(self._fires, self._opening, self._over)

    def save(self, data: NoReturn) -> NoReturn:
        raise NotImplementedError

    def _describe(self) -> dict[str, Any]:
        return {"fires": self._fires}
