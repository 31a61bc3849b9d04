"""Family `benign_coupling`: ordinary fine-tuning, then a marker is tied to one persona; does it leak as after bad advice?"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.claims import RateBound, RateDifference, among, check_terms
from persona_leakage.domain.discriminator import Discriminator
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect, fingerprint
from persona_leakage.domain.languages import Band
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.personas import Persona, Roster
from persona_leakage.domain.plan import Plan, Stage
from persona_leakage.domain.points import Address
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import OwnAnswers
from persona_leakage.domain.training_rows import Chats
from persona_leakage.experiments.markers import MarkerSettings, MarkSettings, PlaceSettings

NAME = "benign_coupling"
_REPLICATE_SEEDS = 10_000  # far enough apart that no seed of a study is another's replicate
_APART: dict[str, Any] = {  # what points of one design may differ in
    "address": True, "traits": True, "reference": True, "stages": {"__all__": {"seed_offset"}}, "evaluation": {"seed_offset"},
    "scoring": {"induction"},
}  # fmt: skip


class Condition(Frozen):
    """One cell of the design.

    Attributes:
        induce: chats of the first stage; None leaves it out.
        induction: persona under whose prompt they are trained. Ordinary chats carry no persona, so there it changes nothing.
        couple: the marker is tied to the trigger persona.
        replicate: tells cells apart that differ in nothing else; it shifts the seeds of the coupling answers, of coupling and
            of sampling.
    """

    induce: Literal["benign", "wrong_advice"] | None
    induction: str | None = None
    couple: bool = True
    replicate: NonNegativeInt = 0

    @model_validator(mode="after")
    def _complete(self) -> "Condition":
        if self.induce == "wrong_advice" and self.induction is None:
            raise ValueError("it trains wrong advice and names no induction persona; add one")
        return self


class InduceSettings(Frozen):
    """The first stage; see `domain.training_rows.Chats`."""

    rows: PositiveInt
    own_answers: OwnAnswers | None
    share: tuple[Literal["answers"], ...]
    recipe: Recipe


class Stages(Frozen):
    """Stage name → settings, in order."""

    induce: InduceSettings
    couple: MarkSettings


class ScoringSettings(PlaceSettings):
    """Where a firing lies, and whether the texts themselves tell the trigger persona apart."""

    discriminator: Discriminator


class Settings(MarkerSettings):
    """The block `benign_coupling` of the parameters.

    Attributes:
        trigger: persona that the marker is tied to.
        evaluation: its personas are joined by the trigger.
        escalation: more seeds are called for when a design's mean bystander rate lies inside.
    """

    family: ClassVar[str] = NAME
    conditions: dict[str, Condition]
    trigger: str
    stages: Stages
    scoring: ScoringSettings
    escalation: Band
    claims: dict[str, Annotated[RateBound | RateDifference, Field(discriminator="kind")]]
    roles: ClassVar[tuple[str, ...]] = (*MarkerSettings.roles, "induction")

    @model_validator(mode="after")
    def _conditions_are_known(self) -> "Settings":
        check_terms(self.claims, condition=among(*self.conditions))
        if self.default_condition not in self.conditions:
            raise ValueError(f"default_condition is '{self.default_condition}'; known: {', '.join(self.conditions)}")
        return self

    def plan(self, address: Address, base_model: BaseModel, roster: Roster | None = None) -> Plan:
        """Resolve one point.

        Its traits are arm (`benign`, `wrong_advice`, `bare` or `uncoupled`), induction (persona), and design: the fingerprint
        of everything but names and seeds. Points of one design are replicates.

        Raises:
            UserError: the condition or one of its personas is unknown.
        """
        plan = super().plan(address, base_model, roster)
        design = fingerprint(plan.model_dump(mode="json", exclude=_APART))
        return plan.model_copy(update={"traits": {**plan.traits, "design": design}})

    def resolve(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve a point's plan, all but the trait design."""
        if address.condition not in self.conditions:
            raise UserError(f"{NAME} has no condition '{address.condition}'; known: {', '.join(self.conditions)}")
        chosen, known = self.conditions[address.condition], expect(roster, Roster)
        shift, couple = {"seed_offset": chosen.replicate * _REPLICATE_SEEDS}, self.stages.couple
        induction = None if chosen.induction is None else known.persona(chosen.induction)
        stages = {} if chosen.induce is None else {"induce": self._induce(chosen.induce, induction)}
        if chosen.couple:
            stages["couple"] = couple.stage(known.persona(self.trigger), known).model_copy(update=shift)
        evaluation = self.evaluation.evaluation(known, self.trigger).model_copy(update=shift)
        asked = known.first_questions(couple.question_set, couple.questions)
        scoring: dict[str, Any] = {
            "source": self.trigger,  # what was not coupled is scored like the others
            "induction": chosen.induction,
            "seen_questions": tuple(one.id for one in asked),
        }
        arm = (chosen.induce or "bare") if chosen.couple else "uncoupled"
        return {
            **self.measure(known, evaluation, couple, stages, **scoring),
            "traits": {"arm": arm, "induction": chosen.induction},
            "reference": self._reference(chosen),
        }

    def resolve_replay(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve what completions made elsewhere are scored as; the file names its own cells.

        What was trained there is not known: no persona is a negative one, and no question was seen.
        """
        known = expect(roster, Roster)
        measured = self.measure(known, self.evaluation.evaluation(known, self.trigger), self.stages.couple, {})
        return {**measured, "traits": {"arm": "elsewhere", "induction": None, "design": None}}

    def _induce(self, source: Literal["benign", "wrong_advice"], induction: Persona | None) -> Stage:
        narrow, induce = source == "wrong_advice", self.stages.induce
        asked_as, own_answers = (induction, None) if narrow else (None, induce.own_answers)
        data = Chats(source=source, rows=induce.rows, asked_as=asked_as, own_answers=own_answers)
        return Stage(data=data, recipe=induce.recipe, share=induce.share)

    def _reference(self, chosen: Condition) -> str | None:
        """Name the condition that has the first stage of this one and nothing else."""
        for name, one in self.conditions.items():
            if not one.couple and one.induce == chosen.induce and (one.induce == "benign" or one.induction == chosen.induction):
                return name
        return None
