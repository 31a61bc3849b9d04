"""The contract of a family: what its wing offers, and the one door to its plans."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd
from kedro.pipeline import Pipeline
from pydantic import Field

from persona_leakage.domain.dose import Dose, DoseRule, NoDoseError
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, Seed
from persona_leakage.domain.geometry import PromptSet
from persona_leakage.domain.languages import Band
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.personas import Persona, Roster, UserQuestion
from persona_leakage.domain.plan import Plan, Stage
from persona_leakage.domain.points import MATCHED, Address, model_of
from persona_leakage.domain.variants import Variant, Variants
from persona_leakage.experiments import family_of, is_replay, replay_of
from persona_leakage.pipelines.reporting.pipeline import Report

QUESTIONS = "questions"  # dataset that every roster takes its questions from


class FamilyCondition(Frozen):
    """What the conditions of families that pool them have.

    Attributes:
        follow_up: it varies a condition of the study, so it enters no pooled number; nothing of it depends on this.
    """

    follow_up: bool = False


class Escalation(Band):
    """When more seeds are called for: a mean inside the band, in a row of the family's table `replicates`.

    Attributes:
        seeds: that are run then, and no others.
    """

    seeds: tuple[Seed, ...] = Field(min_length=1)


class FamilySettings(Frozen):
    """A family's block of the parameters; every family adds its own keys.

    Attributes:
        family: its name.
        default_condition: what a run without a condition means.
        followed: the stage that leaks, whose dose is looked for; the last of the family's.
        conditions: name → condition; a grid takes all of them when none is named.
        matched_dose: what a point at `dose=matched` is.
    """

    family: ClassVar[str]
    followed: ClassVar[str]
    default_condition: str
    conditions: Mapping[str, Any]
    matched_dose: DoseRule

    @property
    def follow_ups(self) -> tuple[str, ...]:
        """The conditions that enter no pooled number."""
        return tuple(name for name, one in self.conditions.items() if isinstance(one, FamilyCondition) and one.follow_up)

    @property
    def epochs(self) -> tuple[int, ...]:
        """The checkpoints of the first stage that points stop at; none in a family whose points are no checkpoints."""
        return ()

    @property
    def escalates(self) -> Escalation | None:
        """When more seeds are called for; None in a family that has no such rule."""
        return None

    def plan(self, address: Address, base_model: BaseModel, roster: Roster | None = None) -> Plan:
        """Resolve one point.

        Raises:
            UserError: something that the address or the settings name is unknown.
        """
        given = {"family": self.family, "address": address, "base_model": base_model, "reference": None}
        resolved = self.resolve(address, roster)
        if address.dose == MATCHED:
            resolved = {**resolved, **self._at_matched_dose(address, resolved, roster)}
        return Plan.checked({**given, **resolved}, "point")

    def _at_matched_dose(self, address: Address, resolved: Mapping[str, Any], roster: Roster | None) -> dict[str, Any]:
        stages: Mapping[str, Stage] = resolved["stages"]
        if self.followed not in stages:
            raise NoDoseError(
                f"{self.family}: {address.condition} does not train the stage '{self.followed}', so it has no matched dose; "
                "leave out dose=matched"
            )
        stage, rule = stages[self.followed], self.matched_dose
        try:
            recipe = stage.recipe.kept_at(rule.checkpoints, rule.unit)
        except UserError as error:
            raise UserError(f"{self.family}.matched_dose.checkpoints: {error}; name others") from error
        prompts, trained = self.gauge(address, resolved, roster)
        given = {name: getattr(rule, name) for name in DoseRule.model_fields}
        dose = Dose(**given, stage=self.followed, prompts=prompts, trained=trained, sampling=resolved["evaluation"].sampling)
        return {"stages": {**stages, self.followed: stage.model_copy(update={"recipe": recipe})}, "dose": dose}

    def gauge(self, address: Address, resolved: Mapping[str, Any], roster: Roster | None) -> tuple[PromptSet, str]:
        """Choose the prompts of a point's gauge, and the cell of them whose rate it is.

        Args:
            address: of the point.
            resolved: see `resolve`.
            roster: of the family.

        Raises:
            NoDoseError: there is no prompt that the evaluation does not use, or no trained cell.
        """
        raise NotImplementedError

    def replay(self, address: Address, base_model: BaseModel, roster: Roster | None, file: str) -> Plan:
        """Resolve what results that were made elsewhere are scored as; nothing is trained. Only of families with a replay."""
        given = {"family": replay_of(self.family), "address": address, "base_model": base_model, "reference": None}
        return Plan.checked({**given, "replayed_file": file, **self.resolve_replay(address, roster)}, "point")

    def resolve(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve the parts of a point's plan that the family decides: stages, evaluation, scoring, geometry and the rest.

        Raises:
            UserError: something that the address or the settings name is unknown.
        """
        raise NotImplementedError

    def resolve_replay(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve the same parts of a replay's plan; its stages are empty."""
        raise NotImplementedError


@dataclass(frozen=True)
class Replay:
    """How results that were made elsewhere are scored as the family scores its own.

    Attributes:
        parameter: names the file.
        outside: dataset that reads it.
        adopt: node function that is given the results and the plan, and returns what a run would have made.
        adopted: what that is.
        stage: that it belongs to.
        scoring: composes what lies between that and the gathered tables.
        condition: of a file that names its own conditions; None where `--params condition=` says which one the file is of.
    """

    parameter: str
    outside: str
    adopt: Callable[..., Any]
    adopted: str | list[str]
    stage: str
    scoring: Callable[[], Pipeline]
    condition: str | None = None


@dataclass(frozen=True)
class Family:
    """What a wing offers to registry, hooks, grid and preflight.

    Attributes:
        name: of the wing, of its block of the parameters and of its pipeline.
        settings: type of that block.
        stages: composes a point's own stages, from the base stack to its tables.
        gathered: table of a point → what the table of all points is called, the rates first.
        report: makes tables, figures and the report of the gathered tables.
        keep: table of a point → which of its rows are gathered; see `experiments.points.gather_tables`.
        personas: datasets whose personas make its roster; without any it has none.
        replay: None where it has none.
        has_checkpoints: a point is of one checkpoint among several.
    """

    name: str
    settings: type[FamilySettings]
    stages: Callable[[], Pipeline]
    gathered: Mapping[str, str]
    report: Report
    keep: Mapping[str, Callable[..., pd.DataFrame]] = field(default_factory=dict)
    personas: tuple[str, ...] = ()
    replay: Replay | None = None
    has_checkpoints: bool = False


def read_variants(family: Family, parameters: Mapping[str, Any]) -> Variants[Any]:
    """Check a family's settings for every base model.

    Raises:
        UserError: a key or a value does not fit; the message names it as the user wrote it.
    """
    family.settings.checked(parameters[family.name], family.name)  # what fits there and not below is the model's
    if taken := [name for name in parameters["models"] if model_of(name) != name]:
        raise UserError(f"models.{taken[0]}: such an ending means the model at matched dose; call it otherwise")

    def named(model: str) -> str:
        changes = parameters["models"][model].get("settings") or {}
        return f"models.{model}.settings.{family.name}" if family.name in changes else family.name

    models = {
        name: Variant[Any](
            base_model=BaseModel.checked(raw["base_model"], f"models.{name}"),
            settings=family.settings.checked(raw["settings"], named(name)),
        )
        for name, raw in parameters["variants"][family.name]["models"].items()
    }
    return Variants[Any](models=models)


def build_roster(questions: list[UserQuestion], *personas: list[Persona]) -> Roster:
    """Put questions and personas together, and check them as a whole.

    Raises:
        UserError: a file is empty, a name repeats or a relation leads nowhere.
    """
    for name, rows in ((QUESTIONS, questions), ("personas", personas[0])):
        if not rows:
            raise UserError(f"the file of dataset '{name}' is empty; add rows to it")
    everyone = [one for rows in personas for one in rows]
    return Roster.checked({"personas": everyone, "questions": questions}, "personas and questions")


def read_roster(family: Family, load: Callable[[str], Any]) -> Roster | None:
    """Build a family's roster from the catalog; None where it has none."""
    return build_roster(load(QUESTIONS), *map(load, family.personas)) if family.personas else None


def plan_point(
    model: str,
    condition: str | None,
    seed: int,
    checkpoint: int | None,
    dose: str,
    variants: Variants[FamilySettings],
    roster: Roster | None = None,
) -> Plan:
    """Resolve the point that the parameters name: without a condition the family's default, without a checkpoint the last.

    Raises:
        UserError: something that they name is unknown.
    """
    variant = variants.of(model)
    settings = variant.settings
    if checkpoint is None and settings.epochs:
        checkpoint = settings.epochs[-1]
    address = _address(model, settings.default_condition if condition is None else condition, seed, checkpoint, dose)
    plan = settings.plan(address, variant.base_model, roster)
    if checkpoint is not None and not settings.epochs:
        raise UserError(f"{plan.family} has no checkpoints; leave out checkpoint={checkpoint}")
    return plan


def plan_replay(
    model: str,
    condition: str | None,
    seed: int,
    checkpoint: int | None,
    dose: str,
    variants: Variants[FamilySettings],
    replayed_file: str | None,
    roster: Roster | None = None,
    *,
    replay: Replay,
) -> Plan:
    """Resolve what results that were made elsewhere are scored as.

    Raises:
        UserError: no file is given, or a checkpoint or matched dose is.
    """
    if replayed_file is None:
        others = "" if replay.condition else "condition=…,"
        raise UserError(f"a replay needs a file to score: --params {others}{replay.parameter}=PATH")
    if checkpoint is not None:
        raise UserError(f"a replay has no checkpoints; leave out checkpoint={checkpoint}")
    if dose == MATCHED:
        raise UserError("a replay has no dose, which nobody knows here; leave out dose=matched")
    variant = variants.of(model)
    named = replay.condition or (variant.settings.default_condition if condition is None else condition)
    return variant.settings.replay(_address(model, named, seed, None, dose), variant.base_model, roster, replayed_file)


def resolve_plan(pipeline: str, parameters: Mapping[str, Any], load: Callable[[str], Any]) -> Plan:
    """Resolve the point that a project's parameters name, as the first node of a run does.

    Args:
        pipeline: name of a family, or of its replay.
        parameters: as the configuration loads them.
        load: returns a dataset of the catalog.

    Raises:
        UserError: the parameters do not fit their types, or something that they name is unknown.
    """
    family = family_of(pipeline)
    given = {name: parameters[name] for name in ("model", "condition", "seed", "checkpoint", "dose")}
    variants, roster = read_variants(family, parameters), read_roster(family, load)
    if is_replay(pipeline) and family.replay:
        file = parameters[family.replay.parameter]
        return plan_replay(**given, variants=variants, replayed_file=file, roster=roster, replay=family.replay)
    return plan_point(**given, variants=variants, roster=roster)


def _address(model: str, condition: str, seed: int, checkpoint: int | None, dose: str) -> Address:
    given = {"model": model, "condition": condition, "seed": seed, "checkpoint": checkpoint, "dose": dose}
    return Address.checked(given, "point")
