"""Wiring of `convergence`, out of the six stages."""

import pandas as pd
from kedro.pipeline import Pipeline

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments.composition import evaluate, train
from persona_leakage.experiments.convergence import figures, tables
from persona_leakage.experiments.convergence.report import write_report
from persona_leakage.experiments.convergence.settings import NAME, Settings
from persona_leakage.experiments.family import Family
from persona_leakage.pipelines.data_generation import pipeline as data_generation
from persona_leakage.pipelines.reporting.pipeline import Report
from persona_leakage.pipelines.scoring import pipeline as scoring

_REPORT = Report(
    {
        "trajectories": tables.tabulate_trajectories, "pooled_trajectories": tables.pool_trajectory_seeds,
        "by_seed": tables.tabulate_trajectory_seeds, "summaries": tables.summarise_trajectories,
        "verdict_counts": tables.count_verdicts, "peak_correlations": tables.correlate_peaks,
        "text_ranges": tables.tabulate_text_ranges, "text_means": tables.average_texts,
        "cut_gaps": tables.compare_cut, "verdicts": tables.judge_claims,
        "mixed_effects": tables.fit_courses,
    },
    {
        "trajectories_figure": figures.draw_trajectories, "peaks_figure": figures.draw_peaks,
    },
    write_report,
)  # fmt: skip


def _stages() -> Pipeline:
    """Compose both trained stages; the geometry is of the stack between them."""
    pulled = train("converge", data_generation.create_answers_pipeline("converge"), last=False)
    marked = train("mark", data_generation.create_answers_pipeline("mark"), below="converge.stack")
    return pulled + marked + evaluate(scoring.create_marker_pipeline(), "converge.stack")


def keep_source_and_pulled(cosines: pd.DataFrame, now: Plan | None, rates: pd.DataFrame) -> pd.DataFrame:
    """Keep a point's cosines between the source and the pulled persona; none where they are no longer known."""
    pair = [expect(now.scoring, MarkerScoring).source, now.traits["pulled"]] if now else []
    return cosines[cosines["one"].isin(pair) & cosines["other"].isin(pair)]


_GATHERED = {"cell_rates": "rates", "cosines": "similarities", "text_stats": "texts", "question_counts": "by_question"}
_KEPT = {"cosines": keep_source_and_pulled}
FAMILY = Family(NAME, Settings, _stages, _GATHERED, _REPORT, _KEPT, ("personas",), has_checkpoints=True)
