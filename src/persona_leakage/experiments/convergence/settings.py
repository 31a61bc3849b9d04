"""Family `convergence`: one persona is pulled towards another; does a marker tied to the other then leak to it?"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.claims import Changes, RateBound
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect
from persona_leakage.domain.personas import Persona, QuestionSet, Roster
from persona_leakage.domain.plan import Stage
from persona_leakage.domain.points import Address
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import OwnAnswers
from persona_leakage.domain.training_rows import BorrowedAnswers
from persona_leakage.experiments.family import FamilyCondition
from persona_leakage.experiments.markers import MarkerSettings, MarkSettings

NAME = "convergence"


class Condition(FamilyCondition):
    """The persona that the pulled one is drawn towards, and that the marker is tied to."""

    source: str


class ConvergeSettings(Frozen):
    """The stage that pulls: the source's answers under the pulled persona's prompt; see `BorrowedAnswers`."""

    pulled: str
    question_set: QuestionSet
    questions: PositiveInt
    per_question: PositiveInt
    answers: OwnAnswers
    share: tuple[Literal["answers"], ...]
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
            share=self.share,
            checkpoint=checkpoint,
        )


class Stages(Frozen):
    """Stage name → settings, in order."""

    converge: ConvergeSettings
    mark: MarkSettings


class Settings(MarkerSettings):
    """The block `convergence` of the parameters.

    Attributes:
        checkpoints: epochs of pulling at which the marker is trained and everything is measured; 0 is the baseline.
        evaluation: its personas are joined by the source and the pulled persona.
        early_checkpoint: the epoch whose share of the peak and of the rise the report tells.
    """

    family: ClassVar[str] = NAME
    followed: ClassVar[str] = "mark"
    conditions: dict[str, Condition]
    checkpoints: tuple[NonNegativeInt, ...] = Field(min_length=1)
    stages: Stages
    early_checkpoint: PositiveInt
    claims: dict[str, Annotated[RateBound | Changes, Field(discriminator="kind")]]
    roles: ClassVar[tuple[str, ...]] = (*MarkerSettings.roles, "pulled")

    @model_validator(mode="after")
    def _kept(self) -> "Settings":
        if list(self.checkpoints) != sorted(set(self.checkpoints)):
            raise ValueError(f"checkpoints {list(self.checkpoints)} must rise, each named once")
        if self.early_checkpoint not in self.checkpoints:
            raise ValueError(f"early_checkpoint {self.early_checkpoint} is not among the checkpoints {list(self.checkpoints)}")
        if missing := [epoch for epoch in self.checkpoints if epoch and epoch not in self.stages.converge.recipe.checkpoints]:
            raise ValueError(f"checkpoints names epoch {missing[0]}, which stages.converge.recipe.checkpoints does not keep")
        return self

    @property
    def epochs(self) -> tuple[int, ...]:
        """The checkpoints of the pulling that points are measured at."""
        return self.checkpoints

    def resolve(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve a point's plan.

        Raises:
            UserError: the condition, the checkpoint or a persona is unknown, or the source cannot be one.
        """
        known, checkpoint = expect(roster, Roster), address.checkpoint
        if checkpoint is None or checkpoint not in self.checkpoints:
            raise UserError(f"{NAME} has no checkpoint {checkpoint}; known: {', '.join(map(str, self.checkpoints))}")
        self.require_claimed(known)
        source, pulled = self._source(address.condition, known), self.stages.converge.pulled
        evaluation = self.evaluation.evaluation(known, source.persona, pulled)
        stages = {
            "converge": self.stages.converge.stage(source, known, checkpoint, self.stages.mark.marker.text),
            "mark": self.stages.mark.stage(source, known),
        }
        measured = self.measure(known, evaluation, self.stages.mark, stages, compared=(pulled,))
        return {**measured, "traits": {"pulled": pulled}}

    def _source(self, condition: str, roster: Roster) -> Persona:
        named = self.conditions[condition].source if condition in self.conditions else condition
        source = self.persona_of(condition, named, roster)
        if source.persona == (pulled := self.stages.converge.pulled):
            raise UserError(f"{NAME} pulls {pulled} towards the source, so {pulled} cannot be the source; choose another")
        return source
