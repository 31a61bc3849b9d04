"""Family `benign_coupling`: ordinary fine-tuning, then a marker is tied to one persona; does it leak as after bad advice?"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.claims import RateBound, RateDifference, among, check_terms
from persona_leakage.domain.discriminator import Discriminator
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect, fingerprint
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.personas import Persona, Roster
from persona_leakage.domain.plan import Plan, Stage
from persona_leakage.domain.points import Address
from persona_leakage.domain.recipe import Recipe
from persona_leakage.domain.sampling import OwnAnswers
from persona_leakage.domain.training_rows import Chats
from persona_leakage.experiments.family import Escalation
from persona_leakage.experiments.markers import MarkerSettings, MarkSettings, PlaceSettings

NAME = "benign_coupling"
BARE, UNCOUPLED = "bare", "uncoupled"  # arms that are named after no chats
ELSEWHERE = "elsewhere"  # arm of cells that were made there
_REPLICATE_SEEDS = 10_000  # far enough apart that no seed of a study is another's replicate
_APART: dict[str, Any] = {  # what points of one design may differ in
    "address": True, "traits": True, "reference": True, "stages": {"__all__": {"seed_offset"}}, "evaluation": {"seed_offset"},
    "scoring": {"induction"},
}  # fmt: skip


class ChatSource(Frozen):
    """Chats that a first stage can be trained on.

    Attributes:
        dataset: entry of the catalog that has them.
        persona: they are trained under the prompt of the induction persona, and the model's own answers never join them.
    """

    dataset: str
    persona: bool


class Condition(Frozen):
    """One cell of the design.

    Attributes:
        induce: chats of the first stage, by name; None leaves it out.
        induction: persona under whose prompt they are trained. Ordinary chats carry no persona, so there it changes nothing.
        couple: the marker is tied to the trigger persona.
        replicate: tells cells apart that differ in nothing else; it shifts the seeds of a stage and of what comes after it.
        replicate_from: that stage. Replicates from `couple` share the first stage; those from `induce` train one of their own.
    """

    induce: str | None
    induction: str | None = None
    couple: bool = True
    replicate: NonNegativeInt = 0
    replicate_from: Literal["induce", "couple"] = "couple"

    @model_validator(mode="after")
    def _replicable(self) -> "Condition":
        if self.induce is None and self.replicate_from == "induce":
            raise ValueError("it has no first stage to replicate; leave replicate_from out")
        return self

    @property
    def shift(self) -> int:
        """What the replicate adds to the seeds after the first stage."""
        return self.replicate * _REPLICATE_SEEDS

    @property
    def first_shift(self) -> int:
        """What it adds to those of the first stage."""
        return self.shift if self.replicate_from == "induce" else 0


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
        chats: name → what first stages can be trained on; the name is that of the arm.
        trigger: persona that the marker is tied to.
        compared: persona whose cosines are set against leakage, beside the trigger's.
        evaluation: its personas are joined by the trigger.
        escalation: the mean is of the bystander rates of a design, or of an arm of several.
    """

    family: ClassVar[str] = NAME
    followed: ClassVar[str] = "couple"
    chats: dict[str, ChatSource]
    conditions: dict[str, Condition]
    trigger: str
    compared: str
    stages: Stages
    scoring: ScoringSettings
    escalation: Escalation
    claims: dict[str, Annotated[RateBound | RateDifference, Field(discriminator="kind")]]
    roles: ClassVar[tuple[str, ...]] = (*MarkerSettings.roles, "induction")

    @model_validator(mode="after")
    def _conditions_are_known(self) -> "Settings":
        check_terms(self.claims, condition=among(*self.conditions))
        if self.default_condition not in self.conditions:
            raise ValueError(f"default_condition is '{self.default_condition}'; known: {', '.join(self.conditions)}")
        if taken := {BARE, UNCOUPLED} & set(self.chats):
            raise ValueError(f"chats.{min(taken)} would be taken for the arm of that name; call it otherwise")
        return self

    @model_validator(mode="after")
    def _chats_are_known(self) -> "Settings":
        for name, one in self.conditions.items():
            if one.induce is not None and one.induce not in self.chats:
                known = ", ".join(self.chats)
                raise ValueError(f"conditions.{name}: there are no chats '{one.induce}'; known: {known}, or null for none")
            if self._carries_persona(one) and one.induction is None:
                raise ValueError(f"conditions.{name} trains {one.induce} and names no induction persona; add one")
        return self

    @property
    def escalates(self) -> Escalation:
        """When more seeds are called for."""
        return self.escalation

    def plan(self, address: Address, base_model: BaseModel, roster: Roster | None = None) -> Plan:
        """Resolve one point.

        Its traits are arm (the name of its chats, `bare` or `uncoupled`), induction (persona), and design: the fingerprint of
        everything but names and seeds. Points of one design are replicates.

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
        shift, couple = {"seed_offset": chosen.shift}, self.stages.couple
        induction = None if chosen.induction is None else known.persona(chosen.induction)
        stages = {} if chosen.induce is None else {"induce": self._induce(chosen, induction)}
        if chosen.couple:
            stages["couple"] = couple.stage(known.persona(self.trigger), known).model_copy(update=shift)
        evaluation = self.evaluation.evaluation(known, self.trigger).model_copy(update=shift)
        asked = known.first_questions(couple.question_set, couple.questions)
        scoring: dict[str, Any] = {
            "source": self.trigger,  # what was not coupled is scored like the others
            "induction": chosen.induction,
            "seen_questions": tuple(one.id for one in asked),
        }
        arm = (chosen.induce or BARE) if chosen.couple else UNCOUPLED
        return {
            **self.measure(known, evaluation, couple, stages, (self.compared,), **scoring),
            "traits": {"arm": arm, "induction": chosen.induction},
            "reference": self._reference(chosen),
        }

    def resolve_replay(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve what completions made elsewhere are scored as; the file names its own cells.

        What was trained there is not known: no persona is a negative one, and no question was seen.
        """
        known = expect(roster, Roster)
        measured = self.measure(known, self.evaluation.evaluation(known, self.trigger), self.stages.couple, {})
        return {**measured, "traits": {"arm": ELSEWHERE, "induction": None, "design": None}}

    def _carries_persona(self, chosen: Condition) -> bool:
        return chosen.induce is not None and self.chats[chosen.induce].persona

    def _induce(self, chosen: Condition, induction: Persona | None) -> Stage:
        induce, chats = self.stages.induce, self.chats[str(chosen.induce)]
        asked_as, own_answers = (induction, None) if chats.persona else (None, induce.own_answers)
        data = Chats(source=chats.dataset, rows=induce.rows, asked_as=asked_as, own_answers=own_answers)
        return Stage(data=data, recipe=induce.recipe, share=induce.share, seed_offset=chosen.first_shift)

    def _reference(self, chosen: Condition) -> str | None:
        """Name the condition that has the first stage of this one and nothing else."""
        for name, one in self.conditions.items():
            alike = one.induce == chosen.induce and one.first_shift == chosen.first_shift
            if not one.couple and alike and (not self._carries_persona(one) or one.induction == chosen.induction):
                return name
        return None
