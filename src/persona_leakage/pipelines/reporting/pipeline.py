"""Wiring of stage `reporting`."""

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines.reporting.document import render_page, write_report
from persona_leakage.pipelines.reporting.figures import draw_conditions, draw_published, draw_spill_matrix
from persona_leakage.pipelines.reporting.nodes import compare_published, correlate, judge_claims, tabulate_spill


def create_pipeline() -> Pipeline:
    """Build rates of all points → spill, verdicts, comparison with the published rates → figures → report."""
    return pipeline(
        [
            node(tabulate_spill, "rates", "spill", name="tabulate_spill"),
            node(judge_claims, ["rates", "spill", "params:claims"], "verdicts", name="judge_claims"),
            node(compare_published, ["spill", "published"], "published_cells", name="compare_published"),
            node(correlate, ["published_cells", "spill", "similarities"], "correlations", name="correlate"),
            node(draw_spill_matrix, ["spill", "plan"], "spill_figure", name="draw_spill_matrix"),
            node(draw_conditions, ["spill", "plan"], "conditions_figure", name="draw_conditions"),
            node(draw_published, ["published_cells", "correlations"], "published_figure", name="draw_published"),
            node(
                write_report,
                ["rates", "spill", "verdicts", "published_cells", "correlations", "plan"],
                "report",
                name="write_report",
            ),
            node(
                render_page,
                ["report", "spill_figure", "conditions_figure", "published_figure"],
                "report_page",
                name="render_page",
            ),
        ],
        tags="reporting",
    )
