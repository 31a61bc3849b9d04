"""Wiring of stage `fine_tuning`."""

from kedro.pipeline import Pipeline, pipeline

from persona_leakage.pipelines import step
from persona_leakage.pipelines.fine_tuning.nodes import extend_stack, train_adapters


def create_pipeline(stage: str) -> Pipeline:
    """Build training set + stack → adapters → extended stack, for a stage of the plan, given by name."""
    return pipeline(
        [
            step(train_adapters, ["trainer", "base_stack", "train_set", "plan"], ["adapters", "training_log"], stage=stage),
            step(extend_stack, ["base_stack", "adapters", "plan"], "stack", stage=stage),
        ],
        tags="fine_tuning",
    )
