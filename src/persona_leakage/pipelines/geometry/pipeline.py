"""Wiring of stage `geometry`."""

from kedro.pipeline import Pipeline

from persona_leakage.pipelines import in_stage, step
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
