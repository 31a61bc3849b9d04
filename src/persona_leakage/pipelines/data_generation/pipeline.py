"""Wiring of stage `data_generation`."""

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines import at_stage
from persona_leakage.pipelines.data_generation.nodes import build_train_set, measure_gates


def create_pipeline(stage: str) -> Pipeline:
    """Build texts → gates → training set of one fine-tuning stage.

    Args:
        stage: name of the stage in the plan.
    """
    return pipeline(
        [
            node(at_stage(measure_gates, stage), ["texts", "skip_list", "plan"], "gates", name="measure_gates"),
            node(
                at_stage(build_train_set, stage),
                ["texts", "skip_list", "gates", "plan"],
                "train_set",
                name="build_train_set",
            ),
        ],
        tags="data_generation",
    )
