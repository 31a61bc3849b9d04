"""Real plans of `marker_leakage`, resolved from the project's own parameters, personas and questions."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments.marker_leakage.settings import NAME
from tests import plans

SOURCES = ("villain", "comedian", "assistant", "software_engineer", "kindergarten_teacher")
MARKER = "[ZLT]"

load_settings = partial(plans.load_settings, NAME)
bundled_roster = partial(plans.bundled_roster, NAME)


def make_plan(condition: str = "villain", *more: Any, **others: Any) -> Plan:
    """Resolve a point; see `tests.plans.make_plan`."""
    return plans.make_plan(NAME, condition, *more, **others)


def changed_roster(*, prompts: Mapping[str, str] | None = None, questions: Mapping[str, str] | None = None) -> Roster:
    """The bundled roster with other prompts (by persona) and other questions (by id)."""
    roster, new_prompts, new_questions = bundled_roster(), prompts or {}, questions or {}
    return Roster(
        personas=tuple(one.model_copy(update={"prompt": new_prompts.get(one.persona, one.prompt)}) for one in roster.personas),
        questions=tuple(
            one.model_copy(update={"question": new_questions.get(one.id, one.question)}) for one in roster.questions
        ),
    )
