"""The registered pipelines: one an experiment family, and one to replay its scoring."""

from kedro.pipeline import Pipeline

from persona_leakage.experiments import FAMILIES, REPLAYS, family_module


def register_pipelines() -> dict[str, Pipeline]:
    """Build every family's pipeline; `__default__` is the first family."""
    families: dict[str, Pipeline] = {name: family_module(name).create_pipeline() for name in FAMILIES}
    replays = {name: family_module(name).create_replay_pipeline() for name in REPLAYS}
    return {"__default__": families[FAMILIES[0]], **families, **replays}
