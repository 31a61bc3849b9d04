"""What several seeds of a condition say together. Seeds are the unit of replication: each is a training run of its own."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.pipelines.reporting.page import number, say_rates, table

VALUE_COLUMNS = ("quantity", "seed", "hits", "n", "value")
SUMMARY_COLUMNS = ("seeds", "mean", "mean_low", "mean_high", "lowest", "highest", *RATE_COLUMNS)
RHO, CHANGE = "rho", "change"  # quantities whose names begin so may be negative
_SHOWN_SEEDS = 10  # a table of more columns is not read


def keep_seeds(
    measured: pd.DataFrame, keys: Sequence[str], rates: Mapping[str, str], values: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Write quantities of a table one below the other, seeds apart.

    Args:
        measured: one row a seed x keys.
        keys: columns that name what is measured, the condition first.
        rates: quantity → prefix of its columns hits, n and rate.
        values: quantity → its column; a mean or a correlation, which has no hits and n.

    Returns:
        One row a quantity x row: the keys and `VALUE_COLUMNS`; value is NaN where nothing was scored.
    """
    columns = {name: {f"{prefix}hits": "hits", f"{prefix}n": "n", f"{prefix}rate": "value"} for name, prefix in rates.items()}
    columns |= {name: {column: "value"} for name, column in (values or {}).items()}
    parts = [
        measured[[*keys, "seed", *names]].rename(columns=names).assign(quantity=quantity) for quantity, names in columns.items()
    ]
    # a table with a pooled row reads its seeds as text, others as numbers
    whole = pd.concat(parts, ignore_index=True).reindex(columns=[*keys, *VALUE_COLUMNS])
    return whole.astype({"seed": str, "hits": "Int64", "n": "Int64"})


class Mean(NamedTuple):
    """The mean of independent values with Student's t 95% interval; its bounds are NaN where it is undefined."""

    values: int
    mean: float
    low: float
    high: float
    lowest: float
    highest: float


def mean_over(values: pd.Series, least: float = 0.0) -> Mean:
    """Take the mean of independent values that lie between `least` and 1; NaN is no value.

    With one value the interval is undefined. It is undefined too where all values are the very same: it would have no width,
    and a few equal runs, often all at 0, are no proof of certainty.
    """
    from scipy.stats import t

    known = values.dropna().to_numpy(dtype=float)
    count = len(known)
    if not count:
        return Mean(0, *[math.nan] * 5)
    lowest, highest = float(known.min()), float(known.max())
    mean = min(max(float(known.mean()), lowest), highest)  # rounding, where values agree
    if lowest == highest:
        return Mean(count, mean, math.nan, math.nan, lowest, highest)
    half = float(t.ppf(0.975, count - 1)) * float(known.std(ddof=1)) / math.sqrt(count)
    return Mean(count, mean, max(least, mean - half), min(1.0, mean + half), lowest, highest)


def summarise_seeds(by_seed: pd.DataFrame) -> pd.DataFrame:
    """Take the mean over seeds with its interval, beside the pooled counts with theirs.

    Seeds are the sample and weigh equally, so the interval of the mean holds whatever differs between them, training and
    sampling. The Wilson interval of the pooled counts treats all completions as one sample: it knows sampling, and nothing of
    how far training runs differ.

    Args:
        by_seed: see `keep_seeds`.

    Returns:
        One row a quantity and its keys: seeds (with a value), mean of their values, mean_low and mean_high (see `mean_over`),
        lowest, highest, and of the pooled counts hits, n, rate, low, high (Wilson 95%; n is 0 for a quantity that is no rate).
    """
    keys = [*(name for name in by_seed if name not in VALUE_COLUMNS), "quantity"]
    rows = []
    for key, group in by_seed.groupby(keys, sort=False, dropna=False):
        counted = group[group["n"].notna()]
        pooled = proportion(int(counted["hits"].sum()), int(counted["n"].sum()))
        least = -1.0 if str(key[-1]).startswith((RHO, CHANGE)) else 0.0
        rows.append((*key, *mean_over(group["value"], least), *pooled))
    return pd.DataFrame(rows, columns=[*keys, *SUMMARY_COLUMNS])


def several_seeds(over_seeds: pd.DataFrame) -> bool:
    """Tell whether any condition has more than one seed."""
    return bool((over_seeds["seeds"] > 1).any())


def say_means(over_seeds: pd.DataFrame) -> list[str]:
    """Say every mean over seeds as `mean [low, high]`; blank without a seed, `one seed` and `no spread` without an interval."""
    said = []
    for row in over_seeds.itertuples():
        mean, low, high = (_say(row.quantity, value) for value in (row.mean, row.mean_low, row.mean_high))
        spread = "(one seed)" if row.seeds == 1 else "(no spread)" if pd.isna(row.mean_low) else f"[{low}, {high}]"
        said.append(f"{mean} {spread}" if row.seeds else "")
    return said


def means_of(over_seeds: pd.DataFrame, quantity: str, keys: pd.DataFrame) -> list[str]:
    """Say the mean over seeds of a quantity for every row of `keys`, whose columns are among those of `over_seeds`."""
    names = list(keys)
    chosen = over_seeds[over_seeds["quantity"] == quantity]
    said = dict(zip(chosen[names].itertuples(index=False, name=None), say_means(chosen), strict=True))
    return [said.get(key, "") for key in keys.itertuples(index=False, name=None)]


def write_seeds(over_seeds: pd.DataFrame, by_seed: pd.DataFrame) -> list[str]:
    """Write the section of a report that has the seeds apart; nothing where every condition has one."""
    if not several_seeds(over_seeds):
        return []
    keys = [name for name in by_seed if name not in VALUE_COLUMNS] + ["quantity"]
    shown = over_seeds[[*keys, "seeds"]].assign(**{"mean over seeds": say_means(over_seeds)})
    shown["range"] = [
        f"{_say(row.quantity, row.lowest)} to {_say(row.quantity, row.highest)}" if row.seeds > 1 else ""
        for row in over_seeds.itertuples()
    ]
    shown["seeds pooled"] = ["" if said == "not scored" else said for said in say_rates(over_seeds)]
    seeds = list(dict.fromkeys(by_seed["seed"]))
    if len(seeds) > _SHOWN_SEEDS:
        said = f"{len(seeds)} seeds; each alone stands in `by_seed.csv`, with its counts.\n"
    else:
        said = "Each seed alone; `by_seed.csv` has its counts too.\n"
        apart = by_seed.pivot(index=keys, columns="seed", values="value").reindex(pd.MultiIndex.from_frame(over_seeds[keys]))
        for seed in seeds:
            shown[f"seed {seed}"] = [_say(*one) for one in zip(over_seeds["quantity"], apart[seed], strict=True)]
    return ["## Seeds\n", said, table(shown.rename(columns=lambda name: name.replace("_", " ")))]


def _say(quantity: str, value: float) -> str:
    if quantity.startswith(RHO):
        return number(value, ".2f")
    return number(value, "+.1%" if quantity.startswith(CHANGE) else ".1%")
