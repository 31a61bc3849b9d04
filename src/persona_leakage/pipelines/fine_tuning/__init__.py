"""Stage `fine_tuning`."""

from persona_leakage.pipelines.fine_tuning.pipeline import create_pipeline

__all__ = ["create_pipeline"]
