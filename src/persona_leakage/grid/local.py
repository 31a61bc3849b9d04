"""Compute points on this machine, in processes of their own or in a few that stay."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import Self

from persona_leakage.domain.cores import cores
from persona_leakage.domain.protocols import POINTS_AT_ONCE
from persona_leakage.grid.compute import die_with
from persona_leakage.grid.launch import Outcome, Processes, Work, compute_apart, compute_here, settle
from persona_leakage.grid.points import Point
from persona_leakage.machine import VISIBLE_GPUS, visible_gpus
from persona_leakage.user_message import user_message


@dataclass
class LocalLauncher:
    """Computes points on this machine; see `Launcher`.

    With several GPUs, every process sees one of them, and they are dealt out in turn.

    Attributes:
        work: what the points have in common.
        places: points at a time.
        keep_engines: compute a job's points one after the other in one process, so that an engine is started once for all of
            them; else every point has a process of its own.
    """

    work: Work
    places: int
    keep_engines: bool = field(kw_only=True)

    def __enter__(self) -> Self:
        """Deal out cores and GPUs, and start the processes that stay, if any."""
        spawn = multiprocessing.get_context("spawn")
        self._processes = Processes()
        self._devices: SimpleQueue[dict[str, str]] = spawn.SimpleQueue()
        for device in job_environments(self.places, visible_gpus()):
            self._devices.put(device)
        if self.keep_engines:
            self._pool: Executor = ProcessPoolExecutor(
                self.places, spawn, initializer=_settle, initargs=(os.getpid(), self._devices)
            )
        else:
            self._pool = ThreadPoolExecutor(self.places)
        return self

    def __exit__(self, *raised: object) -> None:
        """Stop what still runs."""
        if raised[0] is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._processes.stop()
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown()

    def launch(self, points: Sequence[Point]) -> Iterator[Outcome]:
        """Compute points; see `Launcher`."""
        compute = partial(compute_here, work=self.work) if self.keep_engines else self._compute_apart
        futures = {self._pool.submit(compute, point): point for point in points}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield Outcome(futures[future], ("its process was killed, and with it those of other points",))
            except Exception as error:
                yield Outcome(futures[future], (user_message(error) or f"{type(error).__name__}: {error}",))

    def _compute_apart(self, point: Point) -> Outcome:
        device = self._devices.get()
        try:
            return compute_apart(point, self.work, self._processes, device)
        finally:
            self._devices.put(device)


def job_environments(jobs: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Divide cores and GPUs among jobs.

    Returns:
        The environment of each job: its GPU where there are several, and how many jobs share it; its share of the cores where
        there are several jobs, for processes that each take every core are slower than one after the other.
    """
    sharing = -(-jobs // max(1, len(gpus)))
    given = {POINTS_AT_ONCE: str(sharing)}
    if jobs > 1:
        given["OMP_NUM_THREADS"] = str(max(1, cores() // jobs))
    return [given | ({VISIBLE_GPUS: gpus[job % len(gpus)]} if len(gpus) > 1 else {}) for job in range(jobs)]


def _settle(parent: int, devices: "SimpleQueue[dict[str, str]]") -> None:
    die_with(parent)
    settle(devices.get())
