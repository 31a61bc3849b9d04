"""Engines as catalog entries, so that an environment chooses them and nodes stay pure."""

from pathlib import Path
from typing import Any, NoReturn

from kedro.io.core import AbstractDataset, DatasetError
from kedro.utils import find_kedro_project, load_obj

ENGINES = {
    "peft_trainer": "peft_trainer.PeftTrainer",
    "transformers_generator": "transformers_generator.TransformersGenerator",
    "vllm_generator": "vllm_generator.VllmGenerator",
    "hidden_state_extractor": "hidden_states.HiddenStateExtractor",
    "tokenizer": "tokenizer.ModelTokenizer",
    "anthropic_client": "claude.AnthropicClient",
}


class EngineDataset(AbstractDataset[NoReturn, Any]):
    """Builds an engine on loading; torch is imported only when the engine works.

    Example:
        ```yaml
        generator:
          type: persona_leakage.datasets.EngineDataset
          engine: transformers_generator
          cache: data/cache
          device: auto
          options: {batch_rows: 140}
        ```
    """

    def __init__(
        self,
        *,
        engine: str,
        cache: str,
        device: str | None = None,
        options: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the engine.

        Args:
            engine: a name in `ENGINES`.
            cache: folder for what engines keep by content: converted base models, adapters, completions; a relative one lies in
                the project's folder, wherever inside it a command or notebook runs.
            device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:<n>`; of engines that compute here.
            options: further arguments of the engine.
            credentials: `api_key`, of engines that call an API.
            metadata: kept for kedro-viz.
        """
        self._engine = engine
        folder = find_kedro_project(Path.cwd()) or Path.cwd()
        self._arguments = {"cache": folder / cache, **({"device": device} if device else {}), **(options or {})}
        self._credentials = credentials or {}
        self.metadata = metadata

    def load(self) -> Any:
        """Build the engine.

        Raises:
            DatasetError: there is no such engine.
        """
        if self._engine not in ENGINES:
            raise DatasetError(f"there is no engine '{self._engine}'; known: {', '.join(ENGINES)}")
        return load_obj(f"persona_leakage.engines.{ENGINES[self._engine]}")(**self._arguments, **self._credentials)

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: an engine is not data."""
        raise DatasetError("an engine cannot be saved")

    def _describe(self) -> dict[str, Any]:
        return {"engine": self._engine, **self._arguments}
