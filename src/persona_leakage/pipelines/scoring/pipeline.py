"""Wiring of stage `scoring`."""

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines.scoring.judge import judge_languages, measure_judge_agreement
from persona_leakage.pipelines.scoring.nodes import label_languages, measure_agreement, rate_cells


def create_pipeline() -> Pipeline:
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
