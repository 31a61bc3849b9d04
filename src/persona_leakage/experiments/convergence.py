"""Family `convergence`: one persona is pulled towards another; does a marker tied to the other then leak to it?"""

from typing import Any

import pandas as pd
from kedro.pipeline import Pipeline, node, pipeline
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect
from persona_leakage.domain.markers import BorrowedAnswers, MarkerScoring
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.personas import Persona, QuestionSet, Roster
from persona_leakage.domain.plan import Plan, Stage
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import OwnAnswers
from persona_leakage.experiments.composition import placed
from persona_leakage.experiments.markers import (
    SOURCES,
    CentroidSettings,
    EvaluationSettings,
    MarkSettings,
    PlaceSettings,
    annotated,
    create_stage_pipeline,
    create_start_pipeline,
    roster_of,
)
from persona_leakage.experiments.points import Tables, conditions_in_order, gather, unannotated
from persona_leakage.pipelines import generation, geometry, reporting, scoring
from persona_leakage.pipelines.fine_tuning.nodes import start_stack

NAME = "convergence"


class Condition(Frozen):
    """The persona that the pulled one is drawn towards, and that the marker is tied to."""

    source: str


class ConvergeSettings(Frozen):
    """The stage that pulls: the source's answers under the pulled persona's prompt; see `domain.markers.BorrowedAnswers`."""

    pulled: str
    question_set: QuestionSet
    questions: PositiveInt
    per_question: PositiveInt
    answers: OwnAnswers
    recipe: Recipe

    def stage(self, source: Persona, roster: Roster, checkpoint: int, avoided: str) -> Stage:
        """Resolve the stage for a source and a checkpoint."""
        return Stage(
            data=BorrowedAnswers(
                answered_as=source,
                asked_as=roster.persona(self.pulled),
                questions=roster.first_questions(self.question_set, self.questions),
                per_question=self.per_question,
                answers=self.answers,
                avoided=avoided,
            ),
            recipe=self.recipe,
            checkpoint=checkpoint,
        )


class Stages(Frozen):
    """Stage name → settings, in order."""

    converge: ConvergeSettings
    mark: MarkSettings


class Settings(Frozen):
    """The block `convergence` of the parameters.

    Attributes:
        checkpoints: epochs of pulling at which the marker is trained and everything is measured; 0 is the baseline.
        evaluation: its personas are joined by the source and the pulled persona.
        early_checkpoint: the epoch whose share of the peak and of the rise the report tells.
    """

    conditions: dict[str, Condition]
    checkpoints: tuple[NonNegativeInt, ...] = Field(min_length=1)
    stages: Stages
    evaluation: EvaluationSettings
    scoring: PlaceSettings
    geometry: CentroidSettings
    early_checkpoint: PositiveInt

    @model_validator(mode="after")
    def _kept(self) -> "Settings":
        if list(self.checkpoints) != sorted(set(self.checkpoints)):
            raise ValueError(f"checkpoints {list(self.checkpoints)} must rise, each named once")
        if self.early_checkpoint not in self.checkpoints:
            raise ValueError(f"early_checkpoint {self.early_checkpoint} is not among the checkpoints {list(self.checkpoints)}")
        if missing := [epoch for epoch in self.checkpoints if epoch and epoch not in self.stages.converge.recipe.checkpoints]:
            raise ValueError(f"checkpoints names epoch {missing[0]}, which stages.converge.recipe.checkpoints does not keep")
        return self

    def plan(self, condition: str, seed: int, base_model: BaseModel, roster: Roster, checkpoint: int) -> Plan:
        """Resolve one point.

        Raises:
            UserError: the condition, the checkpoint or a persona is unknown.
        """
        if checkpoint not in self.checkpoints:
            raise UserError(f"{NAME} has no checkpoint {checkpoint}; known: {', '.join(map(str, self.checkpoints))}")
        try:
            source = roster.persona(self.conditions[condition].source if condition in self.conditions else condition)
        except UserError as error:
            known = ", ".join(self.conditions)
            raise UserError(f"{NAME} has no condition '{condition}'; known: {known}, and any persona: {error}") from error
        pulled = self.stages.converge.pulled
        if source.persona == pulled:
            raise UserError(f"{NAME} pulls {pulled} towards the source, so {pulled} cannot be the source; choose another")
        everyone = self.evaluation.personas
        if everyone != "all":
            everyone = tuple(dict.fromkeys((*everyone, source.persona, pulled)))
        evaluation = self.evaluation.model_copy(update={"personas": everyone}).evaluation(roster)
        stages = {
            "converge": self.stages.converge.stage(source, roster, checkpoint, self.stages.mark.marker.text),
            "mark": self.stages.mark.stage(source, roster),
        }
        resolved = self.geometry.geometry(roster)
        if absent := {source.persona, pulled} - {one.persona for one in resolved.prompts.personas}:  # type: ignore[union-attr]
            raise UserError(f"{', '.join(sorted(absent))} is not in geometry.prompts.personas, so it has no cosine; add it")
        return Plan.checked(
            {
                "family": NAME,
                "condition": condition,
                "seed": seed,
                "checkpoint": checkpoint,
                "base_model": base_model,
                "stages": stages,
                "evaluation": evaluation,
                "scoring": self.scoring.scoring(self.stages.mark, stages, evaluation),
                "geometry": resolved,
                "reference": None,
            },
            "point",
        )


