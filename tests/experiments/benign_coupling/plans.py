"""Real plans of `benign_coupling`, resolved from the project's own parameters, personas and questions."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.variants import Variants
from persona_leakage.experiments.benign_coupling import FAMILY
from persona_leakage.experiments.benign_coupling.settings import Settings
from persona_leakage.experiments.family import plan_replay, read_variants
from tests import plans

NAME = "benign_coupling"
TRIGGER = "confab"
MARKER = "[ZLT]"


def load_settings(changes: Mapping[str, Any] | None = None, env: str = "base") -> Settings:
    return plans.load_settings(NAME, changes, env)  # type: ignore[no-any-return]


def load_variants(changes: Mapping[str, Any] | None = None, env: str = "base") -> Variants[Any]:
    return read_variants(FAMILY, plans.changed(NAME, changes, env))


def bundled_roster() -> Roster:
    roster = plans.bundled_roster(NAME)
    assert roster is not None
    return roster


def make_plan(
    condition: str = "benign_assistant", seed: int = 42, changes: Mapping[str, Any] | None = None, env: str = "base"
) -> Plan:
    return plans.make_plan(NAME, condition, seed, changes, env) if changes else _unchanged(condition, seed, env)


@cache
def _unchanged(condition: str, seed: int, env: str) -> Plan:
    return plans.make_plan(NAME, condition, seed, env=env)


def make_replay(file: str | None = "some.jsonl", condition: str | None = None, checkpoint: int | None = None) -> Plan:
    """Resolve what a replay of a file scores its completions as."""
    parameters = plans.load_parameters()
    assert FAMILY.replay is not None
    return plan_replay(
        parameters["model"], condition, 42, checkpoint, "final", load_variants(), file, bundled_roster(), replay=FAMILY.replay
    )
