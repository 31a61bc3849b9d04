"""Stage `geometry`."""

from persona_leakage.pipelines.geometry.pipeline import create_pipeline

__all__ = ["create_pipeline"]
