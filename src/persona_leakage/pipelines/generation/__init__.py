"""Stage `generation`."""

from persona_leakage.pipelines.generation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
