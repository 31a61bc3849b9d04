"""Correlations with what is needed to judge them."""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

import numpy as np

EXACT_UP_TO = 8


class Correlation(NamedTuple):
    """Spearman's and Pearson's correlation over n pairs; NaN where undefined.

    Attributes:
        n: pairs.
        rho: Spearman's, with its p value (t approximation), bootstrap 95% interval and permutation p.
        r: Pearson's, with its p value and bootstrap 95% interval.
        tied: pairs whose first value another pair shares.
        at_zero: pairs whose first value is 0.
    """

    n: int
    rho: float
    p: float
    low: float
    high: float
    permutation_p: float
    r: float
    r_p: float
    r_low: float
    r_high: float
    tied: int
    at_zero: int


def correlation(one: Sequence[float], other: Sequence[float], *, resamples: int = 2000, seed: int = 0) -> Correlation:
    """Compute Spearman's and Pearson's correlation, with percentile bootstraps over pairs and a permutation p of Spearman's.

    Both are undefined (NaN) with fewer than three pairs or when one side does not vary. Resamples in which a side does not
    vary are left out of the intervals (Efron & Tibshirani 1993, ch. 13). The permutation p is two-sided: the share of
    reorderings whose rho is at least as far from 0, over all of them up to 8 pairs, else over `resamples` random ones and the
    observed order (Phipson & Smyth 2010).

    Args:
        one: first values, whose ties are counted.
        other: second values, in the same order.
        resamples: bootstrap samples, and random reorderings.
        seed: of both.
    """
    from scipy.stats import pearsonr, spearmanr

    x, y = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    counts = np.unique(x, return_counts=True)[1]
    tied, at_zero = int(counts[counts > 1].sum()), int((x == 0).sum())
    if len(x) < 3 or np.isnan([x, y]).any() or not np.ptp(x) or not np.ptp(y):
        nan = math.nan
        return Correlation(len(x), nan, nan, nan, nan, nan, nan, nan, nan, nan, tied, at_zero)
    times = _draw_resamples(len(x), resamples, seed)
    (rho, p), (r, r_p) = spearmanr(x, y), pearsonr(x, y)
    ranked = float(rho), float(p), *_interval(_ranks(x, times), _ranks(y, times), times), _permutation_p(x, y, resamples, seed)
    return Correlation(len(x), *ranked, float(r), float(r_p), *_interval(x, y, times), tied, at_zero)


@lru_cache(maxsize=4)  # reports correlate many tables of few sizes
def _draw_resamples(n: int, resamples: int, seed: int) -> np.ndarray:
    """Draw bootstrap samples of n pairs; count how often each pair is in each: shape (resamples, n)."""
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    return np.stack([np.bincount(one, minlength=n) for one in drawn]).astype(float)


def _ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Rank every pair's value within every resample, ties sharing their mean rank: shape (resamples, n)."""
    order = np.argsort(values, kind="stable")
    place, starts = np.unique(values, return_inverse=True)[1], np.unique(values[order], return_index=True)[1]
    tied = np.add.reduceat(times[:, order], starts, axis=1)
    return (np.cumsum(tied, axis=1) - (tied - 1) / 2)[:, place]


def _interval(x: np.ndarray, y: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """Take the middle 95% of the correlations of x and y in resamples, in which each pair stands so many times.

    Args:
        x: values by pair, shape (n,) or, where resamples differ, (resamples, n).
        y: likewise.
        times: shape (resamples, n).
    """
    n = times.shape[1]
    x, y = (side - (times * side).sum(axis=1, keepdims=True) / n for side in (x, y))
    weighted = times * x
    scale = np.sqrt((weighted * x).sum(axis=1) * (times * y * y).sum(axis=1))
    varied = scale > 1e-12
    low, high = np.percentile((weighted * y).sum(axis=1)[varied] / scale[varied], [2.5, 97.5])
    return float(low), float(high)


def _permutation_p(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> float:
    from scipy.stats import rankdata

    ranks, others = rankdata(x) - (len(x) + 1) / 2, rankdata(y) - (len(y) + 1) / 2
    exact = len(x) <= EXACT_UP_TO
    orders = np.array(list(permutations(others))) if exact else others[_draw_orders(len(x), resamples, seed)]
    reached = int((np.abs(orders @ ranks) >= abs(ranks @ others) - 1e-9).sum())
    return reached / len(orders) if exact else (reached + 1) / (len(orders) + 1)


@lru_cache(maxsize=4)
def _draw_orders(n: int, times: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permuted(np.tile(np.arange(n), (times, 1)), axis=1)
