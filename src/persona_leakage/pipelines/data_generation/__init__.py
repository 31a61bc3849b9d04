"""Stage `data_generation`."""

from persona_leakage.pipelines.data_generation.pipeline import (
    create_answers_pipeline,
    create_chats_pipeline,
    create_directives_pipeline,
)

__all__ = ["create_answers_pipeline", "create_chats_pipeline", "create_directives_pipeline"]
