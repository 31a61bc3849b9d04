"""Wiring of stage `reporting`: a family names its functions, and their arguments name what they are given."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
from kedro.pipeline import Pipeline

from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.variants import Variants
from persona_leakage.pipelines import in_stage, step
from persona_leakage.pipelines.reporting.by_model import for_each_model, name_models
from persona_leakage.pipelines.reporting.doses import FIGURE, add_doses, draw_doses, tabulate_doses
from persona_leakage.pipelines.reporting.page import render_page
from persona_leakage.pipelines.reporting.seeds import summarise_seeds


class Report(NamedTuple):
    """What a family makes of its gathered tables.

    An argument of a function is the dataset of its name; the argument `settings` is the family's settings.

    Attributes:
        tables: dataset → function that makes it, seeing one base model at a time (see `reporting.by_model`). Out of `by_seed`
            comes `over_seeds`.
        figures: dataset, `<name>_figure` → function that draws it; with a `<name>_svg` beside, the page shows that one.
        write: writes the report; it is also given `family`.
    """

    tables: Mapping[str, Callable[..., Any]]
    figures: Mapping[str | tuple[str, str], Callable[..., Any]]
    write: Callable[..., str]


def create_pipeline(report: Report, settings: type[Frozen], family: str, *, followed: bool = False) -> Pipeline:
    """Build gathered tables → tables and figures → a Markdown report → one page with the figures in it.

    Args:
        report: what is made.
        settings: type of the family's settings.
        family: the report is about.
        followed: the report also tells of the trainings whose matched dose was looked for.
    """
    types = {"settings": Variants[settings]}  # type: ignore[valid-type]
    if followed:
        tables, figures = {**report.tables, "doses": tabulate_doses}, {**report.figures, f"{FIGURE}_figure": draw_doses}
        report = report._replace(tables=tables, figures=figures)
    nodes = [
        step(for_each_model(make, types), _arguments(make), made)
        for made, make in {**report.tables, "over_seeds": summarise_seeds}.items()
    ]
    shown = {}
    for made, draw in report.figures.items():
        names = [made] if isinstance(made, str) else list(made)
        nodes.append(step(name_models(draw), _arguments(draw), made if isinstance(made, str) else names))
        shown[names[-1].rsplit("_", 1)[0]] = names[-1]
    told = {name: dataset for name, dataset in _arguments(report.write).items() if name != "family"}
    if followed:
        write, told = _with_doses(report.write), {**told, "doses": "doses"}
    else:
        write = name_models(report.write)
    nodes.append(step(write, told, "report", family=family))
    nodes.append(step(render_page, {"report": "report", **shown}, "report_page"))
    return in_stage(nodes, "reporting")


def _with_doses(write: Callable[..., str]) -> Callable[..., str]:
    def write_report(doses: pd.DataFrame, **given: Any) -> str:
        body = name_models(write)(**given)
        return str(name_models(add_doses)(body, doses))

    return write_report


def _arguments(function: Callable[..., Any]) -> dict[str, str]:
    return {name: "params:variants" if name == "settings" else name for name in inspect.signature(function).parameters}
