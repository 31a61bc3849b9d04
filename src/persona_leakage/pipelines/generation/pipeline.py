"""Wiring of stage `generation`."""

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines.generation.nodes import sample_completions, write_prompts


def create_pipeline() -> Pipeline:
    """Build plan → prompts → completions of the stack."""
    return pipeline(
        [
            node(write_prompts, "plan", "prompts", name="write_prompts"),
            node(
                sample_completions,
                ["generator", "stack", "prompts", "plan"],
                "completions",
                name="sample_completions",
            ),
        ],
        tags="generation",
    )
