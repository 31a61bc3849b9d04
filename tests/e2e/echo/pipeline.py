"""Wiring of `echo`, out of the six stages."""

from kedro.pipeline import Pipeline
from persona_leakage.experiments.echo import figures, tables
from persona_leakage.experiments.echo.report import write_report
from persona_leakage.experiments.echo.settings import NAME, Settings

from persona_leakage.experiments.composition import evaluate, train
from persona_leakage.experiments.family import Family
from persona_leakage.pipelines.data_generation import pipeline as data_generation
from persona_leakage.pipelines.reporting.pipeline import Report
from persona_leakage.pipelines.scoring import pipeline as scoring


def _stages() -> Pipeline:
    return train("mark", data_generation.create_answers_pipeline("mark")) + evaluate(scoring.create_marker_pipeline())


FAMILY = Family(
    name=NAME,
    settings=Settings,
    stages=_stages,
    gathered={"cell_rates": "rates", "cosines": "similarities"},
    report=Report(
        tables={"echo": tables.tabulate_echo, "by_seed": tables.tabulate_echo_seeds},
        figures={"echo_figure": figures.draw_echo},
        write=write_report,
    ),
    personas=("personas",),
)
