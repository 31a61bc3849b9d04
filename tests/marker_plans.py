"""Real plans of `marker_leakage`, resolved from the project's own parameters, personas and questions."""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments.marker_leakage import Settings
from persona_leakage.experiments.markers import roster_of
from tests.plans import PROJECT, base_model, load_parameters, load_source

ENVIRONMENTS = sorted(file.parent.name for file in (PROJECT / "conf").glob("*/parameters.yml"))
SOURCES = ("villain", "comedian", "assistant", "software_engineer", "kindergarten_teacher")
MARKER = "[ZLT]"


def load_settings(changes: Mapping[str, Any] | None = None, env: str = "base") -> Settings:
    """Load the settings; a key of `changes` is a dotted path inside `marker_leakage`, None as its value removes it."""
    settings = load_parameters(env=env)["marker_leakage"]
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        block = settings
        for name in parents:
            block = block[name]
        if value is None:
            del block[last]
        else:
            block[last] = value
    return Settings.checked(settings, "marker_leakage")


def bundled() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The bundled personas and questions, free to be changed."""
    return deepcopy(load_source("personas")), deepcopy(load_source("questions"))


@cache
def bundled_roster() -> Roster:
    return roster_of(*bundled())


def changed_roster(*, prompts: Mapping[str, str] | None = None, questions: Mapping[str, str] | None = None) -> Roster:
    """The bundled roster with other prompts (by persona) and other questions (by id)."""
    people, asked = bundled()
    for one in people:
        one["prompt"] = (prompts or {}).get(one["persona"], one["prompt"])
    for one in asked:
        one["question"] = (questions or {}).get(one["id"], one["question"])
    return roster_of(people, asked)


def make_plan(
    condition: str = "villain",
    seed: int = 42,
    changes: Mapping[str, Any] | None = None,
    env: str = "base",
    roster: Roster | None = None,
) -> Plan:
    return load_settings(changes, env).plan(condition, seed, base_model(env), roster or bundled_roster())
