"""Planted tables of rates, with roles, references and fingerprints from the real plans."""

from functools import cache
from typing import Any

import pandas as pd

from persona_leakage.domain.languages import typological_distance
from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.experiments.points import Designs, describe_points
from tests.experiments.lang_inversion.plans import load_variants, make_plan
from tests.plans import load_parameters

plan_of = cache(make_plan)


def cell(
    condition: str,
    language: str,
    contamination: tuple[int, int] | None = None,
    following: tuple[int, int] = (0, 0),
    *,
    phrasing: str = "all",
    seed: int = 42,
    stale: bool = False,
    **others: tuple[int, int],
) -> list[dict[str, Any]]:
    """Write the rows of one cell; `label_italian=(1, 80)` stands for the metric `label:italian`."""
    plan = plan_of(condition, seed)
    languages, completion = plan.scoring.languages, plan.scoring.completion
    distance = typological_distance(languages[language], languages[completion]) if completion else None
    counts = {"following": following, **{name.replace("label_", "label:"): count for name, count in others.items()}}
    if contamination is not None:
        counts["contamination"] = contamination
    return [
        {
            "condition": condition,
            "seed": seed,
            "plan": plan.fingerprint,
            "completion": completion,
            "directive_language": language,
            "phrasing": phrasing,
            "role": plan.scoring.role(language),
            "distance": distance,
            "metric": metric,
            **dict(zip(RATE_COLUMNS, proportion(*count), strict=True)),
            "reference": plan.reference,
            "stale": stale,
        }
        for metric, count in counts.items()
    ]


def table(*cells: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in cells for row in rows])


def contaminations(condition: str, n: int = 80, **hits: int) -> pd.DataFrame:
    """Write a condition's contamination by directive language."""
    return table(*[cell(condition, language, (count, n)) for language, count in hits.items()])


def points_of(rates: pd.DataFrame, replayed_file: str | None = None) -> pd.DataFrame:
    """Describe the points of a table of rates, as `gather_points` does."""
    designs = None if replayed_file else Designs(load_variants(), None)
    points = describe_points(rates.assign(model=load_parameters()["model"]), designs).assign(replayed_file=replayed_file)
    return points.drop(columns="model")
