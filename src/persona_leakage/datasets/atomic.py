"""Atomic saving: the base class of our own datasets, and those of kedro-datasets with it."""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, ClassVar, TypeVar

import fsspec
from kedro.io.core import AbstractVersionedDataset, Version, get_protocol_and_path
from kedro_datasets.json import JSONDataset as _JSONDataset
from kedro_datasets.matplotlib import MatplotlibDataset as _MatplotlibDataset
from kedro_datasets.text import TextDataset as _TextDataset
from matplotlib import rc_context

from persona_leakage.domain.errors import UserError

_T = TypeVar("_T")
_LINE_END = re.compile(rb"\r\n|\r|\n")


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


class FileDataset(AbstractVersionedDataset[_T, _T]):
    """A value in a file or folder, in versions where its entry is `versioned`."""

    def __init__(self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None) -> None:
        """Describe the file.

        Args:
            filepath: local path or fsspec URL.
            version: given by Kedro when the entry is versioned.
            metadata: kept for kedro-viz.
        """
        self._protocol, path = get_protocol_and_path(filepath, version)
        self._fs = fsspec.filesystem(self._protocol)
        self.metadata = metadata
        super().__init__(PurePosixPath(path), version, self._complete, self._fs.glob)

    def _read(self) -> bytes:
        """Read the file, which may be compressed by gzip whatever its name.

        Raises:
            UserError: it is a folder, must not be read or is damaged.
        """
        path = self._get_load_path()
        try:
            content = bytes(self._fs.cat_file(str(path)))
            return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        except FileNotFoundError:
            raise
        except (OSError, EOFError, zlib.error) as error:
            said = getattr(error, "strerror", None) or error
            raise UserError(f"cannot read {path}: {said}; give a file that is whole and may be read") from error

    def _read_text(self) -> str:
        """Read the file as UTF-8, with or without a byte order mark.

        Raises:
            UserError: a line is not UTF-8; see `_read`.
        """
        content = self._read()
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = len(_LINE_END.split(content[: error.start]))
            raise UserError(f"{self._get_load_path()}, line {line}: not UTF-8; save the file as UTF-8") from error

    def _write(self, content: bytes) -> None:
        """Write the file, or nothing."""
        with replacing(self._fs, self._get_save_path()) as partial:
            self._fs.pipe_file(str(partial), content)

    def _complete(self, path: str) -> bool:
        return bool(self._fs.exists(path))

    def _exists(self) -> bool:
        return self._complete(str(self._get_load_path()))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}


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


class JSONDataset(_AtomicSave, _JSONDataset):
    """A JSON document; a number that JSON lacks (NaN, infinity) is not written."""

    DEFAULT_SAVE_ARGS: ClassVar[dict[str, Any]] = {**_JSONDataset.DEFAULT_SAVE_ARGS, "allow_nan": False}


class TextDataset(_AtomicSave, _TextDataset):
    """A text file."""


class FigureDataset(_AtomicSave, _MatplotlibDataset):
    """A matplotlib figure as PNG, its texts as they are written; loads as the bytes of the file, for embedding."""

    def save(self, data: Any) -> None:
        """Save atomically."""
        with rc_context({"text.parse_math": False}):  # some labels come into being when a figure is written
            super().save(data)

    def load(self) -> bytes:
        """Return the PNG."""
        return bytes(self._fs.cat_file(str(self._filepath)))
