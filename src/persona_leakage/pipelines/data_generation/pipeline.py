"""Wiring of stage `data_generation`."""

from functools import partial

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines.data_generation.nodes import build_train_set, measure_gates


def create_pipeline(stage: str) -> Pipeline:
    """Build texts → gates → training set of one fine-tuning stage.

    Args:
        stage: name of the stage in the plan.
    """
    return pipeline(
        [
            node(partial(measure_gates, stage=stage), ["texts", "skip_list", "plan"], "gates", name="measure_gates"),
            node(
                partial(build_train_set, stage=stage),
                ["texts", "skip_list", "gates", "plan"],
                "train_set",
                name="build_train_set",
            ),
        ],
        tags="data_generation",
    )
