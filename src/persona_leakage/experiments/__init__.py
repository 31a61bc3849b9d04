"""The experiment families: each module names its condition type and composes the six stage pipelines."""

from importlib import import_module
from types import ModuleType

FAMILIES = ("lang_inversion",)


def family_module(name: str) -> ModuleType:
    """Import the module of a family; it offers `Settings` and `create_pipeline()`."""
    return import_module(f"{__name__}.{name}")
