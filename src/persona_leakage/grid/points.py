"""The points of a family, and what their run records say of them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

from kedro.framework.session import KedroSession

from persona_leakage.domain.dose import NoDoseError
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import SEEDS, fingerprint
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.points import MATCHED, Address, DoseName
from persona_leakage.domain.variants import Variants
from persona_leakage.experiments import family_of
from persona_leakage.experiments.family import Family, FamilySettings, read_roster, read_variants, resolve_plan
from persona_leakage.experiments.points import Design, Designs
from persona_leakage.grid.records import CHECKPOINT, CONDITION, MODEL, SEED, RecordStore, last_whole_run, run_table, seconds_of
from persona_leakage.grid.settings import GridSettings

State = Literal["done", "stale", "missing"]
AXES = ("model", "condition", "seed", "checkpoint", "dose")


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
    address: Address
    reference: str | None
    first_stage: str | None
    folder: str
    state: State = "missing"
    seconds: float | None = None
    plan: str | None = None


class Study:
    """A family's points under one environment and the parameters given at run time."""

    def __init__(self, family: str, env: str | None, params: Mapping[str, object]) -> None:
        """Load the configuration.

        Raises:
            UserError: the parameters do not fit.
        """
        self.family: Family = family_of(family)
        self.env = env or os.environ.get("KEDRO_ENV")  # which other machines do not know
        self.context = _context(env, dict(params))
        self._parameters = self.context.config_loader["parameters"]
        settled = self._parameters["auto_dtype"]  # told to other processes and machines, or their points would be others
        self.params = {**params, **({"auto_dtype": settled} if settled else {})}
        self.settings = GridSettings.checked(self._parameters["grid"], "grid")
        self.variants: Variants[FamilySettings] = read_variants(self.family, self._parameters)

    def save_runs(self) -> None:
        """Put all runs of all points into one table beside the report."""
        table = run_table(self.family.name, (run for _, runs in self.records.read() for run in runs))
        self.context.catalog.save(f"{self.family.name}.runs", table)

    @cached_property
    def records(self) -> RecordStore:
        """Where the run records of the family lie."""
        point: dict[str, object] = {"model": MODEL, "condition": CONDITION, "seed": SEED, "dose": "final"}
        if self.family.has_checkpoints:
            point["checkpoint"] = CHECKPOINT
        record = _context(self.env, point).catalog[f"{self.family.name}.run_record"]
        return RecordStore(record._fs, str(record._filepath))

    @cached_property
    def _designs(self) -> Designs:
        # the catalog only after our own checks: making it validates the parameters Kedro's way, which ends in a traceback
        return Designs(self.variants, read_roster(self.family, lambda name: self.context.catalog.load(name)))

    @property
    def model(self) -> str:
        """The base model that the parameters name."""
        return str(self._parameters["model"])

    @property
    def condition(self) -> str:
        """The condition that the parameters mean: the one given at run time, else the family's default."""
        given = self.params.get("condition")
        return self.variants.of(self.model).settings.default_condition if given is None else str(given)

    @property
    def seed(self) -> int:
        """The seed that the parameters name.

        Raises:
            UserError: it is no whole number of 32 bits.
        """
        seed = self._parameters["seed"]
        if type(seed) is not int or seed < 0:
            raise UserError(f"seed: {seed} is no whole number; give one such as 42")
        return _of_32_bits(seed, "seed")

    @property
    def dose(self) -> str:
        """The dose that the parameters name."""
        return str(self._parameters["dose"])

    def addresses(self, axes: Mapping[str, Sequence[str]]) -> list[Address]:
        """List the points of a grid.

        An axis that is not named takes the parameters' model, all conditions, the parameters' seed and dose, their checkpoint
        or all. A condition that has no matched dose stands there once, at the end of training.

        Raises:
            UserError: there is no such axis or dose, a seed or checkpoint is no whole number, a seed has more than 32 bits, or
                the family has no checkpoints.
        """
        known = [name for name in AXES if name != "checkpoint" or self.family.has_checkpoints]
        if unknown := [name for name in axes if name not in known]:
            raise UserError(f"--axes: {self.family.name} has no axis '{unknown[0]}'; known: {', '.join(known)}")
        for name, values in axes.items():
            if name in ("seed", "checkpoint") and (bad := [value for value in values if not value.isdecimal()]):
                raise UserError(f"--axes {name}: {', '.join(bad)} is no whole number; give some such as {name}=42,137")
        seeds = [_of_32_bits(int(seed), "--axes seed") for seed in axes["seed"]] if "seed" in axes else [self.seed]
        given = axes.get("checkpoint", [self._parameters["checkpoint"]])
        epochs: list[int | None] = [] if given == [None] else list(map(int, given))
        if epochs and not self.family.has_checkpoints:
            raise UserError(f"{self.family.name} has no checkpoints; leave out checkpoint={epochs[0]}")
        doses: Sequence[Any] = axes.get("dose", [self.dose])
        if bad := [dose for dose in doses if dose not in get_args(DoseName)]:
            raise UserError(f"dose: there is no dose '{bad[0]}'; known: {', '.join(get_args(DoseName))}")
        named = [
            Address(model=model, condition=condition, seed=seed, checkpoint=epoch, dose=dose)
            for model in axes.get("model", [self.model])
            for condition in axes.get("condition") or self.variants.of(model).settings.conditions
            for seed in seeds
            for epoch in epochs or self.variants.of(model).settings.epochs or [None]
            for dose in sorted(doses, key=[MATCHED, "final"].index)  # the former's training has all that the latter's needs
        ]
        return list(dict.fromkeys(self._with_its_dose(one) for one in named))

    def _with_its_dose(self, address: Address) -> Address:
        if address.dose == MATCHED:
            try:
                self._designs.of(address)
            except NoDoseError:
                return address.model_copy(update={"dose": "final"})
        return address

    def find(self, addresses: Sequence[Address]) -> list[Point]:
        """Resolve points and look up their state.

        Raises:
            UserError: something that an address names is unknown, the parameters do not fit, or a run record is damaged.
        """
        designs = [self._designs.of(address) for address in addresses]
        folders = [self.records.folder(address) for address in addresses]
        last: dict[str, tuple[str, float]] = {}
        for folder, runs in self.records.read(set(folders)):
            if run := last_whole_run(self.family.name, runs):
                last[folder] = (run["plan"], seconds_of(run))
        found = []
        for address, design, folder in zip(addresses, designs, folders, strict=True):
            point = Point(self.family.name, address, design.plan.reference, _first_stage(design), folder)
            if folder in last:
                ran, seconds = last[folder]
                plan = design.fingerprint(address.seed)
                point = point._replace(state="done" if ran == plan else "stale", seconds=seconds, plan=plan)
            found.append(point)
        return found

    def check(self, pipeline: str) -> None:
        """Resolve what the parameters say a run of the family, or of its replay, is of.

        Raises:
            UserError: the parameters do not fit, or something that they name is unknown.
        """
        resolve_plan(pipeline, {**self._parameters, "seed": self.seed}, lambda name: self.context.catalog.load(name))

    def with_references(self, points: Sequence[Point]) -> list[Point]:
        """Put the points that others are compared with before them, where they are not among them."""
        named = {point.address for point in points}
        wanted = {  # nothing that is followed is trained there
            point.address.model_copy(update={"condition": point.reference, "dose": "final"})
            for point in points
            if point.reference
        }
        absent = sorted(wanted - named, key=lambda one: (one.model, one.condition, one.seed))
        return self.find(absent) + list(points)

    def identified(self, point: Point) -> Point:
        """Note the fingerprint of what the parameters say the point is."""
        return point._replace(plan=self._designs.of(point.address).fingerprint(point.address.seed))

    def plan(self, point: Point) -> Plan:
        """Resolve what the parameters say the point is."""
        return self._designs.of(point.address).plan.model_copy(update={"address": point.address})


