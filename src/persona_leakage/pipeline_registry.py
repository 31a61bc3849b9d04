"""The registered pipelines: one a family, one to replay its scoring, and the six stages of all families."""

from kedro.pipeline import Pipeline, pipeline

from persona_leakage.experiments import DEFAULT_FAMILY, FAMILIES, family_of, replay_of
from persona_leakage.experiments.composition import compose, compose_replay
from persona_leakage.pipelines import STAGES


def register_pipelines() -> dict[str, Pipeline]:
    """Build every family's pipeline; `__default__` is one family's.

    A stage is registered with the nodes that every family has in it, folded by family, to browse; `kedro run` runs those of one
    family.
    """
    families = {name: compose(family_of(name)) for name in FAMILIES}
    replays = {replay_of(name): compose_replay(family_of(name)) for name in FAMILIES if family_of(name).replay}
    stages = {stage: sum((_folded(whole, name, stage) for name, whole in families.items()), Pipeline([])) for stage in STAGES}
    return {"__default__": families[DEFAULT_FAMILY], **families, **replays, **stages}


def _folded(whole: Pipeline, family: str, stage: str) -> Pipeline:
    part = whole.only_nodes_with_tags(stage)
    return pipeline(part, namespace=family, prefix_datasets_with_namespace=False)
