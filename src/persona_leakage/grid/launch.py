"""Computing one point, in a process of its own or in this one: what all launchers have in common."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple, Protocol

from filelock import FileLock
from fsspec.core import url_to_fs
from threadpoolctl import threadpool_limits

from persona_leakage.domain.protocols import KEEP_BASE_MODEL
from persona_leakage.grid.compute import compute, configure
from persona_leakage.grid.points import Point
from persona_leakage.grid.records import last_whole_run, read_record, tokens_of
from persona_leakage.user_message import user_message

LOG = "grid.log"
_TAIL = 8  # last lines of a log that are shown


class Outcome(NamedTuple):
    """What became of a point.

    Attributes:
        tail: the last lines that it said, if it failed; the very last says why.
        seconds: from its start to its end.
        tokens: what it sampled or trained on.
    """

    point: Point
    tail: tuple[str, ...] = ()
    seconds: float = 0.0
    tokens: int = 0

    @property
    def failed(self) -> bool:
        """Whether it did not end well."""
        return bool(self.tail)

    @property
    def log(self) -> str:
        """Path or URL of everything that it said."""
        return f"{self.point.folder}/{LOG}"


class Work(NamedTuple):
    """What the points of a grid have in common.

    Attributes:
        project: folder that they run in; None means the current one.
        env: Kedro environment.
        params: parameters given at run time.
    """

    project: str | None
    env: str | None
    params: dict[str, object]

    def command(self, point: Point) -> list[str]:
        """Write the command that computes a point without the report; parameters are handed over as data, not as text."""
        given = {"family": point.family, "env": self.env, "params": {**self.params, **point.address.overrides}}
        return [sys.executable, "-m", "persona_leakage.grid.compute", str(os.getpid()), json.dumps(given)]


class Launcher(AbstractContextManager["Launcher"], Protocol):
    """Computes points somewhere. Leaving its context stops what still runs."""

    @property
    def places(self) -> int:
        """How many points it can compute at once, as things are."""
        ...

    def launch(self, points: Sequence[Point]) -> Iterator[Outcome]:
        """Compute points in any order and tell of each as it ends; a failing one stops no other."""
        ...


class Processes:
    """The processes that points run in, so that all can be stopped at once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, command: list[str], log: Path, folder: str | None, environment: dict[str, str]) -> int:
        """Run a command to its end and return its status."""
        with log.open("wb") as file:
            with self._lock:
                if self._stopped:
                    return -signal.SIGTERM
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env={**os.environ, **environment},
                )
                self._running.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)

    def stop(self) -> None:
        """Stop what runs, and start nothing more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def compute_apart(point: Point, work: Work, processes: Processes | None, environment: dict[str, str]) -> Outcome:
    """Compute a point in a process of its own, which does not outlive this one and may be stopped with others."""

    def run(log: Path) -> str | None:
        status = (processes or Processes()).run(work.command(point), log, work.project, environment)
        if status < 0:
            return f"its process was killed (signal {-status}); out of memory?"
        return None if status == 0 else ""

    return _computed(point, run)


def settle(environment: Mapping[str, str]) -> None:
    """Make this process ready to compute points in the current folder one after the other, with engines that stay."""
    os.environ.update({**environment, KEEP_BASE_MODEL: "1"})
    if threads := environment.get("OMP_NUM_THREADS"):
        threadpool_limits(int(threads))  # NumPy was imported to get here, and has read the variable
    configure()


def compute_here(point: Point, work: Work) -> Outcome:
    """Compute a point in this process, so that engines are kept for the next one."""

    def run(log: Path) -> str | None:
        with _speaking_into(log):
            try:
                compute(point.family, work.env, {**work.params, **point.address.overrides})
            except Exception as error:
                traceback.print_exc()
                return user_message(error) or f"{type(error).__name__}: {error}"
        return None

    return _computed(point, run)


def _computed(point: Point, run: Callable[[Path], str | None]) -> Outcome:
    """Compute a point unless another process has meanwhile; what it says is in its log.

    Two grids never share a point, but a process may survive the one that started it, when a cluster's head is lost. So a
    process that computes a point locks it, where it lies on a disk. `run` is given the log and returns None, or what went
    wrong, blank when the log's last line says it.
    """
    with _lock(point):
        done = last_whole_run(point.family, read_record(point.folder))
        if done and done["plan"] == point.plan:
            return Outcome(point)
        started = time.monotonic()
        with _log(point) as log:
            wrong = run(log)
            tail = () if wrong is None else tuple(filter(None, (*_last_lines(log), wrong))) or ("it failed and said nothing",)
        seconds = time.monotonic() - started
        done = None if tail else last_whole_run(point.family, read_record(point.folder))
        return Outcome(point, tail, seconds, tokens_of(done) if done else 0)


def _lock(point: Point) -> AbstractContextManager[object]:
    if "://" in point.folder:
        return nullcontext()
    Path(point.folder).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(point.folder) / ".running.lock")


@contextmanager
def _log(point: Point) -> Iterator[Path]:
    """Yield the file of a point's log; one that lies elsewhere is written here first and copied at the end."""
    if "://" not in point.folder:
        yield Path(point.folder) / LOG
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / LOG
        try:
            yield file
        finally:
            if file.is_file():
                filesystem, path = url_to_fs(f"{point.folder}/{LOG}")
                filesystem.put_file(str(file), path)


def _last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2**16))
        lines = [line.rstrip() for line in file.read().decode(errors="replace").splitlines()]
    return [line for line in lines if line][-_TAIL:]


@contextmanager
def _speaking_into(log: Path) -> Iterator[None]:
    """Send what this process and its libraries write to the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = [os.dup(1), os.dup(2)]
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in enumerate(before, 1):
            os.dup2(kept, number)
            os.close(kept)
