"""The points of a family, and what their run records say of them."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple

from kedro.framework.session import KedroSession

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import digest, fingerprint
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import family_module
from persona_leakage.experiments.points import plan_from_parameters
from persona_leakage.grid.records import CHECKPOINT, CONDITION, SEED, RecordStore, last_whole_run, run_table, seconds_of
from persona_leakage.grid.settings import GridSettings

State = Literal["done", "stale", "missing"]
AXES = ("condition", "seed", "checkpoint")


class Point(NamedTuple):
    """One point.

    Attributes:
        reference: condition that it is compared with, if any.
        first_stage: identifies the stage that it begins with, apart from seed and checkpoint, where another stage follows.
        folder: where its run record lies: a path, or the URL of one.
        state: whether what the parameters say has been computed.
        seconds: what its last whole run took.
        plan: fingerprint of what the parameters say it is; None where nothing has asked for it.
    """

    family: str
    condition: str
    seed: int
    checkpoint: int | None
    reference: str | None
    first_stage: str | None
    folder: str
    state: State
    seconds: float | None
    plan: str | None

    @property
    def params(self) -> dict[str, str | int]:
        """What `--params` must say to mean this point."""
        point: dict[str, str | int] = {"condition": self.condition, "seed": self.seed}
        return point if self.checkpoint is None else point | {"checkpoint": self.checkpoint}

    @property
    def name(self) -> str:
        """Name the point in a sentence."""
        return f"{self.condition} seed {self.seed}" + ("" if self.checkpoint is None else f" epoch {self.checkpoint}")


class Address(NamedTuple):
    """Names a point; None means what the parameters say."""

    condition: str | None = None
    seed: int | None = None
    checkpoint: int | None = None


def has_checkpoints(family: str) -> bool:
    """Tell whether a point of the family is of one checkpoint among several."""
    return "checkpoints" in family_module(family).Settings.model_fields


class Study:
    """A family's points under one environment and the parameters given at run time."""

    def __init__(self, family: str, env: str | None, params: Mapping[str, object]) -> None:
        """Load the configuration.

        Raises:
            UserError: the parameters do not fit.
        """
        self.family = family
        self.env = env or os.environ.get("KEDRO_ENV")  # which other machines do not know
        self.params = dict(params)
        self._context = _context(env, self.params)
        self._parameters = self._context.config_loader["parameters"]
        self._design = cache(self._new_design)
        # the catalog only after our own checks: making it validates the parameters Kedro's way, which ends in a traceback
        self._load = cache(lambda name: self._context.catalog.load(name))
        self.settings = GridSettings.checked(self._parameters["grid"], "grid")

    def save_runs(self) -> None:
        """Put all runs of all points into one table beside the report."""
        table = run_table(self.family, (run for _, runs in self.records.read() for run in runs))
        self._context.catalog.save(f"{self.family}.runs", table)

    @cached_property
    def records(self) -> RecordStore:
        """Where the run records of the family lie."""
        point: dict[str, object] = {"condition": CONDITION, "seed": SEED}
        if has_checkpoints(self.family):
            point["checkpoint"] = CHECKPOINT
        record = _context(self.env, point).catalog[f"{self.family}.run_record"]
        return RecordStore(record._fs, str(record._filepath))

    @cached_property
    def _settings(self) -> Any:
        return family_module(self.family).Settings.checked(self._parameters[self.family], self.family)

    @property
    def checkpoints(self) -> list[int | None]:
        """The checkpoints that parameters without one mean: all of the family; None stands for a family that has none."""
        if self._parameters["checkpoint"] is not None:
            return [int(self._parameters["checkpoint"])]
        return list(getattr(self._settings, "checkpoints", [None]))

    def addresses(self, axes: Mapping[str, Sequence[str]]) -> list[Address]:
        """List the points of a grid; an axis that is not named takes all conditions, the parameters' seed, all checkpoints.

        Raises:
            UserError: there is no such axis, or a seed or checkpoint is no whole number.
        """
        known = AXES if has_checkpoints(self.family) else AXES[:2]
        if unknown := [name for name in axes if name not in known]:
            raise UserError(f"--axes: {self.family} has no axis '{unknown[0]}'; known: {', '.join(known)}")
        for name, values in axes.items():
            if name != "condition" and (bad := [value for value in values if not value.isdecimal()]):
                raise UserError(f"--axes {name}: {', '.join(bad)} is no whole number; give some such as {name}=42,137")
        seeds = list(map(int, axes["seed"])) if "seed" in axes else [self._seed]
        epochs = list(map(int, axes["checkpoint"])) if "checkpoint" in axes else self.checkpoints
        conditions = axes.get("condition") or self._settings.conditions
        return [Address(condition, seed, epoch) for condition in conditions for seed in seeds for epoch in epochs]

    def find(self, addresses: Sequence[Address]) -> list[Point]:
        """Resolve points and look up their state.

        Raises:
            UserError: a condition or checkpoint is unknown, the parameters do not fit, or a run record is damaged.
        """
        found = []
        for address in addresses:
            design = self._design(address.condition, address.checkpoint)
            seed = self._seed if address.seed is None else address.seed
            plan = design.plan
            found.append(
                Point(
                    family=self.family,
                    condition=plan.condition,
                    seed=seed,
                    checkpoint=plan.checkpoint,
                    reference=plan.reference,
                    first_stage=design.first_stage,
                    folder=self.records.folder(plan.condition, seed, plan.checkpoint),
                    state="missing",
                    seconds=None,
                    plan=None,
                )
            )
        last: dict[str, tuple[str, float]] = {}
        for folder, runs in self.records.read({point.folder for point in found}):
            if run := last_whole_run(self.family, runs):
                last[folder] = (run["plan"], seconds_of(run))
        return [self._seen(point, *last[point.folder]) if point.folder in last else point for point in found]

    def with_references(self, points: Sequence[Point]) -> list[Point]:
        """Put the points that others are compared with before them, where they are not among them."""
        named = {(point.condition, point.seed) for point in points}
        absent = {(point.reference, point.seed) for point in points if point.reference} - named
        return self.find([Address(*reference) for reference in sorted(absent)]) + list(points)

    def identified(self, point: Point) -> Point:
        """Note the fingerprint of what the parameters say the point is."""
        return point._replace(plan=self._design(point.condition, point.checkpoint).fingerprint(point.seed))

    def plan(self, point: Point) -> Plan:
        """Resolve what the parameters say the point is."""
        return self._design(point.condition, point.checkpoint).plan_at(point.seed)

    def _seen(self, point: Point, plan: str, seconds: float) -> Point:
        point = self.identified(point)
        return point._replace(state="done" if plan == point.plan else "stale", seconds=seconds)

    @property
    def _seed(self) -> int:
        seed = self._parameters["seed"]
        if type(seed) is not int or seed < 0:
            raise UserError(f"seed: {seed} is no whole number; give one such as 42")
        return seed

    def _new_design(self, condition: str | None, checkpoint: int | None) -> "_Design":
        given = {name: value for name, value in (("condition", condition), ("checkpoint", checkpoint)) if value is not None}
        return _Design(lambda seed: plan_from_parameters(self.family, self._parameters, self._load, seed=seed, **given))


