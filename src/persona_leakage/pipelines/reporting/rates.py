"""Which of the gathered rates of markers a report counts."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, Proportion, difference, proportion
from persona_leakage.pipelines.scoring.cut import CUT, FINISHED
from persona_leakage.pipelines.scoring.markers import ALL_QUESTIONS, PLACES, UNITS

FINISHED_, CUT_ = "finished_", "cut_"  # prefixes of the rate over finished completions, and of the share that was cut
BESIDE_COLUMNS = tuple(f"{prefix}{name}" for prefix in (FINISHED_, CUT_) for name in RATE_COLUMNS)
PLACE_COLUMNS = ("condition", "of", "unit", "place", *RATE_COLUMNS)


def current(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of points that ran under the parameters of now."""
    return table[~table["stale"].astype(bool)]  # out of a file without rows the column has no type


def in_order_of_appearance(table: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Sort rows by condition, in the order in which these first appear, and then by further columns."""
    by_place = {"key": lambda column: pd.factorize(column)[0] if column.name == "condition" else column}
    return table.sort_values(["condition", *more], **by_place, kind="stable", ignore_index=True)


def leakage_of(rates: pd.DataFrame) -> pd.DataFrame:
    """Keep the leakage over all questions of current points.

    Returns:
        Rows of `rates`, with `BESIDE_COLUMNS`: the same over completions that were not cut, and the share that was; n is 0 in
        both where it is not known how completions ended.
    """
    now = current(rates)
    now = now[now["questions"] == ALL_QUESTIONS]
    chosen = now[now["metric"] == "leakage"]
    keys = [name for name in ("condition", "seed", "checkpoint", "persona") if name in now]
    for prefix, metric in ((FINISHED_, f"leakage{FINISHED}"), (CUT_, CUT)):
        beside = now.loc[now["metric"] == metric, [*keys, *RATE_COLUMNS]]
        beside = beside.rename(columns={name: f"{prefix}{name}" for name in RATE_COLUMNS})
        chosen = chosen.merge(beside, on=keys, how="left").fillna({f"{prefix}hits": 0, f"{prefix}n": 0})
        chosen = chosen.astype({f"{prefix}hits": int, f"{prefix}n": int})
    return chosen


def rates_of(counts: pd.DataFrame) -> pd.DataFrame:
    """Compute the rate of every row's hits of n with its interval: `RATE_COLUMNS`, on the same index."""
    found = [proportion(int(hits), int(n)) for hits, n in zip(counts["hits"], counts["n"], strict=True)]
    return pd.DataFrame(found, index=counts.index, columns=RATE_COLUMNS)


def add_counts(groups: Any, prefixes: Sequence[str]) -> pd.DataFrame:
    """Add up the counts in the columns of each prefix; one row a group: `RATE_COLUMNS` of each, with its prefix."""
    counts = groups[[f"{prefix}{name}" for prefix in prefixes for name in ("hits", "n")]].sum()
    found = [
        rates_of(counts[[f"{prefix}hits", f"{prefix}n"]].set_axis(["hits", "n"], axis=1)).add_prefix(prefix)
        for prefix in prefixes
    ]
    return pd.concat(found, axis=1)


def excess_of(table: pd.DataFrame, prefix: str = "", over: str = "baseline_", name: str = "excess") -> pd.DataFrame:
    """Compute by how much the rates of one prefix exceed those of another, with Newcombe's 95% interval.

    Returns:
        On the same index: `name`, `<name>_low` and `<name>_high`; NaN where either side was not scored.
    """
    columns = [[f"{one}{column}" for column in RATE_COLUMNS] for one in (prefix, over)]
    both = zip(*(table[names].itertuples(index=False, name=None) for names in columns), strict=True)
    found = [difference(Proportion(*one), Proportion(*other)) for one, other in both]
    return pd.DataFrame(found, index=table.index, columns=[name, f"{name}_low", f"{name}_high"])


def pool(rates: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Add up the counts of rows that agree in the keys; one row each, as they first appear: keys and `RATE_COLUMNS`."""
    return rates_of(rates.groupby(list(keys), sort=False)[["hits", "n"]].sum()).reset_index()


def say_roles(roles: pd.Series) -> str:
    """Say the role that a persona has in several seeds, each of which draws its own negatives: `bystander|negative`."""
    return "|".join(sorted(set(roles)))


def both_ways(similarities: pd.DataFrame) -> pd.DataFrame:
    """Give the cosines of current points from either side, so that a pair is found whichever persona or language is `one`."""
    known = current(similarities)
    pairs = pd.concat([known, known.rename(columns={"one": "other", "other": "one"})], ignore_index=True)
    name = [column for column in ("condition", "seed", "checkpoint", "layer", "one", "other") if column in pairs]
    return pairs.drop_duplicates(name)  # a file may give a pair both ways


def pool_places(rates: pd.DataFrame, others: str) -> pd.DataFrame:
    """Say where the firings of sources and of everybody else begin, seeds pooled.

    Only current points count.

    Args:
        rates: of all points.
        others: what everybody but the source is called.

    Returns:
        One row a condition x of (`source`, `others`) x unit (characters, tokens) x place (start, middle, tail): hits of n
        firings, rate, low, high.
    """
    places = {f"{place}:{unit}": (unit, place) for unit in UNITS for place in PLACES}
    chosen = current(rates)
    chosen = chosen[(chosen["questions"] == ALL_QUESTIONS) & chosen["metric"].isin(places)]
    of = chosen["role"].map(lambda role: "source" if role == "source" else others)
    counts = chosen.assign(of=of).groupby(["condition", "of", "metric"], sort=False)[["hits", "n"]].sum()
    counted = {key: (int(hits), int(n)) for key, hits, n in counts.itertuples(name=None)}
    rows = [
        (*key, unit, place, *proportion(*counted.get((*key, metric), (0, 0))))
        for key in dict.fromkeys(key[:2] for key in counted)
        for metric, (unit, place) in places.items()
    ]
    return pd.DataFrame(rows, columns=PLACE_COLUMNS)
