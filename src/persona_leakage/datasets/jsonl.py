"""JSONL datasets whose errors name the file and the line."""

import json
from pathlib import PurePosixPath
from typing import Any

import fsspec
from kedro.io.core import AbstractVersionedDataset, Version, get_protocol_and_path
from kedro.utils import load_obj
from kedro_datasets._typing import TablePreview
from pydantic import TypeAdapter, ValidationError

from persona_leakage.datasets.atomic import replacing
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import one_line


class JSONLinesDataset(AbstractVersionedDataset[list[dict[str, Any]], list[dict[str, Any]]]):
    """Rows of a JSONL file (UTF-8, one JSON object a line) as a list of dictionaries.

    Example:
        ```yaml
        parallel_texts:
          type: persona_leakage.datasets.JSONLinesDataset
          filepath: data/01_raw/parallel_texts.jsonl
          row: persona_leakage.domain.rows.ParallelText
        ```
    """

    def __init__(
        self,
        *,
        filepath: str,
        row: str | None = None,
        unique: list[str] | None = None,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the file.

        Args:
            filepath: local path or fsspec URL.
            row: import path of the type every row is checked against, if any.
            unique: keys whose values together must not repeat, if any.
            version: given by Kedro when the entry is versioned.
            metadata: kept for kedro-viz.
        """
        protocol, path = get_protocol_and_path(filepath, version)
        self._fs = fsspec.filesystem(protocol)
        self._row = row
        self._unique = unique
        self.metadata = metadata
        super().__init__(PurePosixPath(path), version, self._fs.exists, self._fs.glob)

    def load(self) -> list[dict[str, Any]]:
        """Read and check every row.

        Raises:
            UserError: a row is not a JSON object, does not fit the row type or repeats a unique key.
        """
        path = str(self._get_load_path())
        row_type: TypeAdapter[Any] | None = TypeAdapter(load_obj(self._row)) if self._row else None
        rows: list[dict[str, Any]] = []
        seen: set[Any] = set()
        with self._fs.open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                here = f"{path}, line {number}"
                try:
                    row = json.loads(line.decode().rstrip("\r\n"))
                except UnicodeDecodeError as error:
                    raise UserError(f"{here}: not UTF-8; save the file as UTF-8") from error
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"{here}: not JSON ({error.msg} at column {error.colno}); mend or remove the line"
                    ) from error
                if not isinstance(row, dict):
                    raise UserError(f"{here}: not a JSON object but {type(row).__name__}; mend or remove the line")
                if row_type is not None:
                    try:
                        row_type.validate_python(row)
                    except ValidationError as error:
                        raise UserError(f"{here}: {one_line(error, 'row')}") from error
                if self._unique is not None:
                    if missing := [key for key in self._unique if key not in row]:
                        raise UserError(f"{here}: {missing[0]} is missing; add it")
                    identity = tuple(row[key] for key in self._unique)
                    if identity in seen:
                        said = ", ".join(f"{key} '{row[key]}'" for key in self._unique)
                        raise UserError(f"{here}: {said} appears a second time; make it unique or remove the line")
                    seen.add(identity)
                rows.append(row)
        return rows

    def save(self, data: list[dict[str, Any]]) -> None:
        """Write all rows, or nothing."""
        with replacing(self._fs, self._get_save_path()) as partial, self._fs.open(str(partial), "w", encoding="utf-8") as file:
            for row in data:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def preview(self, nrows: int = 20) -> TablePreview:
        """Show the first rows in kedro-viz."""
        rows = self.load.__wrapped__(self)[:nrows]  # type: ignore[attr-defined]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [
            [value if isinstance(value := row.get(key), str | int | float | None) else json.dumps(value) for key in columns]
            for row in rows
        ]
        return TablePreview({"index": list(range(len(rows))), "columns": columns, "data": cells})

    def _exists(self) -> bool:
        return bool(self._fs.exists(str(self._get_load_path())))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "row": self._row, "unique": self._unique, "version": self._version}
