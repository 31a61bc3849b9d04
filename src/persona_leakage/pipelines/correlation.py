"""Rank correlation with what is needed to judge it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class RankCorrelation(NamedTuple):
    """Spearman's rho over n pairs, its p value and a bootstrap 95% interval; NaN where undefined."""

    n: int
    rho: float
    p: float
    low: float
    high: float


def rank_correlation(one: Sequence[float], other: Sequence[float], *, resamples: int = 2000, seed: int = 0) -> RankCorrelation:
    """Compute Spearman's correlation of paired values with a percentile bootstrap over pairs.

    It is undefined (NaN) with fewer than three pairs or when one side does not vary. Resamples in which a side does not
    vary are left out of the interval (Efron & Tibshirani 1993, ch. 13).

    Args:
        one: first values.
        other: second values, in the same order.
        resamples: bootstrap samples.
        seed: of the bootstrap.
    """
    from scipy.stats import rankdata, spearmanr

    x, y = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if len(x) < 3 or np.isnan([x, y]).any() or np.ptp(x) == 0 or np.ptp(y) == 0:
        return RankCorrelation(len(x), math.nan, math.nan, math.nan, math.nan)
    rho, p = spearmanr(x, y)
    drawn = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    rank_x, rank_y = rankdata(x[drawn], axis=1), rankdata(y[drawn], axis=1)
    rank_x -= rank_x.mean(axis=1, keepdims=True)
    rank_y -= rank_y.mean(axis=1, keepdims=True)
    scale = np.sqrt((rank_x**2).sum(axis=1) * (rank_y**2).sum(axis=1))
    varied = scale > 0
    low, high = np.percentile((rank_x * rank_y).sum(axis=1)[varied] / scale[varied], [2.5, 97.5])
    return RankCorrelation(len(x), float(rho), float(p), float(low), float(high))
