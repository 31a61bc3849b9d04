"""Compute points on a Ray cluster."""

import logging
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.protocols import POINTS_AT_ONCE
from persona_leakage.grid.launch import Outcome, Work, compute_apart, compute_here, settle
from persona_leakage.grid.points import Point
from persona_leakage.grid.settings import GridSettings
from persona_leakage.run_record import describe_code

_QUEUED = 1000  # points that Ray knows of at a time: enough for it to see the demand, few enough to wait for quickly
_NOT_SHIPPED = ["/.git", "/.venv", "/data/*", "!/data/01_raw", "/docs", "/tests", "/site", "/build"]


@dataclass
class RayLauncher:
    """Computes a point a Ray task, in a process of its own, or points in actors, each of which starts an engine once.

    A point whose worker or node is lost is tried again; one that fails by itself is not.

    Attributes:
        work: what the points have in common.
        settings: what each asks of the cluster.
        address: of the cluster; by default the one that runs here, or a new one on this machine.
        jobs: points at a time; by default as many as the cluster can hold.
        keep_engines: whether actors compute the points.
    """

    work: Work
    settings: GridSettings
    address: str | None
    jobs: int | None
    keep_engines: bool = field(kw_only=True)
    _actors: list[Any] = field(default_factory=list, init=False)
    _running: dict[Any, tuple[Point, int, Any]] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        """Connect to the cluster, or start one.

        Raises:
            UserError: Ray is not installed, no cluster answers, or its Ray or Python is of another version.
        """
        try:
            import ray
        except ImportError as error:
            raise UserError("--launcher ray needs Ray; run: pip install --editable '.[ray]'") from error
        self._ray = ray
        try:
            self._ray.init(
                address=self.address,
                runtime_env=self._runtime_env(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot use the Ray cluster at {self.address or 'this machine'}: {said}") from error
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
        return room if self.jobs is None else min(room, self.jobs)

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
                    yield Outcome(point, (str(error).strip().splitlines()[-1],))
                except self._ray.exceptions.RayError as error:
                    if actor is not None:
                        self._actors.remove(actor)
                    lost = f"its worker was lost ({type(error).__name__})"
                    if attempt >= self.settings.tries:
                        yield Outcome(point, (f"{lost}, as {attempt - 1} times before",))
                    else:
                        click.echo(f"{point.address}: {lost}; trying again, {attempt + 1} of {self.settings.tries}", err=True)
                        waiting.append((point, attempt + 1))

    def _start(self, point: Point, attempt: int, left: int) -> bool:
        """Hand a point to the cluster, unless it has enough to do."""
        actor = self._idle_actor(left) if self.keep_engines else None
        if actor is not None:
            ref = actor.compute.remote(point)
        elif not self.keep_engines and len(self._running) < (self.jobs or _QUEUED):
            task = self._ray.remote(compute_apart).options(max_retries=0, **self._options())
            ref = task.remote(point, self.work, None, self._environment())  # Ray's own process is light and is used again
        else:
            return False
        self._running[ref] = (point, attempt, actor)
        return True

    def _idle_actor(self, left: int) -> Any:
        busy = {id(actor) for _, _, actor in self._running.values()}
        idle = next((actor for actor in self._actors if id(actor) not in busy), None)
        if idle is None and len(self._actors) < min(max(1, self.places), left + len(busy)):
            idle = self._ray.remote(_Settled).options(**self._options()).remote(self.work, self._environment())
            self._actors.append(idle)
        return idle

    def _options(self) -> dict[str, Any]:
        asked = self._asked()
        return {"num_cpus": asked["CPU"], "num_gpus": asked.get("GPU", 0), "memory": asked.get("memory")}

    def _asked(self) -> dict[str, float]:
        asked = self.settings
        amounts = {"CPU": asked.cpus, "GPU": asked.gpus, "memory": int((asked.memory_gib or 0) * 2**30)}
        return {name: amount for name, amount in amounts.items() if amount}

    def _environment(self) -> dict[str, str]:
        """Tell a point how many share its GPU, and its cores."""
        sharing = max(1, round(1 / self.settings.gpus)) if self.settings.gpus else 1
        return {POINTS_AT_ONCE: str(sharing), "OMP_NUM_THREADS": str(max(1, int(self.settings.cpus)))}

    def _runtime_env(self) -> dict[str, Any]:
        given = dict(self.settings.runtime_env)
        if self.settings.ship_project:
            package = Path(__file__).parents[1]
            commit = describe_code(Path.cwd())["commit"]
            given = {"working_dir": str(Path.cwd()), "py_modules": [str(package)], "excludes": _NOT_SHIPPED, **given}
            given["env_vars"] = {"PERSONA_LEAKAGE_COMMIT": commit or "", **given.get("env_vars", {})}
        return given


class _Settled:
    """Actor that computes points in its own process."""

    def __init__(self, work: Work, environment: dict[str, str]) -> None:
        if work.project is not None:
            os.chdir(work.project)
        settle(environment)
        self.work = work

    def compute(self, point: Point) -> Outcome:
        return compute_here(point, self.work)
