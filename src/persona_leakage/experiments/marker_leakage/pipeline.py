"""Wiring of `marker_leakage`, out of the six stages."""

from kedro.pipeline import Pipeline

from persona_leakage.experiments.composition import evaluate, train
from persona_leakage.experiments.family import Family, Replay
from persona_leakage.experiments.marker_leakage import controls, figures, tables
from persona_leakage.experiments.marker_leakage.outside_rates import adopt_rates
from persona_leakage.experiments.marker_leakage.report import write_report
from persona_leakage.experiments.marker_leakage.settings import NAME, Settings
from persona_leakage.experiments.marker_leakage.tables import keep_sources
from persona_leakage.pipelines.data_generation import pipeline as data_generation
from persona_leakage.pipelines.reporting.pipeline import Report
from persona_leakage.pipelines.scoring import pipeline as scoring

_REPORT = Report(
    {
        "leakage": tables.tabulate_leakage, "pooled_leakage": tables.pool_seeds, "correlations": tables.correlate_leakage,
        "sources": tables.tabulate_sources, "by_seed": tables.tabulate_leakage_seeds, "verdicts": tables.judge_claims,
        "categories": tables.tabulate_categories, "most_affected": tables.tabulate_most_affected,
        "places": tables.tabulate_places, "cut_gaps": tables.compare_cut, "controls": controls.control_leakage,
        "mixed_effects": tables.fit_leakage,
    },
    {
        ("scatter_figure", "scatter_svg"): figures.draw_scatter, "layers_figure": figures.draw_layers,
        "categories_figure": figures.draw_categories, "most_affected_figure": figures.draw_most_affected,
    },
    write_report,
)  # fmt: skip


def _stages() -> Pipeline:
    marked = train("mark", data_generation.create_answers_pipeline("mark"))
    return marked + evaluate(scoring.create_marker_pipeline())


_GATHERED = {"cell_rates": "rates", "cosines": "similarities", "text_stats": "texts", "question_counts": "by_question"}
_REPLAY = Replay(
    parameter="rates_file",
    outside="outside_rates",
    adopt=adopt_rates,
    adopted=["rates", "similarities", "texts", "by_question", "points"],
    stage="reporting",
    scoring=lambda: Pipeline([]),
    condition="all",
)
FAMILY = Family(NAME, Settings, _stages, _GATHERED, _REPORT, {"cosines": keep_sources}, ("personas",), _REPLAY)
