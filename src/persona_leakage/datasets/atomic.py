"""Atomic saving, for our own datasets and for those of kedro-datasets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import fsspec
from kedro_datasets.json import JSONDataset as _JSONDataset
from kedro_datasets.matplotlib import MatplotlibDataset as _MatplotlibDataset
from kedro_datasets.pandas import CSVDataset as _CSVDataset
from kedro_datasets.text import TextDataset as _TextDataset
from pandas.errors import EmptyDataError, ParserError

from persona_leakage.domain.errors import UserError


@contextmanager
def replacing(filesystem: fsspec.AbstractFileSystem, path: PurePosixPath) -> Iterator[PurePosixPath]:
    """Write to a hidden sibling that takes the path's place when the block ends well, and vanishes when it does not.

    Args:
        filesystem: where the path lies.
        path: file or folder to create or replace.

    Raises:
        UserError: the disk refuses (full, read-only); what was there before is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        filesystem.makedirs(str(path.parent), exist_ok=True)
        if filesystem.exists(str(partial)):
            filesystem.rm(str(partial), recursive=True)
        yield partial
        if filesystem.isdir(str(path)):
            filesystem.rm(str(path), recursive=True)
        filesystem.mv(str(partial), str(path), recursive=filesystem.isdir(str(partial)))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; make room and run again") from error
    finally:
        if filesystem.exists(str(partial)):
            filesystem.rm(str(partial), recursive=True)


class _AtomicSave:
    """Mixin for an unversioned dataset of kedro-datasets: its own `save` writes to the sibling."""

    _filepath: PurePosixPath
    _fs: Any

    def save(self, data: Any) -> None:
        """Save atomically."""
        final = self._filepath
        with replacing(self._fs, final) as partial:
            self._filepath = partial
            try:
                super().save.__wrapped__(self, data)  # type: ignore[misc]
            finally:
                self._filepath = final


class CSVDataset(_AtomicSave, _CSVDataset):
    """A table as CSV."""

    def load(self) -> Any:
        """Read the table.

        Raises:
            UserError: the file is empty or no table.
        """
        try:
            return super().load.__wrapped__(self)
        except (EmptyDataError, ParserError, UnicodeDecodeError) as error:
            raise UserError(f"{self._filepath} is no table: {str(error).strip()}; mend the file") from error


class JSONDataset(_AtomicSave, _JSONDataset):
    """A JSON document."""


class TextDataset(_AtomicSave, _TextDataset):
    """A text file."""


class FigureDataset(_AtomicSave, _MatplotlibDataset):
    """A matplotlib figure as PNG; loads as the bytes of the file, for embedding."""

    def load(self) -> bytes:
        """Return the PNG."""
        with self._fs.open(str(self._filepath), "rb") as file:
            return bytes(file.read())
