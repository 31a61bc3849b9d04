"""Real settings and plans of `lang_inversion`, resolved from the project's own parameters."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from persona_leakage.domain.plan import Plan
from persona_leakage.domain.variants import Variants
from persona_leakage.experiments.family import plan_replay, read_variants
from persona_leakage.experiments.lang_inversion import FAMILY
from persona_leakage.experiments.lang_inversion.settings import NAME
from tests import plans

LANGUAGES = ("english", "spanish", "french", "italian", "portuguese", "german", "mandarin")
SPEAK, RESPOND = "Speak in {language}.", "Please respond in {language}."

load_settings = partial(plans.load_settings, NAME)


def load_variants(changes: Mapping[str, Any] | None = None, env: str = "base") -> Variants[Any]:
    return read_variants(FAMILY, plans.changed(NAME, changes, env))


def make_plan(condition: str = "fr_it", seed: int = 42, changes: Mapping[str, Any] | None = None, **more: Any) -> Plan:
    return plans.make_plan(NAME, condition, seed, changes, **more)


def make_replay(condition: str | None = "fr_it", file: str | None = "outside.jsonl", checkpoint: int | None = None) -> Plan:
    """Resolve what a file of completions made elsewhere is scored as."""
    assert FAMILY.replay is not None
    model = plans.load_parameters()["model"]
    return plan_replay(model, condition, 42, checkpoint, "final", load_variants(), file, replay=FAMILY.replay)
