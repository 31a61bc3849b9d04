"""Wiring of stage `fine_tuning`."""

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines import at_stage
from persona_leakage.pipelines.fine_tuning.nodes import extend_stack, train_adapters


def create_pipeline(stage: str) -> Pipeline:
    """Build training set + stack → adapters → extended stack.

    Args:
        stage: name of the stage in the plan.
    """
    return pipeline(
        [
            node(
                at_stage(train_adapters, stage),
                ["trainer", "base_stack", "train_set", "plan"],
                ["adapters", "training_log"],
                name="train_adapters",
            ),
            node(at_stage(extend_stack, stage), ["base_stack", "adapters", "plan"], "stack", name="extend_stack"),
        ],
        tags="fine_tuning",
    )
