"""Describe texts, so that a collapsed model is seen beside its rates, and tell whether they left a range."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pandas as pd

from persona_leakage.domain.dose import Slack

DESCRIBED = ("n", "tokens", "distinct_2", "empty", "cut")
NO_SLACK = Slack(tokens=0, distinct_2=0, empty=0, cut=0)


def describe(texts: Sequence[str], tokens: Sequence[float | None], ends: Sequence[str | None]) -> tuple[object, ...]:
    """Describe some completions.

    Args:
        texts: what they say.
        tokens: their lengths; missing where they are not known.
        ends: how they ended; missing where that is not known.

    Returns:
        `DESCRIBED`: n (completions), tokens (mean length; NaN where one is not known), distinct_2 (different pairs of
        neighbouring words over all such pairs; Li et al. 2016; NaN without any), empty (blank completions), cut (those that
        reached the token limit; NaN where one does not say how it ended).
    """
    pairs = [pair for text in texts for pair in pairwise(text.split())]
    finish = pd.Series(list(ends), dtype=object)
    return (
        len(texts),
        pd.Series(list(tokens), dtype=float).mean(skipna=False),
        len(set(pairs)) / len(pairs) if pairs else float("nan"),
        sum(not text.strip() for text in texts),
        (finish == "length").sum() if finish.notna().all() else float("nan"),
    )


def average(own: pd.DataFrame) -> dict[str, float]:
    """Summarise descriptions of several cells.

    Args:
        own: one row a cell, with the columns `DESCRIBED`.

    Returns:
        tokens and distinct_2, cells weighing equally; empty and cut, as shares of all completions. NaN where not all are known.
    """
    number = own["n"].sum()
    return {
        "tokens": own["tokens"].mean(skipna=False),
        "distinct_2": own["distinct_2"].mean(),
        "empty": own["empty"].sum() / number,
        "cut": float(own["cut"].astype(float).sum(skipna=False)) / number,
    }


def name_outside(values: Mapping[str, float], base: pd.DataFrame, slack: Slack = NO_SLACK) -> list[str]:
    """Name what leaves the range of the texts that are compared with.

    Args:
        values: see `average`.
        base: descriptions of those texts, one row a cell; without rows nothing is compared.
        slack: how far that may be.

    Returns:
        Which of tokens, distinct_2, empty and cut lie outside the range over the cells of `base`; tokens and cut are left out
        where one of them is not known.
    """
    if base.empty:
        return []
    shares = {name: base[name].astype(float) / base["n"] for name in ("empty", "cut")}
    ranges = {"tokens": base["tokens"], "distinct_2": base["distinct_2"], **shares}
    outside = []
    for name, over in ranges.items():
        if name in ("tokens", "cut") and (pd.isna(values[name]) or over.isna().any()):
            continue
        allowed = getattr(slack, name)
        low, high = over.min(), over.max()
        if name in shares:
            low, high = low - allowed, high + allowed
        else:
            low, high = low * (1 - allowed), high * (1 + allowed)
        if not low <= values[name] <= high:
            outside.append(name)
    return outside
