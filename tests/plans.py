"""Real settings and plans of every family, resolved from the project's own parameters, personas and questions."""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from persona_leakage.configuration import ModelConfigLoader
from persona_leakage.datasets import JSONLinesDataset
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import FAMILIES, family_of
from persona_leakage.experiments.family import plan_point, read_roster, read_variants
from persona_leakage.settings import CONFIG_LOADER_ARGS

PROJECT = Path(__file__).parents[1]
ENVIRONMENTS = sorted(folder.name for folder in (PROJECT / "conf").iterdir() if (folder / "globals.yml").is_file())
_ROWS = {
    "personas": "persona_leakage.domain.personas.Persona",
    "coupling_personas": "persona_leakage.domain.personas.Persona",
    "questions": "persona_leakage.domain.personas.UserQuestion",
}


@cache
def _loaded(env: str) -> dict[str, Any]:
    return dict(ModelConfigLoader(conf_source=str(PROJECT / "conf"), env=env, **CONFIG_LOADER_ARGS)["parameters"])


def load_parameters(env: str = "base") -> dict[str, Any]:
    """Load the parameters of an environment, free to be changed."""
    return deepcopy(_loaded(env))


def changed(family: str, changes: Mapping[str, Any] | None = None, env: str = "base") -> dict[str, Any]:
    """Load parameters in which a family's settings are changed, for every model.

    Args:
        family: whose.
        changes: dotted path inside the family's block → value; None removes the key.
        env: environment.
    """
    parameters = load_parameters(env)
    for variant in parameters["variants"][family]["models"].values():
        settings = variant["settings"] = deepcopy(variant["settings"])  # models share what does not differ
        for path, value in (changes or {}).items():
            *parents, last = path.split(".")
            block = settings
            for name in parents:
                block = block[name]
            if value is None:
                block.pop(last, None)  # models may share it
            else:
                block[last] = deepcopy(value)
    return parameters


def load_settings(family: str, changes: Mapping[str, Any] | None = None, env: str = "base", model: str | None = None) -> Any:
    """Check a family's settings for a model, by default the environment's own."""
    parameters = changed(family, changes, env)
    raw = parameters["variants"][family]["models"][model or parameters["model"]]["settings"]
    return family_of(family).settings.checked(raw, family)


def base_model(env: str = "base", model: str | None = None) -> BaseModel:
    """Return the base model of an environment."""
    parameters = _loaded(env)
    raw = parameters["variants"][FAMILIES[0]]["models"][model or parameters["model"]]["base_model"]
    return BaseModel.checked(raw, "base_model")


@cache
def load_source(name: str) -> Any:
    """Load a dataset that a family resolves its plans from, as the catalog does."""
    return JSONLinesDataset(filepath=str(PROJECT / f"data/01_raw/{name}.jsonl"), row=_ROWS.get(name)).load()


@cache
def bundled_roster(family: str) -> Roster | None:
    """Build a family's roster of the bundled personas and questions."""
    return read_roster(family_of(family), load_source)


def make_plan(
    family: str,
    condition: str,
    seed: int = 42,
    changes: Mapping[str, Any] | None = None,
    env: str = "base",
    checkpoint: int | None = None,
    roster: Roster | None = None,
    model: str | None = None,
    dose: str = "final",
) -> Plan:
    """Resolve a point of a family."""
    parameters = changed(family, changes, env)
    variants = read_variants(family_of(family), parameters)
    known = roster or bundled_roster(family)
    return plan_point(model or parameters["model"], condition, seed, checkpoint, dose, variants, known)
