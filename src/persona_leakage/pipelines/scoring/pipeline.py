"""Wiring of stage `scoring`."""

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines.scoring.cells_apart import describe_cells_apart, discriminate_cells_apart, rate_cells_apart
from persona_leakage.pipelines.scoring.discriminator import ask_discriminator, discriminate, join_discriminations
from persona_leakage.pipelines.scoring.judge import judge_languages, measure_judge_agreement
from persona_leakage.pipelines.scoring.markers import describe_texts, detect_markers, rate_firings
from persona_leakage.pipelines.scoring.nodes import label_languages, measure_agreement, rate_cells


def create_language_pipeline() -> Pipeline:
    """Build completions → labels, judgements → rates of this point."""
    return pipeline(
        [
            node(label_languages, ["completions", "plan"], "labels", name="label_languages"),
            node(measure_agreement, "labels", "agreement", name="measure_agreement"),
            node(judge_languages, ["language_model", "completions", "plan"], "judgements", name="judge_languages"),
            node(measure_judge_agreement, ["labels", "judgements"], "judge_agreement", name="measure_judge_agreement"),
            node(rate_cells, ["labels", "judgements", "plan"], "cell_rates@run", name="rate_cells"),
        ],
        tags="scoring",
    )


def create_marker_pipeline() -> Pipeline:
    """Build completions → firings → rates of this point, and a description of the texts."""
    return pipeline(
        [
            node(detect_markers, ["tokenizer", "completions", "plan"], "firings", name="detect_markers"),
            node(rate_firings, ["firings", "plan"], "cell_rates@run", name="rate_firings"),
            node(describe_texts, ["completions", "plan"], "text_stats@run", name="describe_texts"),
        ],
        tags="scoring",
    )


def create_discriminator_pipeline() -> Pipeline:
    """Build completions → how well the trigger persona's texts are told from others', by a classifier and by a judge."""
    return pipeline(
        [
            node(discriminate, ["completions", "plan"], "classified", name="discriminate"),
            node(ask_discriminator, ["language_model", "completions", "plan"], "judged", name="ask_discriminator"),
            node(join_discriminations, ["classified", "judged"], "discriminations@run", name="join_discriminations"),
        ],
        tags="scoring",
    )


def create_replay_pipeline() -> Pipeline:
    """Build completions of any number of cells made elsewhere → firings → rates, texts and discriminations of each cell."""
    return pipeline(
        [
            node(detect_markers, ["tokenizer", "completions", "plan"], "firings", name="detect_markers"),
            node(rate_cells_apart, ["firings", "plan"], "replayed_rates", name="rate_cells_apart"),
            node(describe_cells_apart, ["completions", "plan"], "replayed_texts", name="describe_cells_apart"),
            node(
                discriminate_cells_apart,
                ["language_model", "completions", "plan"],
                "replayed_discriminations",
                name="discriminate_cells_apart",
            ),
        ],
        tags="scoring",
    )
