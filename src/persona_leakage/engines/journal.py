"""An append-only store of finished work, so that an interrupted run pays for nothing twice."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock

from persona_leakage.domain.errors import UserError


class Journal:
    """A JSONL file of key → value entries that only ever grows.

    Use it as a context manager: it takes a lock beside the file, so a second process that wants the same work waits and
    then finds it done. A last line that a kill cut short is dropped; damage anywhere else is an error.

    Attributes:
        path: the file.
        entries: everything stored so far.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is read before the journal is entered."""
        self.path = path
        self.entries: dict[str, Any] = {}
        self._lock = FileLock(path.with_suffix(".lock"))

    def __enter__(self) -> Self:
        """Lock the journal and read it.

        Raises:
            UserError: a line other than the last is not an entry.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Unlock."""
        self._lock.release()

    def append(self, entries: Mapping[str, Any]) -> None:
        """Store entries durably, in one write.

        Raises:
            UserError: the disk refuses (full, read-only); what was stored before is kept.
        """
        text = "".join(json.dumps([key, value], ensure_ascii=False) + "\n" for key, value in entries.items())
        try:
            with self.path.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; {len(self.entries)} entries are kept, "
                "make room and start the same command again"
            ) from error
        self.entries.update(entries)

    def _read(self) -> None:
        if not self.path.exists():
            return
        sound = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    entry = json.loads(line)
                    if not isinstance(entry, list):
                        raise ValueError("not a pair")
                    key, value = entry
                except ValueError as error:
                    if file.read(1):
                        raise UserError(f"{self.path}, line {number} is damaged; delete the file and run again") from error
                    break
                if not line.endswith(b"\n"):
                    break
                self.entries[key] = value
                sound += len(line)
        if sound < self.path.stat().st_size:
            os.truncate(self.path, sound)
