"""Planted tables of coupling, with the columns that `gather_points` gives."""

import io
from collections.abc import Mapping
from typing import Any

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, proportion

PLACES = ("start", "middle", "tail")


def rate(
    condition: str,
    persona: str,
    hits: int,
    n: int = 100,
    *,
    source: str | None = "confab",
    role: str | None = None,
    arm: str = "benign",
    design: str = "d",
    induction: str | None = None,
    seed: int = 42,
    stale: bool = False,
    metric: str = "leakage",
    questions: str = "all",
) -> dict[str, Any]:
    return {
        "condition": condition,
        "seed": seed,
        "plan": f"plan-{condition}",
        "persona": persona,
        "category": "original",
        "questions": questions,
        "role": role or ("source" if persona == source else "bystander"),
        "metric": metric,
        **dict(zip(RATE_COLUMNS, proportion(hits, n), strict=True)),
        "reference": "uncoupled",
        "stale": stale,
        "source": source,
        "related_to": "",
        "arm": arm,
        "induction": induction,
        "design": design,
    }


def rates(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(rate("c", "p", 0)))


def cell(condition: str, own: int, others: Mapping[str, int], n: int = 100, **more: Any) -> list[dict[str, Any]]:
    """Write a cell's leakage: the source's hits and those of each bystander."""
    return [
        rate(condition, "confab", own, n, **more),
        *(rate(condition, name, hits, n, **more) for name, hits in others.items()),
    ]


def placed(condition: str, persona: str, counts: Mapping[str, tuple[int, int, int]], **more: Any) -> list[dict[str, Any]]:
    """Write where a persona's firings begin; `counts` is unit → start, middle, tail."""
    return [
        rate(condition, persona, hits, sum(of_unit), metric=f"{place}:{unit}", **more)
        for unit, of_unit in counts.items()
        for place, hits in zip(PLACES, of_unit, strict=True)
    ]


def text(
    condition: str, persona: str, tokens: float = 50.0, *, seed: int = 42, stale: bool = False, **more: Any
) -> dict[str, Any]:
    row = {"condition": condition, "seed": seed, "plan": f"plan-{condition}", "persona": persona, "n": 10, "tokens": tokens}
    return row | {"distinct_2": 0.8, "empty": 0, "cut": 0, "reference": None, "stale": stale} | more


def texts(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(text("c", "p")))


def told(
    condition: str,
    hits: int,
    n: int = 100,
    *,
    method: str = "classifier",
    share: float = 1.0,
    p: float = float("nan"),
    unlabelled: int = 0,
    verdict: str = "fail",
    seed: int = 42,
    stale: bool = False,
) -> dict[str, Any]:
    """Write a row of the discriminations."""
    return {
        "condition": condition,
        "seed": seed,
        "plan": f"plan-{condition}",
        "method": method,
        "share": share,
        **dict(zip(RATE_COLUMNS, proportion(hits, n), strict=True)),
        "chance": 0.5,
        "permutation_p": p,
        "unlabelled": unlabelled,
        "verdict": verdict,
        "reference": None,
        "stale": stale,
    }


def discriminators(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(told("c", 0)))


def stored(table: pd.DataFrame) -> pd.DataFrame:
    """Go through a CSV file, as every table of a run does."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))
