"""The experiment families: each module names its condition type and composes the six stage pipelines."""

from importlib import import_module
from types import ModuleType

FAMILIES = ("lang_inversion", "marker_leakage", "convergence", "benign_coupling")
# pipeline that scores completions made elsewhere → the family whose scoring and report it shares
REPLAYS = {f"{name}_replay": name for name in FAMILIES if name != "convergence"}


def family_module(name: str) -> ModuleType:
    """Import the module of a family or of its replay.

    It offers `Settings`, `create_pipeline()` and `create_replay_pipeline()`.
    """
    return import_module(f"{__name__}.{REPLAYS.get(name, name)}")
