"""Rows of a Hugging Face data set, or of a local file in its place."""

from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from kedro.io.core import AbstractDataset, DatasetError

from persona_leakage.datasets.jsonl import JSONLinesDataset
from persona_leakage.domain.errors import UserError

_FORMATS = {".json": "json", ".parquet": "parquet"}
_LINES = (".jsonl", ".gz")


class HubRowsDataset(AbstractDataset[NoReturn, list[dict[str, Any]]]):
    """The first rows of a split, streamed, so that a large data set is never downloaded whole.

    Example:
        ```yaml
        source_texts:
          type: persona_leakage.datasets.HubRowsDataset
          repository: HuggingFaceH4/ultrachat_200k
          revision: 8049631c405ae6576f93f445c6b8166f76f5505a
          split: train_sft
          rows: 8000
        ```
        With `filepath: my_chats.jsonl` (or `.parquet`) in place of `repository` and `revision`, the rows come from that file.
    """

    def __init__(
        self,
        *,
        rows: int,
        repository: str | None = None,
        revision: str | None = None,
        split: str = "train",
        filepath: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the rows.

        Args:
            rows: how many, from the start.
            repository: data set on the hub.
            revision: commit of the repository; without one the rows could change.
            split: of the repository.
            filepath: local JSONL or Parquet file of the same columns instead.
            metadata: kept for kedro-viz.

        Raises:
            DatasetError: neither or both of repository and filepath are given, or the revision is not pinned.
        """
        if (repository is None) == (filepath is None):
            raise DatasetError("give either a repository on the hub or a filepath")
        if repository is not None and revision is None:
            raise DatasetError(f"pin the revision of {repository}")
        self._rows = rows
        self._repository = repository
        self._revision = revision
        self._split = split
        self._filepath = filepath
        self.metadata = metadata

    def load(self) -> list[dict[str, Any]]:
        """Stream the rows.

        Raises:
            UserError: the file is missing or unreadable, or the hub cannot be reached.
        """
        from datasets import load_dataset

        source: dict[str, Any] = {"path": self._repository, "revision": self._revision, "split": self._split}
        if self._filepath is not None:
            suffix = Path(self._filepath).suffix
            if suffix not in (*_LINES, *_FORMATS):
                raise UserError(f"{self._filepath}: give a file that ends in {', '.join((*_LINES, *_FORMATS))}")
            if not Path(self._filepath).is_file():
                raise UserError(f"{self._filepath} does not exist")
            if suffix in _LINES:
                return JSONLinesDataset(filepath=self._filepath).load()[: self._rows]
            source = {"path": _FORMATS[suffix], "data_files": self._filepath, "split": "train"}
        try:
            return [dict(row) for row in islice(load_dataset(**source, streaming=True), self._rows)]
        except Exception as error:
            origin = self._filepath or f"{self._repository} at {self._revision}"
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot read {origin}: {cause:.200}") from error

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: sources are read only."""
        raise DatasetError("a source is read only")

    def _describe(self) -> dict[str, Any]:
        return {"repository": self._repository, "revision": self._revision, "split": self._split, "filepath": self._filepath}
