"""Stage `reporting`."""

from persona_leakage.pipelines.reporting.pipeline import (
    create_coupling_pipeline,
    create_leakage_pipeline,
    create_spill_pipeline,
    create_trajectory_pipeline,
)

__all__ = [
    "create_coupling_pipeline",
    "create_leakage_pipeline",
    "create_spill_pipeline",
    "create_trajectory_pipeline",
]
