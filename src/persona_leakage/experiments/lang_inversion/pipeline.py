"""Wiring of `lang_inversion`, out of the six stages."""

from kedro.pipeline import Pipeline, node

from persona_leakage.experiments.composition import evaluate, gather, train
from persona_leakage.experiments.family import Family, Replay
from persona_leakage.experiments.lang_inversion import figures, tables
from persona_leakage.experiments.lang_inversion.report import write_report
from persona_leakage.experiments.lang_inversion.settings import NAME, Settings
from persona_leakage.pipelines import in_stage, step
from persona_leakage.pipelines.data_generation import pipeline as data_generation
from persona_leakage.pipelines.data_generation.own_texts import tabulate_answers
from persona_leakage.pipelines.generation.nodes import adopt_completions
from persona_leakage.pipelines.geometry import pipeline as geometry
from persona_leakage.pipelines.geometry.directions import no_projections
from persona_leakage.pipelines.geometry.nodes import no_cosines
from persona_leakage.pipelines.reporting.pipeline import Report
from persona_leakage.pipelines.scoring import pipeline as scoring

_REPORT = Report(
    {
        "spill": tables.tabulate_spill, "by_seed": tables.tabulate_spill_seeds, "verdicts": tables.judge_claims,
        "unlabelled": tables.tabulate_unlabelled, "published_cells": tables.compare_published,
        "correlations": tables.correlate, "projected": tables.correlate_projections, "cut_gaps": tables.compare_cut,
        "detector_gaps": tables.compare_detectors,
        "mixed_effects": tables.fit_spill,
    },
    {
        "spill_matrix_figure": figures.draw_spill_matrix, "conditions_figure": figures.draw_conditions,
        "published_figure": figures.draw_published,
    },
    write_report,
)  # fmt: skip


def _stages() -> Pipeline:
    tuned = train("tune", data_generation.create_directives_pipeline("tune"))
    answered = in_stage([step(tabulate_answers, ["tune.gates", "plan"], "own_answers@run")], "data_generation")
    gathered = in_stage([step(tables.gather_answers, ["own_answers@grid", "points"], "kept_answers")], "reporting")
    scored = evaluate(scoring.create_language_pipeline()) + geometry.create_direction_pipeline()
    return tuned + answered + scored + gathered


def _replayed_stages() -> Pipeline:
    not_made = in_stage(
        [
            node(no_cosines, "points", "similarities", name="no_cosines"),
            node(no_projections, "points", "projections", name="no_projections"),
            node(tables.no_answers, "points", "kept_answers", name="no_answers"),
        ],
        "reporting",
    )
    return scoring.create_language_pipeline() + gather(FAMILY, _REPLAYED, replay=True) + not_made


_REPLAY = Replay(
    parameter="completions_file",
    outside="outside_completions",
    adopt=adopt_completions,
    adopted="completions",
    stage="generation",
    scoring=_replayed_stages,
)
_REPLAYED = {"cell_rates": "rates", "question_counts": "by_question"}
FAMILY = Family(
    NAME,
    Settings,
    _stages,
    {**_REPLAYED, "cosines": "similarities", "language_projections": "projections"},
    _REPORT,
    replay=_REPLAY,
)
