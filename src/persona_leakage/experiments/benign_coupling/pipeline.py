"""Wiring of `benign_coupling`, out of the six stages."""

from kedro.pipeline import Pipeline, node

from persona_leakage.experiments.benign_coupling import arms, cosines, figures, tables
from persona_leakage.experiments.benign_coupling.report import write_report
from persona_leakage.experiments.benign_coupling.settings import NAME, Settings
from persona_leakage.experiments.benign_coupling.tables import describe_replay
from persona_leakage.experiments.composition import evaluate, train
from persona_leakage.experiments.family import Family, Replay
from persona_leakage.pipelines import in_stage
from persona_leakage.pipelines.data_generation import pipeline as data_generation
from persona_leakage.pipelines.generation.nodes import adopt_persona_completions
from persona_leakage.pipelines.geometry.nodes import no_cosines
from persona_leakage.pipelines.reporting.pipeline import Report
from persona_leakage.pipelines.scoring import pipeline as scoring

_REPORT = Report(
    {
        "cells": tables.tabulate_cells, "by_seed": tables.tabulate_cell_seeds, "places": tables.tabulate_places,
        "bystanders": tables.pool_bystanders, "replicates": tables.tabulate_replicates,
        "accuracies": tables.tabulate_accuracies, "learning_curves": tables.pool_learning,
        "arm_comparisons": arms.compare_arms, "extremes": arms.find_extremes,
        "bystander_cosines": cosines.tabulate_cosines, "correlations": cosines.correlate_cosines,
        "text_summaries": tables.summarise_texts, "cut_gaps": tables.compare_cut, "verdicts": tables.judge_claims,
        "mixed_effects": tables.fit_arms,
    },
    {
        "cells_figure": figures.draw_cells, "places_figure": figures.draw_places,
        "discriminators_figure": figures.draw_discriminators, "gradient_figure": figures.draw_gradient,
    },
    write_report,
)  # fmt: skip


def _stages() -> Pipeline:
    return (
        train("induce", data_generation.create_chats_pipeline("induce"), last=False)
        + train("couple", data_generation.create_answers_pipeline("couple"), below="induce.stack")
        + evaluate(scoring.create_marker_pipeline() + scoring.create_discriminator_pipeline())
    )


def _replayed_stages() -> Pipeline:
    scored = ["replayed_rates@run", "replayed_texts@run", "replayed_discriminations@run", "replayed_counts@run", "plan"]
    described = node(
        describe_replay, scored, ["rates", "texts", "discriminators", "by_question", "points"], name="describe_replay"
    )
    no_activations = node(no_cosines, "points", "similarities", name="no_cosines")
    return scoring.create_replay_pipeline() + in_stage([described, no_activations], "reporting")


_GATHERED = {
    "cell_rates": "rates", "cosines": "similarities", "text_stats": "texts", "discriminations": "discriminators",
    "question_counts": "by_question",
}  # fmt: skip
_KEPT = {"cosines": cosines.keep_rated}
_PERSONAS = ("personas", "coupling_personas")
_REPLAY = Replay(
    "completions_file",
    "outside_persona_completions",
    adopt_persona_completions,
    "completions",
    "generation",
    _replayed_stages,
    "all",
)
FAMILY = Family(NAME, Settings, _stages, _GATHERED, _REPORT, _KEPT, personas=_PERSONAS, replay=_REPLAY)
