"""JSONL datasets whose errors name the file and the line."""

import json
import logging
import math
import re
from typing import Any, NoReturn

from kedro_datasets._typing import TablePreview

from persona_leakage.datasets.atomic import FileDataset
from persona_leakage.datasets.rows import RowChecks
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.rows import whole

logger = logging.getLogger(__name__)

_LINE_END = re.compile(r"\r\n|\r|\n")  # and no other: a text may hold a U+2028
# an escape within a string, whole; the group is half a pair of surrogates
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)")


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
            unique: keys whose values together must not repeat, if any; see `RowChecks`.
            **file: as in `FileDataset`.
        """
        super().__init__(**file)
        self._row = row
        self._unique = unique

    def load(self) -> list[dict[str, Any]]:
        """Read and check every row.

        Returns:
            With a row type, what was validated (`model_dump` of our frozen types): the text "0" of a key that is a number is 0.
            Blank lines at the end of the file are no rows. Half a character (a lone surrogate, which is no text) is replaced by
            U+FFFD, and the log says how many were.

        Raises:
            UserError: a row is not a JSON object, names a key twice or a number that is not finite, does not fit the row type
                or repeats a unique key.
        """
        path = self._get_load_path()
        checks = RowChecks(self._row, self._unique)
        rows: list[dict[str, Any]] = []
        halves: list[int] = []  # the line of each
        text = self._read_text().rstrip(" \t\r\n")
        if text.lstrip(" \t\r\n").startswith("["):
            raise UserError(f"{path} is a JSON list; write one object a line instead, such as by jq -c '.[]'")
        for number, line in enumerate(_LINE_END.split(text) if text else [], 1):
            here = f"{path}, line {number}"
            try:
                row = _parse(line, number, halves)
            except json.JSONDecodeError as error:
                raise UserError(f"{here}: not JSON ({error.msg} at column {error.colno}); mend or remove the line") from error
            except RecursionError as error:
                raise UserError(f"{here}: not JSON that can be read (nested too deeply); mend or remove the line") from error
            except ValueError as error:
                raise UserError(f"{here}: not JSON ({error}); mend or remove the line") from error
            if not isinstance(row, dict):
                raise UserError(f"{here}: not a JSON object but {type(row).__name__}; mend or remove the line")
            rows.append(checks.check(row, path, number))
        if halves:
            logger.warning(
                "%s: %d characters of which half is missing (lone surrogates; first in line %d) are replaced by U+FFFD",
                *(path, len(halves), halves[0]),
            )
        return rows

    def save(self, data: list[dict[str, Any]]) -> None:
        """Write all rows, or nothing; half a character (a lone surrogate) is replaced by U+FFFD."""
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in data)
        self._write(whole(lines).encode())

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


def _parse(line: str, number: int, halves: list[int]) -> Any:
    """Read a line of strict JSON; lone surrogates are replaced, and their line noted once for each.

    Raises:
        ValueError: it is none: a key appears twice, or a number is not finite.
    """

    def mend(escape: re.Match[str]) -> str:
        if not escape[1]:  # whole
            return escape[0]
        halves.append(number)
        return "\\ufffd"

    return json.loads(
        _ESCAPE.sub(mend, line) if "\\u" in line else line,
        object_pairs_hook=_once,
        parse_constant=_no_number,
        parse_float=_finite,
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key '{next(key for key in keys if keys.count(key) > 1)}' appears twice in one object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no finite number")
