"""Frozen values of the domain as JSON."""

from typing import Any

from kedro.utils import load_obj
from kedro_datasets._typing import JSONPreview

from persona_leakage.datasets.atomic import FileDataset
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen


class FrozenDataset(FileDataset[Frozen]):
    """One typed value, checked on loading.

    Example:
        ```yaml
        "{family}.plan":
          type: persona_leakage.datasets.FrozenDataset
          filepath: data/02_intermediate/{family}/plan.json
          value: persona_leakage.domain.plan.Plan
        ```
    """

    def __init__(self, *, value: str, **file: Any) -> None:
        """Describe the file, as `FileDataset` does; `value` is the import path of the type."""
        super().__init__(**file)
        self._value = value

    def load(self) -> Frozen:
        """Read the value.

        Raises:
            UserError: the file does not fit the type, because it is damaged or of an older version.
        """
        value_type: type[Frozen] = load_obj(self._value)
        content = self._read()
        try:
            return value_type.model_validate_json(content)
        except ValueError as error:
            raise UserError(f"{self._get_load_path()} is no {value_type.__name__}; delete it and run again") from error

    def save(self, data: Frozen) -> None:
        """Write the value, or nothing."""
        self._write(data.model_dump_json(indent=1).encode())

    def preview(self) -> JSONPreview:
        """Show the value in kedro-viz."""
        return JSONPreview(self._read().decode())

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"value": self._value}
