"""JSONL datasets whose errors name the file and the line."""

import json
from typing import Any

from kedro.utils import load_obj
from kedro_datasets._typing import TablePreview
from pydantic import BaseModel, TypeAdapter, ValidationError

from persona_leakage.datasets.atomic import FileDataset
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import one_line


class JSONLinesDataset(FileDataset[list[dict[str, Any]]]):
    """Rows of a JSONL file (UTF-8, one JSON object a line) as a list of dictionaries.

    Example:
        ```yaml
        parallel_texts:
          type: persona_leakage.datasets.JSONLinesDataset
          filepath: data/01_raw/parallel_texts.jsonl
          row: persona_leakage.domain.rows.ParallelText
        ```
    """

    def __init__(self, *, row: str | None = None, unique: list[str] | None = None, **file: Any) -> None:
        """Describe the file and its rows.

        Args:
            row: import path of the type that every row is checked against and becomes, if any.
            unique: keys whose values together must not repeat, if any.
            **file: as in `FileDataset`.
        """
        super().__init__(**file)
        self._row = row
        self._unique = unique

    def load(self) -> list[dict[str, Any]]:
        """Read and check every row.

        Returns:
            With a row type, what was validated (`model_dump` of our frozen types): the text "0" of a key that is a number is 0.
            Blank lines at the end of the file are no rows.

        Raises:
            UserError: a row is not a JSON object, does not fit the row type or repeats a unique key.
        """
        path = self._get_load_path()
        row_type: TypeAdapter[Any] | None = TypeAdapter(load_obj(self._row)) if self._row else None
        rows: list[dict[str, Any]] = []
        seen: dict[Any, int] = {}
        for number, line in enumerate(self._read().rstrip().splitlines(), 1):
            here = f"{path}, line {number}"
            try:
                row = json.loads(line.decode())
                if not isinstance(row, dict):
                    raise UserError(f"{here}: not a JSON object but {type(row).__name__}; mend or remove the line")
                if row_type is not None:
                    checked = row_type.validate_python(row)
                    row = checked.model_dump() if isinstance(checked, BaseModel) else checked
            except UnicodeDecodeError as error:
                raise UserError(f"{here}: not UTF-8; save the file as UTF-8") from error
            except json.JSONDecodeError as error:
                raise UserError(f"{here}: not JSON ({error.msg} at column {error.colno}); mend or remove the line") from error
            except ValidationError as error:
                raise UserError(f"{here}: {one_line(error, 'row')}") from error
            if self._unique is not None:
                if missing := [key for key in self._unique if key not in row]:
                    raise UserError(f"{here}: {missing[0]} is missing; add it")
                first = seen.setdefault(tuple(row[key] for key in self._unique), number)
                if first != number:
                    said = ", ".join(f"{key} '{row[key]}'" for key in self._unique)
                    remedy = f"the first is line {first}; make it unique or remove the line"
                    raise UserError(f"{here}: {said} appears a second time; {remedy}")
            rows.append(row)
        return rows

    def save(self, data: list[dict[str, Any]]) -> None:
        """Write all rows, or nothing."""
        self._write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in data).encode())

    def preview(self, nrows: int = 20) -> TablePreview:
        """Show the first rows in kedro-viz."""
        rows = self.load.__wrapped__(self)[:nrows]  # type: ignore[attr-defined]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [
            [value if isinstance(value := row.get(key), str | int | float | None) else json.dumps(value) for key in columns]
            for row in rows
        ]
        return TablePreview({"index": list(range(len(rows))), "columns": columns, "data": cells})

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"row": self._row, "unique": self._unique}
