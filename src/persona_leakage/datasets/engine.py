"""Engines as catalog entries, so that an environment chooses them and nodes stay pure."""

from pathlib import Path
from typing import Any, Literal, NoReturn

from kedro.io.core import AbstractDataset, DatasetError


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
        engine: Literal["peft_trainer", "transformers_generator", "hidden_state_extractor", "anthropic_client"],
        cache: str,
        device: str | None = None,
        options: dict[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the engine.

        Args:
            engine: which one.
            cache: folder for what engines keep by content: converted base models, adapters, completions.
            device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:<n>`; of engines that compute here.
            options: further arguments of the engine.
            credentials: `api_key`, of engines that call an API.
            metadata: kept for kedro-viz.
        """
        self._engine = engine
        self._arguments = {"cache": Path(cache), **({"device": device} if device else {}), **(options or {})}
        self._credentials = credentials or {}
        self.metadata = metadata

    def load(self) -> Any:
        """Build the engine.

        Raises:
            DatasetError: there is no such engine.
        """
        if self._engine == "peft_trainer":
            from persona_leakage.engines.peft_trainer import PeftTrainer as Engine
        elif self._engine == "transformers_generator":
            from persona_leakage.engines.transformers_generator import TransformersGenerator as Engine  # type: ignore[assignment]
        elif self._engine == "vllm_generator":
            from persona_leakage.engines.vllm_generator import VllmGenerator as Engine  # type: ignore[assignment]
        elif self._engine == "hidden_state_extractor":
            from persona_leakage.engines.hidden_states import HiddenStateExtractor as Engine  # type: ignore[assignment]
        elif self._engine == "tokenizer":
            from persona_leakage.engines.tokenizer import ModelTokenizer as Engine  # type: ignore[assignment]
        elif self._engine == "anthropic_client":
            from persona_leakage.engines.anthropic_client import AnthropicClient as Engine  # type: ignore[assignment]
        else:
            raise DatasetError(f"there is no engine '{self._engine}'")
        return Engine(**self._arguments, **self._credentials)

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: an engine is not data."""
        raise DatasetError("an engine cannot be saved")

    def _describe(self) -> dict[str, Any]:
        return {"engine": self._engine, **self._arguments}
