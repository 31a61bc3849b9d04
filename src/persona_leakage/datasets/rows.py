"""Rows of a file against their type and against each other."""

from collections.abc import Sequence
from typing import Any

from kedro.utils import load_obj
from pydantic import BaseModel, TypeAdapter, ValidationError

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import one_line
from persona_leakage.domain.rows import name_of


class RowChecks:
    """Checks the rows of one file, in their order."""

    def __init__(self, row: str | None, unique: Sequence[str] | None) -> None:
        """Begin a file.

        Args:
            row: import path of the type that every row is checked against and becomes, if any.
            unique: keys whose values together must not repeat, if any; 1, 1.0 and "1" are one value.
        """
        self._type: TypeAdapter[Any] | None = TypeAdapter(load_obj(row)) if row else None
        self._unique = unique
        self._seen: dict[tuple[str, ...], int] = {}

    def check(self, row: dict[str, Any], path: object, line: int) -> dict[str, Any]:
        """Check a row.

        Returns:
            With a row type, what was validated (`model_dump` of our frozen types).

        Raises:
            UserError: it does not fit the type, or lacks or repeats a unique key.
        """
        here = f"{path}, line {line}"
        if self._type is not None:
            try:
                checked = self._type.validate_python(row)
            except ValidationError as error:
                raise UserError(f"{here}: {one_line(error, 'row')}") from error
            row = checked.model_dump() if isinstance(checked, BaseModel) else checked
        if self._unique is not None:
            if missing := [key for key in self._unique if key not in row]:
                raise UserError(f"{here}: {missing[0]} is missing; add it")
            first = self._seen.setdefault(tuple(name_of(row[key]) for key in self._unique), line)
            if first != line:
                said = ", ".join(f"{key} '{row[key]}'" for key in self._unique)
                remedy = f"the first is line {first}; make it unique or remove the line"
                raise UserError(f"{here}: {said} appears a second time; {remedy}")
        return row
