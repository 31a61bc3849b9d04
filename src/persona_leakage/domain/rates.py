"""Proportions that always carry their denominator and interval."""

import math
from typing import NamedTuple

RATE_COLUMNS = ("hits", "n", "rate", "low", "high")


class Proportion(NamedTuple):
    """`hits` of `n`, with the Wilson 95% interval; rate and bounds are NaN when nothing was scored."""

    hits: int
    n: int
    rate: float
    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two proportions with its Newcombe 95% interval."""

    value: float
    low: float
    high: float


def proportion(hits: int, n: int) -> Proportion:
    """Compute a proportion with its Wilson score interval (Wilson 1927) at 95%.

    Args:
        hits: number of scored rows that fired.
        n: number of scored rows; unscored ones do not belong here.

    Raises:
        ValueError: `hits` is negative or larger than `n`.
    """
    from statsmodels.stats.proportion import proportion_confint  # slow to import, and only tables need it

    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n} rows")
    if n == 0:
        return Proportion(0, 0, math.nan, math.nan, math.nan)
    low, high = proportion_confint(hits, n, method="wilson")
    # rounding can push a bound past the estimate, or out of [0, 1], at 0 and n hits
    return Proportion(hits, n, hits / n, min(max(0.0, low), hits / n), max(min(1.0, high), hits / n))


def difference(one: Proportion, other: Proportion) -> Difference:
    """Compute `one - other` with Newcombe's interval (1998, method 10: from the two Wilson intervals).

    Everything is NaN when either side has no scored row.
    """
    value = one.rate - other.rate
    low = value - math.hypot(one.rate - one.low, other.high - other.rate)
    high = value + math.hypot(one.high - one.rate, other.rate - other.low)
    return Difference(value, low, high)