class _Design:
    """What the points of one condition [x checkpoint] are, whatever their seed.

    Resolving a plan takes milliseconds, and a grid may have 100,000 points. Plans of two seeds differ only in numbers that
    are the seed plus a constant, so one plan tells the fingerprints of all; that this holds is tried on a second one.
    """

    _ANY = 10**9  # stands for any seed: no other number of a plan is as large

    def __init__(self, plan_at: Callable[[int], Plan]) -> None:
        self.plan_at = plan_at
        self.plan = plan_at(self._ANY)
        stages = list(self.plan.stages.values())
        shares = len(stages) > 1 and stages[0].checkpoint != 0
        self.first_stage = fingerprint(stages[0].model_dump(mode="json", exclude={"checkpoint"})) if shares else None

    def fingerprint(self, seed: int) -> str:
        return self._filled(seed) if self._follows_seed else self.plan_at(seed).fingerprint

    @cached_property
    def _follows_seed(self) -> bool:
        other = self._ANY // 2
        return self._filled(other) == self.plan_at(other).fingerprint

    @cached_property
    def _parts(self) -> list[str]:
        return re.split(r"(?<=[:,\[])(1000\d{6})(?=[,}\]])", self.plan.content)

    def _filled(self, seed: int) -> str:
        parts = (str(int(part) - self._ANY + seed) if place % 2 else part for place, part in enumerate(self._parts))
        return digest("".join(parts))


def waves(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Order points so that none waits for what another is making.

    First those which others are compared with; then, of the points that begin with the same stage, one that trains it; then
    the rest.
    """
    compared = [point for point in points if point.reference == point.condition]
    others = [point for point in points if point.reference != point.condition]
    makers: dict[tuple[str, int], Point] = {}
    for point in others:
        if point.first_stage:
            makers.setdefault((point.first_stage, point.seed), point)
    ahead = list(makers.values()) if len(makers) < len(others) else []
    first = {point.folder for point in ahead}
    yield from (wave for wave in (compared, ahead, [point for point in others if point.folder not in first]) if wave)


def _context(env: str | None, params: dict[str, object]) -> Any:
    with KedroSession.create(env=env, runtime_params=params) as session:
        return session.load_context()  # type: ignore[attr-defined]