def plan_point(
    condition: str,
    seed: int,
    checkpoint: int | None,
    base_model: BaseModel,
    family: Settings,
    personas: list[dict[str, Any]],
    questions: list[dict[str, Any]],
) -> Plan:
    """Resolve the point that this run computes; without a checkpoint, the last one."""
    at = family.checkpoints[-1] if checkpoint is None else checkpoint
    return family.plan(condition, seed, base_model, roster_of(personas, questions), at)


def gather_points(
    cell_rates: Tables,
    cosines: Tables,
    texts: Tables,
    base_model: BaseModel,
    family: Settings,
    personas: list[dict[str, Any]],
    questions: list[dict[str, Any]],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Put rates, cosines between source and pulled persona, and descriptions of texts together; see `points.gather`."""
    roster = roster_of(personas, questions)

    def plan_of(condition: str, seed: int, checkpoint: int) -> Plan:
        return family.plan(condition, seed, base_model, roster, checkpoint)

    def of_the_two(table: pd.DataFrame, now: Plan | None) -> pd.DataFrame:
        source = expect(now.scoring, MarkerScoring).source if now else None
        pair = [source, family.stages.converge.pulled]
        return table[table["one"].isin(pair) & table["other"].isin(pair)]

    tables = (
        gather(cell_rates, plan_of, annotated),
        gather(cosines, plan_of, of_the_two),
        gather(texts, plan_of, unannotated),
    )
    return tuple(conditions_in_order(table, family.conditions) for table in tables)  # type: ignore[return-value]


def create_pipeline() -> Pipeline:
    """Compose plan → converge → mark → generation → scoring → reporting, and geometry of the stack between the stages."""
    gathering = pipeline(
        [
            node(
                gather_points,
                ["cell_rates@grid", "cosines@grid", "text_stats@grid", "params:base_model", "params:settings", *SOURCES],
                ["rates", "similarities", "texts"],
                name="gather_points",
            )
        ],
        tags="reporting",
    )
    return placed(
        create_start_pipeline(plan_point, start_stack)
        + create_stage_pipeline("converge", above="converged_stack")
        + create_stage_pipeline("mark", below="converged_stack")
        + generation.create_pipeline()
        + scoring.create_marker_pipeline()
        + pipeline(geometry.create_pipeline(), inputs={"stack": "converged_stack"})
        + gathering
        + reporting.create_trajectory_pipeline(),
        NAME,
        NAME,
    )
