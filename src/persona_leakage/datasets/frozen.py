"""Frozen values of the domain as JSON."""

from pathlib import PurePosixPath
from typing import Any

import fsspec
from kedro.io.core import AbstractDataset, get_protocol_and_path
from kedro.utils import load_obj
from kedro_datasets._typing import JSONPreview

from persona_leakage.datasets.atomic import replacing
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen


class FrozenDataset(AbstractDataset[Frozen, Frozen]):
    """One typed value, checked on loading.

    Example:
        ```yaml
        "{family}.plan":
          type: persona_leakage.datasets.FrozenDataset
          filepath: data/02_intermediate/{family}/plan.json
          value: persona_leakage.domain.plan.Plan
        ```
    """

    def __init__(self, *, filepath: str, value: str, metadata: dict[str, Any] | None = None) -> None:
        """Describe the file; `value` is the import path of the type."""
        protocol, path = get_protocol_and_path(filepath)
        self._fs = fsspec.filesystem(protocol)
        self._filepath = PurePosixPath(path)
        self._value = value
        self.metadata = metadata

    def load(self) -> Frozen:
        """Read the value.

        Raises:
            UserError: the file does not fit the type, because it is damaged or of an older version.
        """
        value_type: type[Frozen] = load_obj(self._value)
        with self._fs.open(str(self._filepath), "rb") as file:
            text = file.read()
        try:
            return value_type.model_validate_json(text)
        except ValueError as error:
            raise UserError(f"{self._filepath} is no {value_type.__name__}; delete it and run again") from error

    def save(self, data: Frozen) -> None:
        """Write the value, or nothing."""
        with replacing(self._fs, self._filepath) as partial, self._fs.open(str(partial), "w", encoding="utf-8") as file:
            file.write(data.model_dump_json(indent=1))

    def preview(self) -> JSONPreview:
        """Show the value in kedro-viz."""
        with self._fs.open(str(self._filepath), "r", encoding="utf-8") as file:
            return JSONPreview(file.read())

    def _exists(self) -> bool:
        return bool(self._fs.exists(str(self._filepath)))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "value": self._value}
