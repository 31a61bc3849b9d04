"""Run points on this machine, one process each."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from persona_leakage.grid.points import Point, point_stages


class Outcome(NamedTuple):
    """How a point's process ended: its last line when it failed, and the log with everything it said."""

    point: Point
    failed: bool
    last_line: str
    log: Path


def waves(points: Sequence[Point]) -> list[list[Point]]:
    """Order points so that those which others are compared with come first."""
    first = [point for point in points if point.plan.reference == point.plan.condition]
    return [wave for wave in (first, [point for point in points if point not in first]) if wave]


def kedro_command(point: Point, env: str | None, params: dict[str, object]) -> list[str]:
    """Write the command that computes a point without the report."""
    given = {**params, **point.plan.point}
    command = [sys.executable, "-m", "kedro", "run", f"--pipeline={point.plan.family}"]
    command += [f"--tags={','.join(point_stages(point.plan.family))}"]
    command += [f"--params={','.join(f'{key}={value}' for key, value in given.items())}"]
    return command + ([f"--env={env}"] if env else [])


def run_wave(points: Sequence[Point], env: str | None, params: dict[str, object], jobs: int) -> Iterator[Outcome]:
    """Run a wave's points, `jobs` at a time, and tell of each as it ends; a failing point stops no other."""
    environment = dict(os.environ)
    if jobs > 1:  # processes that each take every core are slower than one after the other
        environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // jobs))

    def run(point: Point) -> Outcome:
        point.folder.mkdir(parents=True, exist_ok=True)
        log = point.folder / "grid.log"
        with log.open("wb") as file:
            done = subprocess.run(
                kedro_command(point, env, params), stdout=file, stderr=subprocess.STDOUT, env=environment, check=False
            )
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return Outcome(point, done.returncode != 0, lines[-1] if lines else "", log)

    with ThreadPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(run, point) for point in points]):
            yield future.result()
