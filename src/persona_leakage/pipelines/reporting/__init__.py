"""Stage `reporting`."""

from persona_leakage.pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
