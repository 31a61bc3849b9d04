"""Compute points on a Ray cluster."""

import logging
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import click

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.protocols import POINTS_AT_ONCE
from persona_leakage.grid.launch import Outcome, Processes, Work, compute_apart, compute_here, failed, settle
from persona_leakage.grid.points import Point
from persona_leakage.grid.settings import GridSettings
from persona_leakage.run_record import describe_code

_QUEUED = 1000  # points that Ray knows of at a time: enough for it to see the demand, few enough to wait for quickly
_NOT_SHIPPED = ["/.git", "/.venv", "/data/*", "!/data/01_raw", "/docs", "/tests", "/site", "/build"]


class RayLauncher:
    """Computes a point a Ray task, or with kept engines as many as its actors live to see.

    A point whose worker or node is lost is tried again; one that fails by itself is not.
    """

    def __init__(
        self, work: Work, settings: GridSettings, address: str | None, jobs: int | None, *, keep_engines: bool
    ) -> None:
        """Describe the work.

        Args:
            work: what the points have in common.
            settings: what each asks of the cluster.
            address: of the cluster; by default the one that runs here, or a new one on this machine.
            jobs: points at a time; by default as many as the cluster can hold.
            keep_engines: compute points in actors, each of which starts an engine once; else every point has a process of
                its own.

        Raises:
            UserError: Ray is not installed.
        """
        try:
            import ray
        except ImportError as error:
            raise UserError("--launcher ray needs Ray; run: pip install --editable '.[ray]'") from error
        self._ray = ray
        self._work = work
        self._settings = settings
        self._address = address
        self._jobs = jobs
        self._keep_engines = keep_engines
        self._actors: list[Any] = []
        self._running: dict[Any, tuple[Point, int, Any]] = {}

    def __enter__(self) -> Self:
        """Connect to the cluster, or start one.

        Raises:
            UserError: no cluster answers, or its Ray or Python is of another version.
        """
        try:
            self._ray.init(
                address=self._address,
                runtime_env=self._runtime_env(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot use the Ray cluster at {self._address or 'this machine'}: {said}") from error
        if self.places == 0:
            click.echo(f"no node of the cluster has what a point asks for ({self._asked()}); waiting for one to join", err=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what still runs and leave the cluster."""
        for ref, (*_point, actor) in self._running.items():
            if actor is None:
                self._ray.cancel(ref, force=True)
        for actor in self._actors:
            self._ray.kill(actor)
        self._ray.shutdown()

    @property
    def places(self) -> int:
        """How many points the nodes that are there can hold, or as many as were asked for."""
        asked = self._asked()
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(min(math.floor(has.get(name, 0) / amount + 1e-9) for name, amount in asked.items()) for has in nodes)
        return room if self._jobs is None else min(room, self._jobs)

    def launch(self, points: Sequence[Point]) -> Iterator[Outcome]:
        """Compute points; see `Launcher`."""
        waiting = deque((point, 1) for point in points)
        while waiting or self._running:
            while waiting and self._start(*waiting[0], left=len(waiting)):
                waiting.popleft()
            ended, _ = self._ray.wait(list(self._running), timeout=1) if self._running else ([], [])
            for ref in ended:
                point, attempt, actor = self._running.pop(ref)
                try:
                    yield self._ray.get(ref)
                except (self._ray.exceptions.RayTaskError, self._ray.exceptions.RuntimeEnvSetupError) as error:
                    yield failed(point, str(error).strip().splitlines()[-1])
                except self._ray.exceptions.RayError as error:
                    if actor is not None:
                        self._actors.remove(actor)
                    lost = f"its worker was lost ({type(error).__name__})"
                    if attempt >= self._settings.tries:
                        yield failed(point, f"{lost}, as {attempt - 1} times before")
                    else:
                        click.echo(f"{point.name}: {lost}; trying again, {attempt + 1} of {self._settings.tries}", err=True)
                        waiting.append((point, attempt + 1))

    def _start(self, point: Point, attempt: int, left: int) -> bool:
        """Hand a point to the cluster, unless it has enough to do."""
        if not self._keep_engines:
            if len(self._running) >= (self._jobs or _QUEUED):
                return False
            ref, actor = self._task().remote(point, self._work, self._environment()), None
        else:
            actor = self._idle_actor(left)
            if actor is None:
                return False
            ref = actor.compute.remote(point)
        self._running[ref] = (point, attempt, actor)
        return True

    def _task(self) -> Any:
        return self._ray.remote(_compute).options(max_retries=0, **self._options())

    def _idle_actor(self, left: int) -> Any:
        busy = {id(actor) for _, _, actor in self._running.values()}
        idle = next((actor for actor in self._actors if id(actor) not in busy), None)
        if idle is None and len(self._actors) < min(max(1, self.places), left + len(busy)):
            idle = self._ray.remote(_Settled).options(**self._options()).remote(self._work, self._environment())
            self._actors.append(idle)
        return idle

    def _options(self) -> dict[str, Any]:
        asked = self._settings
        memory = {} if asked.memory_gib is None else {"memory": int(asked.memory_gib * 2**30)}
        return {"num_cpus": asked.cpus, "num_gpus": asked.gpus, **memory}

    def _asked(self) -> dict[str, float]:
        named = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        return {named[name]: amount for name, amount in self._options().items() if amount}

    def _environment(self) -> dict[str, str]:
        """Tell a point how many share its GPU, and its cores."""
        sharing = max(1, round(1 / self._settings.gpus)) if self._settings.gpus else 1
        return {POINTS_AT_ONCE: str(sharing), "OMP_NUM_THREADS": str(max(1, int(self._settings.cpus)))}

    def _runtime_env(self) -> dict[str, Any]:
        given = dict(self._settings.runtime_env)
        if self._settings.ship_project:
            package = Path(__file__).parents[1]
            commit = describe_code(Path.cwd())["commit"]
            given = {"working_dir": str(Path.cwd()), "py_modules": [str(package)], "excludes": _NOT_SHIPPED, **given}
            given["env_vars"] = {"PERSONA_LEAKAGE_COMMIT": commit or "", **given.get("env_vars", {})}
        return given


def _compute(point: Point, work: Work, environment: dict[str, str]) -> Outcome:
    """Compute a point in a process of its own; this one, Ray's, is light and is used again."""
    return compute_apart(point, work, Processes(), environment)


class _Settled:
    """Actor that computes points in its own process."""

    def __init__(self, work: Work, environment: dict[str, str]) -> None:
        if work.project is not None:
            os.chdir(work.project)
        settle(environment)
        self._work = work

    def compute(self, point: Point) -> Outcome:
        return compute_here(point, self._work)
