"""Wiring of stage `geometry`."""

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines.geometry.nodes import compare_centroids, extract_centroids


def create_pipeline() -> Pipeline:
    """Build stack → centroids → cosines."""
    return pipeline(
        [
            node(extract_centroids, ["extractor", "stack", "plan"], "centroids", name="extract_centroids"),
            node(compare_centroids, ["centroids", "plan"], "cosines@run", name="compare_centroids"),
        ],
        tags="geometry",
    )
