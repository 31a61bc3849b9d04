"""Stage `scoring`."""

from persona_leakage.pipelines.scoring.pipeline import create_pipeline

__all__ = ["create_pipeline"]
