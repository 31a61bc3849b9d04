"""The registered pipelines: one an experiment family."""

from kedro.pipeline import Pipeline

from persona_leakage.experiments import FAMILIES, family_module


def register_pipelines() -> dict[str, Pipeline]:
    """Build every family's pipeline; `__default__` is the first family."""
    families: dict[str, Pipeline] = {name: family_module(name).create_pipeline() for name in FAMILIES}
    return {"__default__": families[FAMILIES[0]], **families}
