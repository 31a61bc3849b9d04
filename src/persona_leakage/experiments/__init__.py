"""The experiment families. Each has a wing, a package here, whose `FAMILY` says what it offers; nothing else lists them."""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persona_leakage.experiments.family import Family

FAMILIES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))
DEFAULT_FAMILY = "lang_inversion"  # what is meant where nobody names one
_REPLAY = "_replay"


def family_of(pipeline: str) -> "Family":
    """Import the wing of a family, named by itself or by its replay."""
    found: Family = import_module(f"{__name__}.{pipeline.removesuffix(_REPLAY)}").FAMILY
    return found


def is_replay(pipeline: str) -> bool:
    """Tell whether a pipeline scores results that were made elsewhere."""
    return pipeline.endswith(_REPLAY) and pipeline.removesuffix(_REPLAY) in FAMILIES


def replay_of(family: str) -> str:
    """Name the pipeline that replays a family."""
    return family + _REPLAY
