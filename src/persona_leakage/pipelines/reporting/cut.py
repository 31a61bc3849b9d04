"""Completions that were cut at the token limit: where raw rates do not compare because of them."""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, difference, proportion
from persona_leakage.pipelines.reporting.page import as_written, say_rates
from persona_leakage.pipelines.reporting.rates import CUT_

CUT_MARGIN = 0.05  # shares that are further apart than this bias a comparison by more than it can tell
CUT_MOST = 0.1  # of a source: beyond it, its raw rate says little of how well the marker was implanted
_OTHER = tuple(f"{name}_other" for name in RATE_COLUMNS)
GAP_COLUMNS = ("scope", "one", "other", *RATE_COLUMNS, *_OTHER, "difference", "difference_low", "difference_high")


def find_cut_gaps(shares: pd.DataFrame) -> pd.DataFrame:
    """Find what is compared though it is cut to different extents.

    Args:
        shares: scope (what is compared with each other), name, and hits (cut completions) of n; rows of one name are pooled.

    Returns:
        One row a scope in which the shares of any two differ by more than `CUT_MARGIN` with a Newcombe 95% interval that
        excludes 0, about the two furthest apart: their names (`one` is cut more), hits, n, rate, low, high of `one`, the same
        of `other` with the suffix `_other`, and their difference with its interval. It is a warning and no test: the interval
        knows nothing of the choice among pairs.
    """
    rows: list[tuple[object, ...]] = []
    for scope, named in shares[shares["n"] > 0].groupby("scope", sort=False):
        counts = named.groupby("name", sort=False)[["hits", "n"]].sum()
        pooled = {name: proportion(int(hits), int(n)) for name, hits, n in counts.itertuples(name=None)}
        ranked = sorted(pooled, key=lambda name: -pooled[name].rate)
        gaps = [(one, other, difference(pooled[one], pooled[other])) for one, other in combinations(ranked, 2)]
        told = [gap for gap in gaps if gap[-1].value > CUT_MARGIN and gap[-1].low > 0]
        if told:
            one, other, widest = max(told, key=lambda gap: gap[-1].value)
            rows.append((scope, one, other, *pooled[one], *pooled[other], *widest))
    return pd.DataFrame(rows, columns=GAP_COLUMNS)


def warn_of_cut(gaps: pd.DataFrame, sources: pd.DataFrame | None = None, keys: Sequence[str] = ()) -> list[str]:
    """Warn in a report's opening of raw rates that cut completions bias; nothing where none is.

    Args:
        gaps: see `find_cut_gaps`.
        sources: one row a point, with condition, `keys` and the share of the source's completions that was cut (`cut_…`).
        keys: what tells points of a condition apart, such as seed.
    """
    parts = []
    if len(gaps):
        both = zip(gaps.to_dict("records"), say_rates(gaps), say_rates(gaps, "_other"), strict=True)
        told = [
            f"{as_written(row['scope'])}: {as_written(row['one'])} {one} v {as_written(row['other'])} {other}"
            for row, one, other in both
        ]
        parts.append(
            f"**What is compared is cut at the token limit to different extents**: {'; '.join(told)} (the two furthest apart). "
            "A comparison of raw rates is one of lengths too; compare the finished rates as well.\n"
        )
    much = sources[sources[f"{CUT_}rate"] > CUT_MOST] if sources is not None else gaps.iloc[:0]
    if len(much):
        told = [
            " ".join([as_written(row["condition"]), *(f"{key} {row[key]}" for key in keys), said])
            for row, said in zip(much.to_dict("records"), say_rates(much, prefix=CUT_), strict=True)
        ]
        parts.append(
            f"**Sources cut at the token limit** in more than {CUT_MOST:.0%} of their completions: {'; '.join(told)}. A cut "
            "text shows no marker at its end, so the raw rate is a lower bound.\n"
        )
    return parts
