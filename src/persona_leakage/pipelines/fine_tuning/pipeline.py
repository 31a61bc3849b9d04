"""Wiring of stage `fine_tuning`."""

from kedro.pipeline import Pipeline, pipeline

from persona_leakage.pipelines import step
from persona_leakage.pipelines.fine_tuning.gauge import choose_dose, measure_gauge, sample_gauge
from persona_leakage.pipelines.fine_tuning.nodes import extend_stack, train_adapters


def create_pipeline(stage: str, *, followed: bool = False) -> Pipeline:
    """Build training set + stack → adapters → extended stack, for a stage of the plan, given by name.

    A stage that is followed has its gauge measured at every checkpoint, where the plan looks for a matched dose.
    """
    train = step(train_adapters, ["trainer", "base_stack", "train_set", "plan"], ["adapters", "training_log"], stage=stage)
    extended = ["base_stack", "adapters", "plan", *(["dose"] if followed else [])]
    gauge = [
        step(sample_gauge, ["generator", "base_stack", "adapters", "plan"], "gauge_completions", stage=stage),
        step(measure_gauge, ["tokenizer", "gauge_completions", "train_set", "training_log", "plan"], "gauge@run", stage=stage),
        step(choose_dose, ["gauge@run", "plan"], "dose", stage=stage),
    ]
    extend = step(extend_stack, extended, "stack", stage=stage)
    return pipeline([train, *(gauge if followed else []), extend], tags="fine_tuning")
