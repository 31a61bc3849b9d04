"""Wiring of stage `scoring`."""

from kedro.pipeline import Pipeline, node, pipeline

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
