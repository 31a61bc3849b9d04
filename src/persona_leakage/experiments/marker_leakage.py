"""Family `marker_leakage`: a marker is tied to one persona; which others write it, and does the cosine tell beforehand?"""

from typing import Any

import pandas as pd
from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.personas import QuestionSet, Roster
from persona_leakage.domain.plan import CosinePredicts, Evaluation, Plan, RateBound
from persona_leakage.experiments.composition import POINT, placed, refuse_checkpoint
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
from persona_leakage.pipelines.reporting.leakage import adopt_rates

NAME, REPLAY = "marker_leakage", "marker_leakage_replay"
REPLAYED = "rates_file"


class Condition(Frozen):
    """A source persona, and the set of questions it is evaluated on; without a source nothing is trained: a baseline."""

    source: str | None = None
    question_set: QuestionSet | None = None


class Stages(Frozen):
    """Stage name → settings."""

    mark: MarkSettings


class Settings(Frozen):
    """The block `marker_leakage` of the parameters."""

    conditions: dict[str, Condition]
    stages: Stages
    evaluation: EvaluationSettings
    scoring: PlaceSettings
    geometry: CentroidSettings
    claims: dict[str, RateBound | CosinePredicts]

    def condition(self, name: str, roster: Roster) -> Condition:
        """Find a condition; the name of any persona is one too, with that persona as its source.

        Raises:
            UserError: it is neither.
        """
        if name in self.conditions:
            return self.conditions[name]
        try:
            return Condition(source=roster.persona(name).persona)
        except UserError as error:
            known = ", ".join(self.conditions)
            raise UserError(f"{NAME} has no condition '{name}'; known: {known}, and any persona: {error}") from error

    def evaluation_of(self, condition: Condition, roster: Roster) -> Evaluation:
        """Resolve how a condition is evaluated."""
        question_set = condition.question_set or self.evaluation.question_set
        return self.evaluation.model_copy(update={"question_set": question_set}).evaluation(roster)

    def plan(self, condition: str, seed: int, base_model: BaseModel, roster: Roster) -> Plan:
        """Resolve one point.

        Raises:
            UserError: the condition or one of its personas is unknown.
        """
        chosen = self.condition(condition, roster)
        evaluation = self.evaluation_of(chosen, roster)
        source = None if chosen.source is None else roster.persona(chosen.source)
        stages = {} if source is None else {"mark": self.stages.mark.stage(source, roster)}
        baselines = [
            name
            for name, one in self.conditions.items()
            if one.source is None and (one.question_set or self.evaluation.question_set) == evaluation.prompts.questions[0].set  # type: ignore[union-attr]
        ]
        return Plan.checked(
            {
                "family": NAME,
                "condition": condition,
                "seed": seed,
                "base_model": base_model,
                "stages": stages,
                "evaluation": evaluation,
                "scoring": self.scoring.scoring(self.stages.mark, stages, evaluation),
                "geometry": self.geometry.geometry(roster),
                "reference": baselines[0] if baselines else None,
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
    """Resolve the point that this run computes."""
    refuse_checkpoint(checkpoint, NAME)
    return family.plan(condition, seed, base_model, roster_of(personas, questions))


def gather_points(
    cell_rates: Tables,
    cosines: Tables,
    texts: Tables,
    base_model: BaseModel,
    family: Settings,
    personas: list[dict[str, Any]],
    questions: list[dict[str, Any]],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Put rates, cosines with a source, and descriptions of texts of all points together; see `experiments.points.gather`."""
    roster = roster_of(personas, questions)

    def plan_of(condition: str, seed: int) -> Plan:
        return family.plan(condition, seed, base_model, roster)

    rates = gather(cell_rates, plan_of, annotated)
    sources, rated = rates["source"].dropna().unique(), rates["persona"].unique()

    def with_a_source(table: pd.DataFrame, now: Plan | None) -> pd.DataFrame:
        own = expect(now.scoring, MarkerScoring).source if now else None
        wanted = sources if own is None else [own]  # others are compared with what is not trained
        pairs = table[table["one"].isin(wanted) | table["other"].isin(wanted)]
        return pairs[pairs["one"].isin(rated) & pairs["other"].isin(rated)]  # the point's own table has all

    tables = (rates, gather(cosines, plan_of, with_a_source), gather(texts, plan_of, unannotated))
    return tuple(conditions_in_order(table, family.conditions) for table in tables)  # type: ignore[return-value]


def plan_replay(
    condition: str,
    seed: int,
    checkpoint: int | None,
    base_model: BaseModel,
    family: Settings,
    replayed_file: str | None,
    personas: list[dict[str, Any]],
    questions: list[dict[str, Any]],
) -> Plan:
    """Resolve what a replay of rates reports on; the file names its own conditions.

    Raises:
        UserError: no file is given.
    """
    if replayed_file is None:
        raise UserError("a replay needs the rates: --params rates_file=PATH")
    baseline = next(name for name, one in family.conditions.items() if one.source is None)
    plan = family.plan(baseline, seed, base_model, roster_of(personas, questions))
    return plan.model_copy(update={"family": REPLAY, "condition": "all", "reference": None, "replayed_file": replayed_file})


def create_pipeline() -> Pipeline:
    """Compose plan → mark → generation → scoring, geometry → reporting."""
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
        + create_stage_pipeline("mark")
        + generation.create_pipeline()
        + scoring.create_marker_pipeline()
        + geometry.create_pipeline()
        + gathering
        + reporting.create_leakage_pipeline(),
        NAME,
        NAME,
    )


def create_replay_pipeline() -> Pipeline:
    """Compose rates counted elsewhere → reporting."""
    adopting = pipeline(
        [
            node(plan_replay, [*POINT, "params:replayed_file", *SOURCES], "plan", name="plan_replay"),
            node(adopt_rates, ["outside_rates", "plan"], ["rates", "similarities", "texts"], name="adopt_rates"),
        ],
        tags="reporting",
    )
    return placed(adopting + reporting.create_leakage_pipeline(), NAME, REPLAY, REPLAYED)
