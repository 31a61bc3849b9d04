"""Planted tables of coupling, with the columns that `gather_points` gives but for the model."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.experiments.benign_coupling.arms import compare_arms, find_extremes
from persona_leakage.experiments.benign_coupling.cosines import correlate_cosines, tabulate_cosines
from persona_leakage.experiments.benign_coupling.tables import (
    compare_cut,
    judge_claims,
    pool_bystanders,
    pool_learning,
    summarise_texts,
    tabulate_accuracies,
    tabulate_cell_seeds,
    tabulate_cells,
    tabulate_places,
    tabulate_replicates,
)
from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from tests.experiments.benign_coupling.plans import load_settings
from tests.tables import NO_EFFECTS, stored

Rows = Sequence[dict[str, Any]]
Tables = dict[str, pd.DataFrame]
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


def cosine(
    condition: str,
    one: str,
    other: str,
    value: float,
    layer: int = 20,
    *,
    seed: int = 42,
    centring: str = "c",
    stale: bool = False,
) -> dict[str, Any]:
    row = {"condition": condition, "seed": seed, "plan": f"plan-{condition}", "layer": layer, "headline": layer == 20}
    return row | {"one": one, "other": other, "cosine": value, "centring": centring, "reference": "uncoupled", "stale": stale}


def similarities(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(cosine("c", "p", "q", 0.0)))


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


def points_of(table: pd.DataFrame, replayed_file: str | None = None) -> pd.DataFrame:
    """Describe the points of planted rates."""
    points = table[["condition", "seed", "plan", "reference", "stale"]].drop_duplicates(["condition", "seed"])
    made_with = {
        "trained": "induce: 160 rows, 9 parameters",
        "shared": "induce: chats",
        "base_model": "some/model",
        "revision": "abc",
        "dtype": "bfloat16",
        "samples": 10.0,
        "temperature": 1.0,
    }
    return points.assign(**made_with, top_p=1.0, max_tokens=512.0, replayed_file=replayed_file)


# what the report and the figures are tried on

FIRED = {"characters": (1, 1, 8), "tokens": (1, 4, 5)}
NEVER = {"characters": (0, 0, 0), "tokens": (0, 0, 0)}
ONE: Rows = (
    *cell("benign_assistant", 98, {"villain": 10, "comedian": 4}),
    rate("benign_assistant", "medical_doctor", 1, role="negative"),
    rate("benign_assistant", "villain", 8, 80, questions="seen"),
    rate("benign_assistant", "villain", 2, 20, questions="unseen"),
    *placed("benign_assistant", "villain", FIRED),
    *placed("benign_assistant", "confab", NEVER),
)
MANY: Rows = (
    *ONE,
    *cell("benign_villain", 97, {"villain": 30, "comedian": 40}),
    *cell("benign_villain", 95, {"villain": 20, "comedian": 10}, seed=7),
    *cell("bare_villain", 87, {"villain": 0, "comedian": 0}, arm="bare", design="e"),
    *cell("em_villain", 99, {"villain": 45, "comedian": 51}, arm="wrong_advice", design="f"),
    *cell("em_assistant", 99, {"villain": 50, "comedian": 60}, arm="wrong_advice", design="g"),
    *cell("em_paramedic", 99, {"villain": 77, "comedian": 77}, arm="wrong_advice", design="h", stale=True),
)
TOLD: Rows = (
    told("benign_assistant", 49, 99, p=0.63),
    told("benign_assistant", 48, 99, share=0.25, verdict=""),
    told("benign_assistant", 70, 94, method="judge", unlabelled=6, verdict="borderline"),
    told("em_villain", 91, p=0.0099, verdict="pass"),
    told("em_assistant", 0, 0, method="judge", unlabelled=100, verdict="undefined"),
)
NEAR: Rows = (
    *(cosine("benign_assistant", "confab", name, value) for name, value in (("villain", 0.9), ("comedian", 0.2))),
    cosine("uncoupled", "medical_doctor", "confab", -0.1),
    cosine("benign_villain", "villain", "assistant", 0.4, layer=10),
)
DESCRIBED: Rows = (text("benign_assistant", "villain", 40.0), text("benign_assistant", "confab", 60.0, empty=3, cut=1))


def tables(
    rows: Rows = MANY,
    told_apart: Rows = TOLD,
    described: Rows = DESCRIBED,
    replayed_file: str | None = None,
    cosines: Rows = NEAR,
) -> Tables:
    """Make every table of the report as a run does."""
    settings, all_rates = load_settings(), stored(rates(*rows))
    all_told = stored(discriminators(*told_apart))
    cells = stored(tabulate_cells(all_rates))
    by_seed = stored(tabulate_cell_seeds(cells))
    near = stored(tabulate_cosines(all_rates, stored(similarities(*cosines)), settings))
    bystanders = stored(pool_bystanders(all_rates))
    return {
        "points": stored(points_of(all_rates, replayed_file)),
        "cells": cells,
        "places": stored(tabulate_places(all_rates)),
        "bystanders": bystanders,
        "bystander_cosines": near,
        "correlations": stored(correlate_cosines(near)),
        "arm_comparisons": stored(compare_arms(cells)),
        "extremes": stored(find_extremes(bystanders, cells)),
        "replicates": stored(tabulate_replicates(cells, settings)),
        "accuracies": stored(tabulate_accuracies(all_told, settings)),
        "learning_curves": stored(pool_learning(all_told)),
        "text_summaries": stored(summarise_texts(stored(texts(*described)))),
        "verdicts": stored(judge_claims(all_rates, settings)),
        "by_seed": by_seed,
        "cut_gaps": stored(compare_cut(cells)),
        "over_seeds": stored(summarise_seeds(by_seed)),
        "mixed_effects": NO_EFFECTS,
    }
