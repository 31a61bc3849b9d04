"""An append-only store of finished work, so that an interrupted run pays for nothing twice."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.rows import whole


@contextmanager
def open_journal(path: Path) -> Iterator["Journal"]:
    """Lock a journal and read it; a second process that wants the same work waits and then finds it done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        yield Journal(path)


class Journal:
    """A JSONL file of key → value entries that only ever grows.

    A last line that a kill cut short is dropped; damage anywhere else is an error.

    Attributes:
        path: the file.
        entries: everything stored so far.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one.

        Raises:
            UserError: a line other than the last is not an entry.
        """
        self.path = path
        self.entries: dict[str, Any] = {}
        *lines, unfinished = path.read_bytes().split(b"\n") if path.exists() else [b""]
        sound = 0
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if not isinstance(entry, list):
                    raise ValueError("not a pair")
                key, value = entry
            except ValueError as error:
                if number < len(lines) or unfinished:
                    raise UserError(f"{path}, line {number} is damaged; delete the file and run again") from error
                break
            self.entries[key] = value
            sound += len(line) + 1
        if path.exists() and sound < path.stat().st_size:
            os.truncate(path, sound)

    def append(self, entries: Mapping[str, Any]) -> None:
        """Store entries durably, in one write.

        Raises:
            UserError: the disk refuses (full, read-only); what was stored before is kept.
        """
        lines = [json.dumps([key, value], ensure_ascii=False, allow_nan=False) + "\n" for key, value in entries.items()]
        try:
            with self.path.open("ab") as file:
                file.write(whole("".join(lines)).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; {len(self.entries)} entries are kept, "
                "make room and start the same command again"
            ) from error
        self.entries.update(entries)
