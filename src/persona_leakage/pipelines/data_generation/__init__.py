"""Stage `data_generation`."""

from persona_leakage.pipelines.data_generation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
