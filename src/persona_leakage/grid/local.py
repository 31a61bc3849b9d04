"""Run points on this machine, in processes of their own or in a few that stay."""

import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.protocols import KEEP_BASE_MODEL, POINTS_AT_ONCE
from persona_leakage.grid.points import Point, point_stages
from persona_leakage.user_message import user_message


class Outcome(NamedTuple):
    """How a point's process ended: its last line when it failed, and the log with everything it said."""

    point: Point
    failed: bool
    last_line: str
    log: Path


def waves(points: Sequence[Point]) -> list[list[Point]]:
    """Order points so that none waits for what another is making.

    First those which others are compared with; then, of the points that begin with the same stage, one that trains it; then
    the rest.
    """
    compared = [point for point in points if point.plan.reference == point.plan.condition]
    others = [point for point in points if point.plan.reference != point.plan.condition]
    makers: dict[str, Point] = {}
    for point in others:
        stages = list(point.plan.stages.values())
        if len(stages) > 1 and stages[0].checkpoint != 0:
            shared = fingerprint(stages[0].model_dump(mode="json", exclude={"checkpoint"}), point.plan.seed)
            makers.setdefault(shared, point)
    ahead = list(makers.values()) if len(makers) < len(others) else []
    first = [point.plan.point for point in ahead]
    return [wave for wave in (compared, ahead, [point for point in others if point.plan.point not in first]) if wave]


def kedro_command(point: Point, env: str | None, params: dict[str, object]) -> list[str]:
    """Write the command that computes a point without the report."""
    given = {**params, **point.plan.point}
    command = [sys.executable, "-m", "kedro", "run", f"--pipeline={point.plan.family}"]
    command += [f"--tags={','.join(point_stages(point.plan.family))}"]
    command += [f"--params={','.join(f'{key}={value}' for key, value in given.items())}"]
    return command + ([f"--env={env}"] if env else [])


def run_waves(
    points: Sequence[Point], env: str | None, params: dict[str, object], jobs: int, *, keep_engines: bool
) -> Iterator[Outcome]:
    """Run points wave after wave, `jobs` at a time, and tell of each as it ends; a failing point stops no other.

    Args:
        points: in any order.
        env: Kedro environment.
        params: parameters given at run time.
        jobs: points at a time.
        keep_engines: compute a job's points one after the other in one process, so that an engine is started once for all of
            them; else every point has a process of its own.
    """
    with _environment(jobs, keep_engines=keep_engines):
        if keep_engines:
            pool: Executor = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_enter_project)
            run = partial(_run_here, env=env, params=params)
        else:
            pool = ThreadPoolExecutor(jobs)
            run = partial(_run_apart, env=env, params=params)
        with pool:
            for wave in waves(points):
                futures = {pool.submit(run, point): point for point in wave}
                for future in as_completed(futures):
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        point = futures[future]
                        yield Outcome(point, True, "its process was killed, and with it those of other points", _log(point))


def _run_apart(point: Point, env: str | None, params: dict[str, object]) -> Outcome:
    log = _log(point)
    with log.open("wb") as file:
        done = subprocess.run(kedro_command(point, env, params), stdout=file, stderr=subprocess.STDOUT, check=False)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return Outcome(point, done.returncode != 0, lines[-1] if lines else "", log)


def _run_here(point: Point, env: str | None, params: dict[str, object]) -> Outcome:
    """Compute a point in this process, with everything it says in the point's log."""
    log = _log(point)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        with KedroSession.create(env=env, runtime_params={**params, **point.plan.point}) as session:
            session.run(pipeline_names=[point.plan.family], tags=point_stages(point.plan.family))  # type: ignore[call-arg]
    except Exception as error:
        traceback.print_exc()
        return Outcome(point, True, user_message(error) or f"{type(error).__name__}: {error}", log)
    return Outcome(point, False, "", log)


def _log(point: Point) -> Path:
    point.folder.mkdir(parents=True, exist_ok=True)
    return point.folder / "grid.log"


def _enter_project() -> None:
    bootstrap_project(Path.cwd())


@contextmanager
def _environment(jobs: int, *, keep_engines: bool) -> Iterator[None]:
    """Divide cores and GPU among the processes that are started."""
    given = {POINTS_AT_ONCE: str(jobs)} | ({KEEP_BASE_MODEL: "1"} if keep_engines else {})
    if jobs > 1:  # processes that each take every core are slower than one after the other
        given["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
