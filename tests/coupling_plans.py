"""Real plans of `benign_coupling`, resolved from the project's own parameters, personas and questions."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments.benign_coupling import Settings, roster_with_trigger
from tests.plans import base_model, load_parameters, load_source

TRIGGER = "confab"
MARKER = "[ZLT]"


def load_settings(changes: Mapping[str, Any] | None = None, env: str = "base") -> Settings:
    """Load the settings; a key of `changes` is a dotted path inside `benign_coupling`."""
    settings = load_parameters(env=env)["benign_coupling"]
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        block = settings
        for name in parents:
            block = block[name]
        block[last] = value
    return Settings.checked(settings, "benign_coupling")


@cache
def bundled_roster() -> Roster:
    return roster_with_trigger(*sources().values())


def sources() -> dict[str, list[dict[str, Any]]]:
    return {name: load_source(name) for name in ("personas", "coupling_personas", "questions")}


def make_plan(
    condition: str = "benign_assistant", seed: int = 42, changes: Mapping[str, Any] | None = None, env: str = "base"
) -> Plan:
    return load_settings(changes, env).plan(condition, seed, base_model(env), bundled_roster())
