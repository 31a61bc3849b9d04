"""Real settings and plans of `convergence`, resolved from the project's own parameters, personas and questions."""

from collections.abc import Mapping
from typing import Any

from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.variants import Variants
from persona_leakage.experiments.convergence import FAMILY
from persona_leakage.experiments.convergence.settings import NAME, Settings
from persona_leakage.experiments.family import read_variants
from tests import plans


def load_settings(changes: Mapping[str, Any] | None = None, env: str = "base", model: str | None = None) -> Settings:
    return plans.load_settings(NAME, changes, env, model)  # type: ignore[no-any-return]


def load_variants(changes: Mapping[str, Any] | None = None, env: str = "base") -> Variants[Any]:
    return read_variants(FAMILY, plans.changed(NAME, changes, env))


def bundled_roster() -> Roster:
    roster = plans.bundled_roster(NAME)
    assert roster is not None
    return roster


def make_plan(
    condition: str = "villain",
    checkpoint: int | None = 20,
    seed: int = 42,
    changes: Mapping[str, Any] | None = None,
    env: str = "base",
    model: str | None = None,
) -> Plan:
    return plans.make_plan(NAME, condition, seed, changes, env, checkpoint, model=model)
