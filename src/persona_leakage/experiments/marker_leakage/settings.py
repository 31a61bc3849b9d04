"""Settings of `marker_leakage`, and the plans that they make."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from persona_leakage.domain.claims import CosinePredicts, RateBound, RateDifference
from persona_leakage.domain.frozen import Frozen, expect
from persona_leakage.domain.personas import QuestionSet, Roster
from persona_leakage.domain.plan import Evaluation
from persona_leakage.domain.points import Address
from persona_leakage.experiments.family import FamilyCondition
from persona_leakage.experiments.markers import MarkerSettings, MarkSettings

NAME = "marker_leakage"


class Condition(FamilyCondition):
    """A source persona, and the set of questions it is evaluated on; without a source nothing is trained: a baseline."""

    source: str | None = None
    question_set: QuestionSet | None = None


class Stages(Frozen):
    """Stage name → settings."""

    mark: MarkSettings


class Settings(MarkerSettings):
    """The block `marker_leakage` of the parameters."""

    family: ClassVar[str] = NAME
    followed: ClassVar[str] = "mark"
    conditions: dict[str, Condition]
    stages: Stages
    claims: dict[str, Annotated[RateBound | RateDifference | CosinePredicts, Field(discriminator="kind")]]

    def condition(self, name: str, roster: Roster) -> Condition:
        """Find a condition; the name of any persona is one too, with that persona as its source.

        So is a persona's name with that of a set of questions which a baseline is evaluated on, such as `pirate_code`.

        Raises:
            UserError: it is none of them.
        """
        if name in self.conditions:
            return self.conditions[name]
        personas = {one.persona for one in roster.personas}
        for asked in {one.question_set for one in self.conditions.values() if one.source is None and one.question_set}:
            if (source := name.removesuffix(f"_{asked}")) != name and source in personas and name not in personas:
                return Condition(source=source, question_set=asked, follow_up=True)
        return Condition(source=self.persona_of(name, name, roster).persona)

    def evaluation_of(self, condition: Condition, roster: Roster) -> Evaluation:
        """Resolve how a condition is evaluated."""
        question_set = condition.question_set or self.evaluation.question_set
        return self.evaluation.model_copy(update={"question_set": question_set}).evaluation(roster)

    def resolve(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve a point's plan.

        Raises:
            UserError: the condition, one of its personas or what a claim names is unknown.
        """
        known = expect(roster, Roster)
        self.require_claimed(known)
        chosen = self.condition(address.condition, known)
        asked = chosen.question_set or self.evaluation.question_set
        baselines = (
            name
            for name, one in self.conditions.items()
            if one.source is None and (one.question_set or self.evaluation.question_set) == asked
        )
        return {**self._measured(chosen, known), "reference": next(baselines, None)}

    def resolve_replay(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve what rates that were counted elsewhere are reported with; the file names its own conditions."""
        return self._measured(Condition(), expect(roster, Roster))

    def _measured(self, chosen: Condition, roster: Roster) -> dict[str, Any]:
        stages = {} if chosen.source is None else {"mark": self.stages.mark.stage(roster.persona(chosen.source), roster)}
        return self.measure(roster, self.evaluation_of(chosen, roster), self.stages.mark, stages)
