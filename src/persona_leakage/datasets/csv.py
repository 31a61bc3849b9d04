"""Tables as CSV in which names are text: our own, and those that other programs wrote."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn

import pandas as pd
from kedro.io.core import DatasetError
from kedro_datasets.pandas import CSVDataset as _CSVDataset
from pandas.errors import EmptyDataError, ParserError

from persona_leakage.datasets.atomic import FileDataset, replacing
from persona_leakage.datasets.rows import RowChecks
from persona_leakage.domain.errors import UserError

# columns whose values are names or words, in whatever table; a name may look like a number, a truth value or a missing one
NAMES = (
    "above_source_most", "arm", "at", "base_model", "bystander", "category", "cell", "centring", "claim", "commit",
    "completion", "condition", "conditions", "control", "cross_check", "design", "direction", "directive_language",
    "dose", "dtype", "error", "evidence", "extreme", "geometry", "given", "gpu", "host", "induction", "kind", "label",
    "language", "max_persona", "method", "metric", "model", "no_interval", "no_ratio", "of", "one", "one_unit", "other",
    "other_unit", "outside_base_range", "outside_range", "persona", "phrasing", "place", "plan", "pulled", "quantity",
    "question", "questions", "reason", "reference", "related_to", "replayed_file", "revision", "role", "rule", "scope",
    "shared", "source", "stage", "started", "statement", "status", "term", "to", "trained", "unit", "verdict", "with",
)  # fmt: skip


_NAMED_SEPARATOR = re.compile(r"sep=([,;\t])", re.IGNORECASE)  # a first line that Excel writes and reads


class CSVDataset(_CSVDataset):
    """A table as CSV (UTF-8), saved whole or not at all.

    The columns `NAMES` are text as it is written: `None`, `NA`, `nan`, `001` and `True` are names. In every column only an
    empty cell is missing. The types of other columns are those that their values have. `load_args` may say otherwise.
    """

    DEFAULT_LOAD_ARGS: ClassVar[dict[str, Any]] = {
        "dtype": dict.fromkeys(NAMES, str),
        "keep_default_na": False,
        "na_values": [""],
    }

    def load(self) -> Any:
        """Read the table.

        Raises:
            UserError: the file is empty or no table.
        """
        try:
            return super().load.__wrapped__(self)
        except (EmptyDataError, ParserError, UnicodeDecodeError) as error:
            raise UserError(f"{self._filepath} is no table: {str(error).strip()}; mend the file") from error

    def save(self, data: Any) -> None:
        """Write the table, or nothing."""
        # a carriage return within a name is quoted only where lines end in one too
        returns = any("\r" in str(name) for column in data.columns.intersection(NAMES) for name in data[column].unique())
        options = {"lineterminator": "\r\n" if returns else "\n"} | self._save_args
        with replacing(self._fs, self._filepath) as partial:
            self._fs.write_text(str(partial), data.to_csv(**options), encoding="utf-8", newline="")


class OutsideTableDataset(FileDataset[Any]):
    """A table that another program wrote: cells separated by commas, semicolons or tabs, as the first line has them.

    Cells are text as it is written, without blanks around it; an empty one is None, and rows of empty ones are none. The index
    has the line of the file that a row begins on.
    """

    def __init__(self, *, row: str | None = None, unique: list[str] | None = None, **file: Any) -> None:
        """Describe the file, as `FileDataset` does; `row` and `unique` are those of `RowChecks`."""
        super().__init__(**file)
        self._row = row
        self._unique = unique

    def load(self) -> pd.DataFrame:
        """Read and check the table.

        Raises:
            UserError: the file is no table, a row has more or fewer cells than the first, or see `RowChecks`.
        """
        path = self._get_load_path()
        rows = list(self._rows(self._read_text()))
        if not rows:
            raise UserError(f"{path} is empty; give a table whose first line names its columns")
        (line, columns), *rows = rows
        while not columns[-1]:  # a line may end in a separator
            columns.pop()
        if len(columns) == 1:
            raise UserError(
                f"{path}, line {line}: there is one column, {columns[0]:.60}; separate cells by commas, semicolons or tabs"
            )
        if strange := [name for name in columns if not name or columns.count(name) > 1]:
            said = f"two columns are called {strange[0]}" if strange[0] else "a column has no name"
            raise UserError(f"{path}, line {line}: {said}; give each a name of its own")
        checks = RowChecks(self._row, self._unique)
        checked = []
        for line, cells in rows:
            if len(cells) < len(columns) or any(cells[len(columns) :]):
                raise UserError(
                    f"{path}, line {line}: {len(cells)} cells under {len(columns)} columns; mend the line, and put text that "
                    "holds a separator into double quotes"
                )
            given = {name: cell or None for name, cell in zip(columns, cells, strict=False)}
            checked.append(checks.check(given, path, line))
        lines = pd.Index([line for line, _ in rows], name="line", dtype=int)
        return pd.DataFrame(checked, index=lines, columns=columns, dtype=None if self._row else object)

    def save(self, data: Any) -> NoReturn:
        """Refuse: what comes from outside is read only."""
        raise DatasetError("a table from outside is read only")

    def _rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Yield every row that is not blank with the line that it begins on."""
        first = next((line for line in text.splitlines() if line.strip()), "")
        named = _NAMED_SEPARATOR.fullmatch(first.strip(" \r\n"))
        separator = named[1] if named else max(",;\t", key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        line = 1
        try:
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any("\0" in cell for cell in cells):
                    raise csv.Error("a NUL character")
                if any(cells) and named:
                    named = None
                elif any(cells):
                    yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            said = f"{self._get_load_path()}, line {line}: no row of a table ({error}); mend the line"
            raise UserError(f"{said}, such as a double quote that is not closed") from error

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"row": self._row, "unique": self._unique}
