"""Planted tables of marker leakage, with the columns that `gather_points` gives."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.experiments.marker_leakage.tables import CORRELATION_COLUMNS, pool_seeds
from persona_leakage.pipelines.correlation import Correlation, correlation
from tests.experiments.marker_leakage import plans

load_settings, plan_of = cache(plans.load_settings), cache(plans.make_plan)  # of record; the headline layer is 20


def rate(
    condition: str,
    persona: str,
    hits: int,
    n: int = 100,
    *,
    source: str | None = "",
    category: str = "original",
    related_to: str = "",
    role: str | None = None,
    seed: int = 42,
    stale: bool = False,
    metric: str = "leakage",
    questions: str = "all",
) -> dict[str, Any]:
    """Write a persona's rate; unless told, the source is the persona that the condition is called after."""
    source = condition if source == "" else source
    return {
        "condition": condition,
        "seed": seed,
        "plan": f"plan-{condition}",
        "source": source,
        "persona": persona,
        "category": category,
        "related_to": related_to,
        "questions": questions,
        "role": role or ("source" if persona == source else "bystander"),
        "metric": metric,
        **dict(zip(RATE_COLUMNS, proportion(hits, n), strict=True)),
        "reference": "baseline",
        "stale": stale,
    }


def cosine(
    condition: str, one: str, other: str, value: float, layer: int = 20, *, seed: int = 42, stale: bool = False
) -> dict[str, Any]:
    return {
        "condition": condition,
        "seed": seed,
        "plan": f"plan-{condition}",
        "layer": layer,
        "headline": layer == 20,
        "one": one,
        "other": other,
        "cosine": value,
        "centring": "c",
        "reference": "baseline",
        "stale": stale,
    }


def text(
    condition: str,
    persona: str,
    tokens: float = 50.0,
    distinct_2: float = 0.8,
    empty: int = 0,
    cut: int = 0,
    n: int = 10,
    *,
    seed: int = 42,
    stale: bool = False,
) -> dict[str, Any]:
    return {
        "condition": condition,
        "seed": seed,
        "plan": f"plan-{condition}",
        "persona": persona,
        "n": n,
        "tokens": tokens,
        "distinct_2": distinct_2,
        "empty": empty,
        "cut": cut,
        "reference": "baseline",
        "stale": stale,
    }


def rates(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(rate("c", "p", 0)))


def similarities(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(cosine("c", "p", "q", 0.0)))


def texts(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(text("c", "p")))


def leakage(*points: Mapping[str, Any]) -> pd.DataFrame:
    """Write a leakage table: a point has condition, seed and `of`: persona → (hits, n, cosine at layer 20).

    How completions ended, and what the baseline does, is not known.
    """
    beside = [(prefix, proportion(0, 0)._asdict()) for prefix in ("finished_", "cut_", "baseline_")]
    rows = []
    for point in points:
        condition, source = point["condition"], point.get("source", point["condition"])
        for persona, (hits, n, value) in point["of"].items():
            rows.append(
                {
                    "condition": condition,
                    "seed": point.get("seed", 42),
                    "source": source,
                    "persona": persona,
                    "category": point.get("categories", {}).get(persona, "original"),
                    "related_to": point.get("related", {}).get(persona, ""),
                    "role": "source" if persona == source else "bystander",
                    **dict(zip(RATE_COLUMNS, proportion(hits, n), strict=True)),
                    **{f"{prefix}{name}": value for prefix, counts in beside for name, value in counts.items()},
                    "headline_layer": 20,
                    "cosine_l20": value,
                }
            )
    return pd.DataFrame(rows)


def correlated(scope: str, condition: str, one: list[float], other: list[float], **more: Any) -> dict[str, Any]:
    """Write a row of the correlations table."""
    keys = {"scope": scope, "condition": condition, "seed": 42, "of": "leakage", "geometry": "cosine", "layer": 20, **more}
    keys |= {"headline": keys["layer"] == 20, "conditions": condition}
    return keys | dict(zip(Correlation._fields, correlation(one, other, resamples=200), strict=True))


def correlations(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(CORRELATION_COLUMNS))


def pooled(*points: Mapping[str, Any]) -> pd.DataFrame:
    """Write a leakage table and pool its seeds."""
    return pool_seeds(leakage(*points))
