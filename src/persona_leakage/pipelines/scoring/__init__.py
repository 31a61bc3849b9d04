"""Stage `scoring`."""

from persona_leakage.pipelines.scoring.pipeline import create_language_pipeline, create_marker_pipeline

__all__ = ["create_language_pipeline", "create_marker_pipeline"]