def _of_32_bits(seed: int, name: str) -> int:
    if seed >= SEEDS:
        raise UserError(f"{name}: {seed} is above {SEEDS - 1}; give one such as 42")
    return seed


def _first_stage(design: Design) -> str | None:
    stages = list(design.plan.stages.values())
    if len(stages) < 2 or stages[0].checkpoint == 0:
        return None
    return fingerprint(design.plan.base_model.identity, stages[0].model_dump(mode="json", exclude={"checkpoint"}))


def waves(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Order points so that none waits for what another is making.

    First those which others are compared with; then, of the points that begin with the same stage, one that trains it; then
    the rest; of one training first the point at matched dose, which keeps more of it.
    """
    compared = [point for point in points if point.reference == point.address.condition]
    others = [point for point in points if point.reference != point.address.condition]
    makers: dict[tuple[str, int], Point] = {}
    for point in others:
        if point.first_stage:
            makers.setdefault((point.first_stage, point.address.seed), point)
    ahead = list(makers.values()) if len(makers) < len(others) else []
    first = {point.folder for point in ahead}
    rest = [point for point in others if point.folder not in first]
    kept = {point.address.model_copy(update={"dose": "final"}) for point in rest if point.address.dose == MATCHED}
    first_of_two = [point for point in rest if point.address not in kept]
    after = [point for point in rest if point.address in kept]
    yield from (wave for wave in (compared, ahead, first_of_two, after) if wave)


def _context(env: str | None, params: dict[str, object]) -> Any:
    with KedroSession.create(env=env, runtime_params=params) as session:
        return session.load_context()  # type: ignore[attr-defined]
