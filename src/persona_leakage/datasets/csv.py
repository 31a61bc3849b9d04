"""Tables as CSV in which names are text."""

from typing import Any, ClassVar

from kedro_datasets.pandas import CSVDataset as _CSVDataset
from pandas.errors import EmptyDataError, ParserError

from persona_leakage.datasets.atomic import replacing
from persona_leakage.domain.errors import UserError

# columns whose values are names or words, in whatever table; a name may look like a number, a truth value or a missing one
NAMES = (
    "above_source_most", "arm", "bystander", "category", "centring", "claim", "commit", "completion", "condition", "conditions",
    "cross_check", "design", "directive_language", "error", "evidence", "geometry", "gpu", "host", "induction", "label",
    "max_persona", "method", "metric", "model", "of", "one", "other", "outside_base_range", "persona", "phrasing", "place",
    "plan", "pulled", "quantity", "question", "questions", "reference", "related_to", "role", "rule", "scope", "source",
    "started", "statement", "status", "unit", "verdict", "with",
)  # fmt: skip


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
