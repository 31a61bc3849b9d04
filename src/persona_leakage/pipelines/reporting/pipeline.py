"""Wiring of stage `reporting`."""

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines.reporting.coupling import (
    tabulate_cell_seeds,
    tabulate_cells,
    tabulate_places,
    tabulate_replicates,
)
from persona_leakage.pipelines.reporting.coupling_figures import (
    draw_cells,
    draw_discriminators,
    draw_gradient,
    draw_places,
)
from persona_leakage.pipelines.reporting.coupling_report import render_coupling_page, write_coupling_report
from persona_leakage.pipelines.reporting.leakage import (
    correlate_leakage,
    judge_leakage_claims,
    tabulate_leakage,
    tabulate_leakage_seeds,
    tabulate_sources,
)
from persona_leakage.pipelines.reporting.leakage_figures import (
    draw_categories,
    draw_layers,
    draw_most_affected,
    draw_scatter,
)
from persona_leakage.pipelines.reporting.leakage_report import render_leakage_page, write_leakage_report
from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from persona_leakage.pipelines.reporting.spill import (
    compare_published,
    correlate,
    judge_claims,
    tabulate_spill,
    tabulate_spill_seeds,
)
from persona_leakage.pipelines.reporting.spill_figures import draw_conditions, draw_published, draw_spill_matrix
from persona_leakage.pipelines.reporting.spill_report import render_spill_page, write_spill_report
from persona_leakage.pipelines.reporting.trajectories import (
    correlate_peaks,
    summarise_trajectories,
    tabulate_text_ranges,
    tabulate_trajectories,
    tabulate_trajectory_seeds,
)
from persona_leakage.pipelines.reporting.trajectory_figures import draw_peaks, draw_trajectories
from persona_leakage.pipelines.reporting.trajectory_report import render_trajectory_page, write_trajectory_report


def create_spill_pipeline() -> Pipeline:
    """Build rates of all points → spill, verdicts, comparison with the published rates → figures → report."""
    return pipeline(
        [
            node(tabulate_spill, "rates", "spill", name="tabulate_spill"),
            node(tabulate_spill_seeds, "rates", "by_seed", name="tabulate_spill_seeds"),
            node(summarise_seeds, "by_seed", "over_seeds", name="summarise_seeds"),
            node(judge_claims, ["rates", "spill", "params:claims"], "verdicts", name="judge_claims"),
            node(compare_published, ["spill", "published"], "published_cells", name="compare_published"),
            node(correlate, ["published_cells", "spill", "similarities"], "correlations", name="correlate"),
            node(draw_spill_matrix, ["spill", "plan"], "spill_figure", name="draw_spill_matrix"),
            node(draw_conditions, ["spill", "plan"], "conditions_figure", name="draw_conditions"),
            node(draw_published, ["published_cells", "correlations"], "published_figure", name="draw_published"),
            node(
                write_spill_report,
                ["rates", "spill", "verdicts", "published_cells", "correlations", "by_seed", "over_seeds", "plan"],
                "report",
                name="write_report",
            ),
            node(
                render_spill_page,
                ["report", "spill_figure", "conditions_figure", "published_figure"],
                "report_page",
                name="render_page",
            ),
        ],
        tags="reporting",
    )


