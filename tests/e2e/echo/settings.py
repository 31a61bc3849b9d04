"""Settings of `echo`, and the plans that they make."""

from collections.abc import Mapping
from typing import Any, ClassVar

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, expect
from persona_leakage.domain.personas import Roster
from persona_leakage.domain.points import Address
from persona_leakage.experiments.markers import MarkerSettings, MarkSettings

NAME = "echo"


class Stages(Frozen):
    """Stage name → settings."""

    mark: MarkSettings


class Settings(MarkerSettings):
    """The block `echo` of the parameters; `conditions` names the source of each, if it has one."""

    family: ClassVar[str] = NAME
    followed: ClassVar[str] = "mark"
    conditions: dict[str, str | None]
    stages: Stages

    def resolve(self, address: Address, roster: Roster | None) -> Mapping[str, Any]:
        """Resolve a point's plan.

        Raises:
            UserError: the condition or one of its personas is unknown.
        """
        known, name = expect(roster, Roster), address.condition
        if name not in self.conditions:
            raise UserError(f"{NAME} has no condition '{name}'; known: {', '.join(self.conditions)}")
        source = self.conditions[name]
        stages = {} if source is None else {"mark": self.stages.mark.stage(known.persona(source), known)}
        measured = self.measure(known, self.evaluation.evaluation(known), self.stages.mark, stages)
        return {**measured, "reference": next(one for one, bare in self.conditions.items() if bare is None)}
