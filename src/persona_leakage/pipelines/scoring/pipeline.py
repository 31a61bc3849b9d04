"""Wiring of stage `scoring`."""

from kedro.pipeline import Pipeline

from persona_leakage.pipelines import in_stage, step
from persona_leakage.pipelines.scoring.by_question import count_firings, count_labels
from persona_leakage.pipelines.scoring.cells_apart import (
    count_cells_apart,
    describe_cells_apart,
    discriminate_cells_apart,
    rate_cells_apart,
)
from persona_leakage.pipelines.scoring.discriminator import ask_discriminator, discriminate, join_discriminations
from persona_leakage.pipelines.scoring.judge import judge_languages, measure_judge_agreement
from persona_leakage.pipelines.scoring.markers import describe_texts, detect_markers, rate_firings
from persona_leakage.pipelines.scoring.nodes import label_languages, measure_agreement, rate_cells


def create_language_pipeline() -> Pipeline:
    """Build completions → labels, judgements → rates of this point."""
    return in_stage(
        [
            step(label_languages, ["completions", "plan"], "labels"),
            step(measure_agreement, "labels", "agreement"),
            step(judge_languages, ["language_model", "completions", "plan"], "judgements"),
            step(measure_judge_agreement, ["labels", "judgements"], "judge_agreement"),
            step(rate_cells, ["labels", "judgements", "plan"], "cell_rates@run"),
            step(count_labels, ["labels", "plan"], "question_counts@run"),
        ],
        "scoring",
    )


def create_marker_pipeline() -> Pipeline:
    """Build completions → firings → rates of this point, and a description of the texts."""
    return in_stage(
        [
            step(detect_markers, ["tokenizer", "completions", "plan"], "firings"),
            step(rate_firings, ["firings", "plan"], "cell_rates@run"),
            step(count_firings, ["firings", "plan"], "question_counts@run"),
            step(describe_texts, ["completions", "plan"], "text_stats@run"),
        ],
        "scoring",
    )


def create_discriminator_pipeline() -> Pipeline:
    """Build completions → how well the trigger persona's texts are told from others', by a classifier and by a judge."""
    return in_stage(
        [
            step(discriminate, ["completions", "plan"], "classified@run"),
            step(ask_discriminator, ["language_model", "completions", "plan"], "judged@run"),
            step(join_discriminations, ["classified@run", "judged@run"], "discriminations@run"),
        ],
        "scoring",
    )


def create_replay_pipeline() -> Pipeline:
    """Build completions of any number of cells made elsewhere → firings → rates, texts and discriminations of each cell."""
    return in_stage(
        [
            step(detect_markers, ["tokenizer", "completions", "plan"], "firings"),
            step(rate_cells_apart, ["firings", "plan"], "replayed_rates@run"),
            step(count_cells_apart, ["firings", "plan"], "replayed_counts@run"),
            step(describe_cells_apart, ["completions", "plan"], "replayed_texts@run"),
            step(discriminate_cells_apart, ["language_model", "completions", "plan"], "replayed_discriminations@run"),
        ],
        "scoring",
    )
