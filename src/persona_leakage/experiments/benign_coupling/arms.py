"""How much more a marker leaks in one arm than in another."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS
from persona_leakage.experiments.benign_coupling.settings import UNCOUPLED

_OF = {"leakage": "mean_bystander", "leakage:finished": "mean_finished"}  # kind of leakage → column of cells
COMPARISON_COLUMNS = (
    "of", "one", "other", "one_unit", "other_unit", "one_units", "other_units", "one_mean", "other_mean", "difference",
    "difference_low", "difference_high", "p", "ratio", "ratio_low", "ratio_high", "no_interval", "no_ratio",
)  # fmt: skip
EXTREME_COLUMNS = ("arm", "role", "cells", "extreme", "condition", "persona", *RATE_COLUMNS)


def compare_arms(cells: pd.DataFrame) -> pd.DataFrame:
    """Compare the mean bystander rates of every two arms that tied the marker.

    The units of an arm are its designs, or the points of its only one (see `tables.tabulate_replicates`). The difference has
    Welch's t interval and p (1947). The ratio has a t interval on the log scale (the delta method: a log mean varies by the
    mean's standard error over the mean; with Welch's degrees of freedom), so that it takes no ratio below 0.

    Returns:
        One row a kind of leakage (of: `leakage`, or `leakage:finished` where known) x pair of arms: one, other; each one's
        unit (`design` or `point`), units (how many have a rate) and mean; difference (one less the other) and ratio (one over
        the other), with low and high; p of the difference; no_interval (why there is none: an arm of one unit, or of equal
        ones, which are no proof of certainty) and no_ratio (a mean is 0, or unknown).
    """
    arms = {arm: group for arm, group in cells.groupby("arm", sort=False) if arm != UNCOUPLED}
    rows = [
        {"of": of, "one": one, "other": other, **_compare((one, arms[one]), (other, arms[other]), column)}
        for of, column in _OF.items()
        for one, other in combinations(arms, 2)
        if arms[one][column].notna().any() and arms[other][column].notna().any()
    ]
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def find_extremes(bystanders: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Find how far the rates of single bystanders range in every arm, apart by role.

    Args:
        bystanders: see `tables.pool_bystanders`.
        cells: see `tables.tabulate_cells`; says which arm a condition belongs to.

    Returns:
        One row an arm x role x extreme (`lowest`, `highest`): cells (conditions x bystanders in that role, seeds pooled), and
        of the cell, the first of equal ones: condition, persona, hits, n, rate, low, high.
    """
    arms = dict(zip(cells["condition"], cells["arm"], strict=True))
    rows = []
    for (arm, role), group in bystanders.assign(arm=bystanders["condition"].map(arms)).groupby(["arm", "role"], sort=False):
        for extreme, place in (("lowest", group["rate"].idxmin()), ("highest", group["rate"].idxmax())):
            found = group.loc[place, ["condition", "persona", *RATE_COLUMNS]]
            rows.append({"arm": arm, "role": role, "cells": len(group), "extreme": extreme, **found})
    return pd.DataFrame(rows, columns=EXTREME_COLUMNS)


def _compare(one: tuple[str, pd.DataFrame], other: tuple[str, pd.DataFrame], column: str) -> dict[str, object]:
    (kind, a), (other_kind, b) = (_units(cells, column) for _, cells in (one, other))
    found: dict[str, object] = {
        "one_unit": kind, "other_unit": other_kind, "one_units": len(a), "other_units": len(b), "one_mean": a.mean(),
        "other_mean": b.mean(), "difference": a.mean() - b.mean(), "no_interval": "", "no_ratio": "",
    }  # fmt: skip
    named = ((one[0], a), (other[0], b))
    if lone := [arm for arm, values in named if len(values) < 2]:
        found["no_interval"] = f"{lone[0]} has one unit"
    elif equal := [arm for arm, values in named if np.ptp(values) == 0]:
        found["no_interval"] = f"no spread in {equal[0]}"
    else:
        squares = [values.var(ddof=1) / len(values) for values in (a, b)]
        low, high, p = _welch(a.mean() - b.mean(), squares, (len(a), len(b)))
        found |= {"difference_low": max(-1.0, low), "difference_high": min(1.0, high), "p": p}
    if zero := [arm for arm, values in named if values.mean() == 0]:
        return {**found, "no_ratio": f"the mean of {zero[0]} is 0"}
    found["ratio"] = a.mean() / b.mean()
    if not found["no_interval"]:
        squares = [values.var(ddof=1) / len(values) / values.mean() ** 2 for values in (a, b)]
        low, high, _ = _welch(math.log(a.mean() / b.mean()), squares, (len(a), len(b)))
        found |= {"ratio_low": math.exp(low), "ratio_high": math.exp(high)}
    return found


def _units(cells: pd.DataFrame, column: str) -> tuple[str, np.ndarray]:
    known = cells.dropna(subset=column)
    if known["design"].nunique() > 1:
        return "design", known.groupby("design", sort=False)[column].mean().to_numpy()
    return "point", known[column].to_numpy()


def _welch(difference: float, squares: Sequence[float], numbers: Sequence[int]) -> tuple[float, float, float]:
    """Give a difference its t interval and p, from the squared standard errors of two independent sides of so many values."""
    from scipy.stats import t

    error = math.sqrt(sum(squares))
    freedom = error**4 / sum(square**2 / (number - 1) for square, number in zip(squares, numbers, strict=True))
    half = float(t.isf(0.025, freedom)) * error
    return difference - half, difference + half, 2 * float(t.sf(abs(difference) / error, freedom))
