"""Settings and steps that the families with a marker share."""

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pandas as pd
from kedro.pipeline import Pipeline, node, pipeline
from pydantic import Field, NonNegativeInt, PositiveInt

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect
from persona_leakage.domain.markers import BorrowedAnswers, Marker, MarkerContrast, MarkerScoring
from persona_leakage.domain.personas import Persona, PersonaQuestions, QuestionSet, Roster
from persona_leakage.domain.plan import Evaluation, Geometry, GeometrySettings, Plan, Stage
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import OwnAnswers, Sampling
from persona_leakage.experiments.composition import POINT
from persona_leakage.pipelines import data_generation, fine_tuning

SOURCES = ("personas", "questions")
Personas = Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)]


class NegativePool(Frozen):
    """Where the personas that are trained without the marker come from.

    Attributes:
        pool: candidates by name; the source is never one.
        count: how many are drawn.
        seed: of the drawing, which also depends on the source and on nothing else.
    """

    pool: tuple[str, ...]
    count: NonNegativeInt
    seed: NonNegativeInt

    def drawn(self, source: str) -> tuple[str, ...]:
        """Draw the negative personas of a source.

        Raises:
            UserError: the pool is too small.
        """
        candidates = [name for name in self.pool if name != source]
        if len(candidates) < self.count:
            raise UserError(f"{self.count} negative personas are asked for, the pool without {source} has {len(candidates)}")
        return tuple(random.Random(f"{self.seed}.{source}").sample(candidates, self.count))


class MarkSettings(Frozen):
    """The stage that ties the marker to a persona; see `domain.markers.MarkerContrast`.

    Attributes:
        question_set: which questions its rows ask.
        questions: how many of them.
    """

    marker: Marker
    question_set: QuestionSet
    questions: PositiveInt
    positives_per_question: PositiveInt
    negatives_per_question: NonNegativeInt
    negatives: NegativePool
    answers: OwnAnswers
    own_stack: bool
    recipe: Recipe

    def stage(self, source: Persona, roster: Roster) -> Stage:
        """Resolve the stage for a source."""
        roster.chosen(self.negatives.pool)  # a misspelt candidate is told now, and not when it happens to be drawn
        drawn = self.negatives.drawn(source.persona) if self.negatives_per_question else ()
        return Stage(
            data=MarkerContrast(
                source=source,
                negatives=roster.chosen(drawn),
                questions=roster.first_questions(self.question_set, self.questions),
                positives_per_question=self.positives_per_question,
                negatives_per_question=self.negatives_per_question,
                answers=self.answers,
                own_stack=self.own_stack,
                marker=self.marker,
            ),
            recipe=self.recipe,
        )


class PersonaPrompts(Frozen):
    """Which personas answer which questions: names or `all`, and the first questions of a set."""

    personas: Personas
    question_set: QuestionSet
    questions: PositiveInt

    def resolved(self, roster: Roster) -> PersonaQuestions:
        """Look personas and questions up."""
        return PersonaQuestions(
            personas=roster.chosen(self.personas), questions=roster.first_questions(self.question_set, self.questions)
        )


class EvaluationSettings(PersonaPrompts):
    """What is sampled of every persona and question."""

    samples: PositiveInt
    sampling: Sampling

    def evaluation(self, roster: Roster) -> Evaluation:
        """Resolve the evaluation."""
        return Evaluation(prompts=self.resolved(roster), samples=self.samples, sampling=self.sampling)


class CentroidSettings(GeometrySettings):
    """Of which prompts centroids are taken."""

    prompts: PersonaPrompts

    def geometry(self, roster: Roster) -> Geometry:
        """Resolve the geometry."""
        return Geometry(**{**dict(self), "prompts": self.prompts.resolved(roster)})


class PlaceSettings(Frozen):
    """Where in a completion a firing counts as start or tail; see `domain.markers.MarkerScoring`."""

    start_share: float = Field(ge=0, lt=1)
    tail_share: float = Field(ge=0, lt=1)

    def scoring(self, mark: MarkSettings, stages: Mapping[str, Stage], evaluation: Evaluation, **more: Any) -> MarkerScoring:
        """Resolve how a point is scored: its marking stage, if it has one, names the source and the negatives.

        Raises:
            UserError: the source is not among the evaluated personas, so its rate could not be known.
        """
        prompts = expect(evaluation.prompts, PersonaQuestions)
        data = [stage.data for stage in stages.values() if isinstance(stage.data, MarkerContrast)]
        source: str | None = None
        negatives: tuple[str, ...] = ()
        seen: tuple[str, ...] = ()
        if data:
            source, negatives = data[0].source.persona, tuple(one.persona for one in data[0].negatives)
            asked = {one.id for one in data[0].questions}
            seen = tuple(one.id for one in prompts.questions if one.id in asked)
            if source not in [one.persona for one in prompts.personas]:
                raise UserError(f"the source '{source}' is not among evaluation.personas, so its rate would be unknown; add it")
        known = {"marker": mark.marker, "source": source, "negatives": negatives, "seen_questions": seen}
        return MarkerScoring(**{**known, **dict(self), **more})


def roster_of(personas: list[dict[str, Any]], questions: list[dict[str, Any]]) -> Roster:
    """Check personas and questions as a whole.

    Raises:
        UserError: a file is empty, a name repeats or a relation leads nowhere.
    """
    for name, rows in (("personas", personas), ("questions", questions)):
        if not rows:
            raise UserError(f"the file of dataset '{name}' is empty; add rows to it")
    return Roster.checked({"personas": personas, "questions": questions}, "personas and questions")


def annotated(table: pd.DataFrame, now: Plan | None) -> pd.DataFrame:
    """Add source (persona the marker was tied to, if any) and related_to (names joined by `|`) to a point's rates.

    In families that pull one persona towards another also pulled, its name.
    """
    scoring = expect(now.scoring, MarkerScoring) if now else None
    borrowed = [stage.data for stage in now.stages.values() if isinstance(stage.data, BorrowedAnswers)] if now else []
    if borrowed:
        table = table.assign(pulled=borrowed[0].asked_as.persona)
    personas = expect(now.evaluation.prompts, PersonaQuestions).personas if now else ()
    related = {one.persona: "|".join(one.related_to) for one in personas}
    return table.assign(source=scoring.source if scoring else None, related_to=table["persona"].map(related).fillna(""))


def create_stage_pipeline(
    stage: str, *, data: Pipeline | None = None, below: str = "base_stack", above: str = "stack"
) -> Pipeline:
    """Compose a stage's data → training set → adapters → extended stack, in a namespace of the stage's name.

    Args:
        stage: name of the stage in the plan.
        data: where its training set comes from; answers of the model itself by default.
        below: name of the stack that the stage is trained on.
        above: name of the stack with its adapter on top.
    """
    whole = (data or data_generation.create_answers_pipeline(stage)) + fine_tuning.create_pipeline(stage)
    shared = {"plan", "generator", "trainer", "benign_chats", "wrong_advice"} & whole.inputs()
    return pipeline(
        whole,
        namespace=stage,
        inputs={name: name for name in shared} | {"base_stack": below},
        outputs={"stack": above},
    )


def create_start_pipeline(plan_point: Any, start_stack: Any, sources: Sequence[str] = SOURCES) -> Pipeline:
    """Compose parameters, personas and questions → plan → base stack."""
    return pipeline(
        [
            node(plan_point, [*POINT, *sources], "plan", name="plan_point"),
            node(start_stack, "plan", "base_stack", name="start_stack"),
        ],
        tags="data_generation",
    )
