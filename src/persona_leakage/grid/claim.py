"""One grid at a time on a family's data."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from fsspec.core import url_to_fs

from persona_leakage.domain.errors import UserError
from persona_leakage.run_record import now


@contextmanager
def claimed(folder: str) -> Iterator[None]:
    """Keep other grids away from a folder for as long as the block runs.

    On a disk, a shared one too, the operating system holds the lock and lets go of it however the process ends. Elsewhere an
    object tells of the claim; one that a process of this machine left behind is cleared, any other must be deleted by hand.

    Args:
        folder: path, or URL where it is on another filesystem.

    Raises:
        UserError: another grid is running there.
    """
    if "://" in folder:
        with _claim_object(f"{folder}/grid.claim.json"):
            yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(Path(folder) / ".grid.lock").acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another grid is running on {folder}; start this one when it has ended") from error
    with lock:
        yield


@contextmanager
def _claim_object(url: str) -> Iterator[None]:
    filesystem, path = url_to_fs(url)
    filesystem.invalidate_cache()
    claim = {"host": platform.node(), "process": os.getpid(), "since": now()}
    if filesystem.exists(path):
        there = json.loads(filesystem.cat_file(path))
        if there["host"] == claim["host"] and not psutil.pid_exists(there["process"]):  # it was left behind
            filesystem.rm(path)
    try:
        filesystem.pipe_file(path, json.dumps(claim).encode(), mode="create")
    except FileExistsError as error:
        there = json.loads(filesystem.cat_file(path))
        raise UserError(
            f"another grid is running there: process {there['process']} on {there['host']} since {there['since']}; start this "
            f"one when it has ended, or delete {url} if it was killed"
        ) from error
    try:
        yield
    finally:
        filesystem.rm(path)
