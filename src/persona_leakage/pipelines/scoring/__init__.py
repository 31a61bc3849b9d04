"""Stage `scoring`."""

from persona_leakage.pipelines.scoring.pipeline import (
    create_discriminator_pipeline,
    create_language_pipeline,
    create_marker_pipeline,
    create_replay_pipeline,
)

__all__ = [
    "create_discriminator_pipeline",
    "create_language_pipeline",
    "create_marker_pipeline",
    "create_replay_pipeline",
]
