"""Wiring of stage `generation`."""

from kedro.pipeline import Pipeline

from persona_leakage.pipelines import in_stage, step
from persona_leakage.pipelines.generation.nodes import sample_completions, write_prompts


def create_pipeline() -> Pipeline:
    """Build plan → prompts → completions of the stack."""
    return in_stage(
        [
            step(write_prompts, "plan", "prompts"),
            step(sample_completions, ["generator", "stack", "prompts", "plan"], "completions"),
        ],
        "generation",
    )
