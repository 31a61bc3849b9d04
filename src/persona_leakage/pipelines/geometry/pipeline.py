"""Wiring of stage `geometry`."""

from kedro.pipeline import Pipeline

from persona_leakage.pipelines import in_stage, step
from persona_leakage.pipelines.geometry.directions import project_prompts
from persona_leakage.pipelines.geometry.nodes import compare_centroids, extract_centroids


def create_pipeline() -> Pipeline:
    """Build stack → centroids → cosines."""
    return in_stage(
        [
            step(extract_centroids, ["extractor", "stack", "plan"], "centroids"),
            step(compare_centroids, ["centroids", "plan"], "cosines@run"),
        ],
        "geometry",
    )


def create_direction_pipeline() -> Pipeline:
    """Build completions → directions of languages → the prompts' centroids along them."""
    read = ["extractor", "stack", "centroids", "completions", "plan"]
    return in_stage([step(project_prompts, read, "language_projections@run")], "geometry")