def create_leakage_pipeline() -> Pipeline:
    """Build rates, cosines and texts of all points → leakage, its correlations, sources, verdicts → figures → report."""
    return pipeline(
        [
            node(tabulate_leakage, ["rates", "similarities"], "leakage", name="tabulate_leakage"),
            node(correlate_leakage, ["leakage", "plan"], "correlations", name="correlate_leakage"),
            node(tabulate_sources, ["leakage", "texts"], "sources", name="tabulate_sources"),
            node(tabulate_leakage_seeds, ["sources", "correlations"], "by_seed", name="tabulate_leakage_seeds"),
            node(summarise_seeds, "by_seed", "over_seeds", name="summarise_seeds"),
            node(
                judge_leakage_claims,
                ["rates", "correlations", "params:claims"],
                "verdicts",
                name="judge_leakage_claims",
            ),
            node(draw_scatter, ["leakage", "correlations", "plan"], ["scatter_figure", "scatter_svg"], name="draw_scatter"),
            node(draw_layers, "correlations", "layers_figure", name="draw_layers"),
            node(draw_categories, "leakage", "categories_figure", name="draw_categories"),
            node(draw_most_affected, "leakage", "affected_figure", name="draw_most_affected"),
            node(
                write_leakage_report,
                ["rates", "leakage", "sources", "correlations", "verdicts", "by_seed", "over_seeds", "plan"],
                "report",
                name="write_leakage_report",
            ),
            node(
                render_leakage_page,
                ["report", "scatter_svg", "layers_figure", "categories_figure", "affected_figure"],
                "report_page",
                name="render_leakage_page",
            ),
        ],
        tags="reporting",
    )


def create_trajectory_pipeline() -> Pipeline:
    """Build rates, cosines and texts of all points → trajectories over the epochs, their outcomes → figures → report."""
    return pipeline(
        [
            node(tabulate_trajectories, ["rates", "similarities"], "trajectories", name="tabulate_trajectories"),
            node(tabulate_trajectory_seeds, "trajectories", "by_seed", name="tabulate_trajectory_seeds"),
            node(summarise_seeds, "by_seed", "over_seeds", name="summarise_seeds"),
            node(
                summarise_trajectories,
                ["trajectories", "params:early_checkpoint"],
                "summaries",
                name="summarise_trajectories",
            ),
            node(tabulate_text_ranges, "texts", "text_ranges", name="tabulate_text_ranges"),
            node(correlate_peaks, "summaries", "peak_correlations", name="correlate_peaks"),
            node(draw_trajectories, ["trajectories", "plan"], "trajectories_figure", name="draw_trajectories"),
            node(draw_peaks, ["summaries", "peak_correlations", "plan"], "peaks_figure", name="draw_peaks"),
            node(
                write_trajectory_report,
                ["rates", "trajectories", "summaries", "peak_correlations", "by_seed", "over_seeds", "text_ranges", "plan"],
                "report",
                name="write_trajectory_report",
            ),
            node(
                render_trajectory_page,
                ["report", "trajectories_figure", "peaks_figure"],
                "report_page",
                name="render_trajectory_page",
            ),
        ],
        tags="reporting",
    )


def create_coupling_pipeline() -> Pipeline:
    """Build rates, texts and discriminations of all points → cells, places, replicates → figures → report."""
    return pipeline(
        [
            node(tabulate_cells, "rates", "cells", name="tabulate_cells"),
            node(tabulate_cell_seeds, "cells", "by_seed", name="tabulate_cell_seeds"),
            node(summarise_seeds, "by_seed", "over_seeds", name="summarise_seeds"),
            node(tabulate_places, "rates", "places", name="tabulate_places"),
            node(
                tabulate_replicates,
                ["cells", "params:escalate_from", "params:escalate_to"],
                "replicates",
                name="tabulate_replicates",
            ),
            node(draw_cells, "cells", "cells_figure", name="draw_cells"),
            node(draw_places, "places", "places_figure", name="draw_places"),
            node(
                draw_discriminators,
                ["discriminators", "params:threshold"],
                "discriminators_figure",
                name="draw_discriminators",
            ),
            node(draw_gradient, "rates", "gradient_figure", name="draw_gradient"),
            node(
                write_coupling_report,
                ["rates", "texts", "cells", "places", "replicates", "discriminators", "by_seed", "over_seeds", "plan"],
                "report",
                name="write_coupling_report",
            ),
            node(
                render_coupling_page,
                ["report", "cells_figure", "places_figure", "discriminators_figure", "gradient_figure"],
                "report_page",
                name="render_coupling_page",
            ),
        ],
        tags="reporting",
    )
