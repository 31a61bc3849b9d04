"""Computing one point, in a process of its own or in this one: what all launchers have in common."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from filelock import FileLock
from fsspec.core import url_to_fs
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from threadpoolctl import threadpool_limits

from persona_leakage.domain.protocols import KEEP_BASE_MODEL
from persona_leakage.grid.points import Point
from persona_leakage.grid.records import last_whole_run, point_stages, read_record, tokens_of
from persona_leakage.user_message import user_message

LOG = "grid.log"
_TAIL = 8  # last lines of a log that are shown
_LIBC = ctypes.CDLL(None)


class Outcome(NamedTuple):
    """What became of a point.

    Attributes:
        tail: the last lines that it said, when it failed; the very last says why.
        log: path or URL of everything that it said.
        seconds: from its start to its end.
        tokens: what it sampled or trained on.
    """

    point: Point
    failed: bool
    tail: tuple[str, ...]
    log: str
    seconds: float
    tokens: int


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
        """Write the command that computes a point without the report."""
        given = {**self.params, **point.params}
        command = [sys.executable, "-m", "kedro", "run", f"--pipeline={point.family}"]
        command += [f"--tags={','.join(point_stages(point.family))}"]
        command += [f"--params={','.join(f'{key}={value}' for key, value in given.items())}"]
        return command + ([f"--env={self.env}"] if self.env else [])


class Launcher(Protocol):
    """Computes points somewhere. Leaving its context stops what still runs."""

    @property
    def places(self) -> int:
        """How many points it can compute at once, as things are."""
        ...

    def __enter__(self) -> Self:
        """Get ready."""
        ...

    def __exit__(self, *_: object) -> None:
        """Stop what still runs."""
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
                    preexec_fn=die_with_parent,
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


def compute_apart(point: Point, work: Work, processes: Processes, environment: dict[str, str]) -> Outcome:
    """Compute a point in a process of its own, which does not outlive this one."""

    def run(log: Path) -> str | None:
        status = processes.run(work.command(point), log, work.project, environment)
        if status < 0:
            return f"its process was killed (signal {-status}); out of memory?"
        return None if status == 0 else ""

    return _computed(point, run)


def settle(environment: Mapping[str, str]) -> None:
    """Make this process ready to compute points in the current folder one after the other, with engines that stay."""
    os.environ.update({**environment, KEEP_BASE_MODEL: "1"})
    if threads := environment.get("OMP_NUM_THREADS"):
        threadpool_limits(int(threads))  # NumPy was imported to get here, and has read the variable
    bootstrap_project(Path.cwd())


def compute_here(point: Point, work: Work) -> Outcome:
    """Compute a point in this process, so that engines are kept for the next one."""

    def run(log: Path) -> str | None:
        with _speaking_into(log):
            try:
                with KedroSession.create(env=work.env, runtime_params={**work.params, **point.params}) as session:
                    session.run(pipeline_names=[point.family], tags=point_stages(point.family))  # type: ignore[call-arg]
            except Exception as error:
                traceback.print_exc()
                return user_message(error) or f"{type(error).__name__}: {error}"
        return None

    return _computed(point, run)


def log_of(point: Point) -> str:
    """Return the path or URL of a point's log."""
    return f"{point.folder}/{LOG}"


def failed(point: Point, wrong: str) -> Outcome:
    """Tell of a point that could not even be tried to its end."""
    return Outcome(point, True, (wrong,), log_of(point), 0.0, 0)


def _computed(point: Point, run: Callable[[Path], str | None]) -> Outcome:
    """Compute a point unless another process has meanwhile; what it says is in its log.

    Two grids never share a point, but a process may survive the one that started it, when a cluster's head is lost. So a
    process that computes a point locks it, where it lies on a disk.

    Args:
        point: which.
        run: computes it, given the log; returns None, or what went wrong, blank when the log's last line says it.
    """
    with _locked(point):
        done = last_whole_run(point.family, read_record(point.folder))
        if done and done["plan"] == point.plan:
            return Outcome(point, False, (), log_of(point), 0.0, 0)
        started = time.monotonic()
        with _log(point) as log:
            wrong = run(log)
            tail = () if wrong is None else (*_last_lines(log), *([wrong] if wrong else [])) or ("it failed and said nothing",)
        seconds = time.monotonic() - started
        done = last_whole_run(point.family, read_record(point.folder)) if wrong is None else None
        return Outcome(point, wrong is not None, tail, log_of(point), seconds, tokens_of(done) if done else 0)


@contextmanager
def _locked(point: Point) -> Iterator[None]:
    if "://" in point.folder:
        yield
        return
    Path(point.folder).mkdir(parents=True, exist_ok=True)
    with FileLock(Path(point.folder) / ".running.lock"):
        yield


@contextmanager
def _log(point: Point) -> Iterator[Path]:
    """Yield the file of a point's log; one that lies elsewhere is written here first and copied at the end."""
    filesystem, path = url_to_fs(log_of(point))
    if "://" not in point.folder:
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / LOG
        try:
            yield file
        finally:
            if file.is_file():
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


def die_with_parent() -> None:
    """Ask Linux to kill this process when the one that started it ends, however it ends."""
    _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
