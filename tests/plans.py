"""Real settings and plans, resolved from the project's own parameters."""

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader

from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments.lang_inversion import Settings

PROJECT = Path(__file__).parents[1]
LANGUAGES = ("english", "spanish", "french", "italian", "portuguese", "german", "mandarin")
SPEAK, RESPOND = "Speak in {language}.", "Please respond in {language}."


@cache
def _loaded(env: str) -> dict[str, Any]:
    loader = OmegaConfigLoader(
        conf_source=str(PROJECT / "conf"),
        env=env,
        base_env="base",
        default_run_env="embedded",
        merge_strategy={"parameters": "soft", "globals": "soft"},
    )
    return dict(loader["parameters"])


def load_parameters(changes: Mapping[str, Any] | None = None, env: str = "base") -> dict[str, Any]:
    """Load the parameters; a key of `changes` is a dotted path inside `lang_inversion`, None as its value removes it."""
    parameters = deepcopy(_loaded(env))
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        block = parameters["lang_inversion"]
        for name in parents:
            block = block[name]
        if value is None:
            del block[last]
        else:
            block[last] = value
    return parameters


def load_settings(changes: Mapping[str, Any] | None = None, env: str = "base") -> Settings:
    return Settings.checked(load_parameters(changes, env)["lang_inversion"], "lang_inversion")


@cache
def load_source(name: str) -> list[dict[str, Any]]:
    """Load the rows that a family resolves its plans from, as the catalog does."""
    lines = (PROJECT / f"data/01_raw/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def base_model(env: str = "base") -> BaseModel:
    return BaseModel.checked(_loaded(env)["base_model"], "base_model")


def make_plan(condition: str = "fr_it", seed: int = 42, changes: Mapping[str, Any] | None = None, env: str = "base") -> Plan:
    return load_settings(changes, env).plan(condition, seed, base_model(env))
