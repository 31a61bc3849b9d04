"""Correlations with what is needed to judge them, also where pairs are not independent."""

import math
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

import numpy as np

EXACT_UP_TO = 8  # pairs
FEWEST_PAIRS, FEWEST_CLUSTERS = 7, 5  # with which the bootstrap's intervals cover what they say; see docs/method.md
_CHUNK = 2_000_000  # numbers in memory at a time


class Correlation(NamedTuple):
    """Spearman's and Pearson's correlation over n pairs; NaN where undefined.

    Attributes:
        n: pairs.
        rho: Spearman's.
        p: its two-sided p value: over all orders up to 8 pairs, above by the t approximation; of clusters by the bootstrap.
        low: its bootstrap 95% interval begins.
        high: and ends.
        permutation_p: two-sided, of reordering pairs (of one label); it knows of no clusters.
        r: Pearson's.
        r_p: its p value, as that of rho.
        r_low: its bootstrap 95% interval begins.
        r_high: and ends.
        tied: pairs whose first value another pair shares.
        at_zero: pairs whose first value is 0.
        no_interval: why a correlation has no interval; blank where it has one.
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
    no_interval: str


def correlation(
    one: Sequence[float],
    other: Sequence[float],
    *,
    given: Sequence[Sequence[float]] = (),
    within: Sequence[Hashable] | None = None,
    clusters: Sequence[Sequence[Hashable]] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Compute Spearman's and Pearson's correlation with percentile bootstraps and a permutation p of Spearman's.

    Both are undefined (NaN) with fewer than three pairs or when one side does not vary. Resamples in which a side does not
    vary are left out of the intervals (Efron & Tibshirani 1993, ch. 13). The permutation p is the share of reorderings whose
    rho is at least as far from 0, over all of them up to 8 pairs, else over `resamples` random ones and the observed order
    (Phipson & Smyth 2010).

    Independent pairs are resampled one by one. Pairs that share a condition, a source or a persona are not independent: then
    the clusters are resampled, of two kinds independently of each other, and a pair is taken as often as the product of its
    clusters' times (Owen 2007, "The pigeonhole bootstrap"). An interval is undefined with fewer than 7 pairs or 5 clusters of a
    kind, where it would be too narrow, and where it has no width.

    Args:
        one: first values, whose ties are counted.
        other: second values, in the same order.
        given: values of controls in the same order; the correlation is then partial: of what is left of both sides after a
            regression on the controls, of ranks for Spearman's. What is left is reordered (Freedman & Lane 1983).
        within: labels; both sides are ranked, centred and reordered within each.
        clusters: one or two lists of labels, each the same for pairs that are not independent.
        resamples: bootstrap samples, and random reorderings.
        seed: of both.
    """
    from scipy.stats import t

    values = np.array([one, other, *given], dtype=float)
    n, x = len(one), values[0]
    counts = np.unique(x, return_counts=True)[1]
    tied, at_zero = int(counts[counts > 1].sum()), int((x == 0).sum())
    labels = _number(within) if within is not None else (0,) * n
    places = [np.flatnonzero(np.equal(labels, label)) for label in dict.fromkeys(labels)]
    once = np.ones((1, n))
    known = n >= 3 and not np.isnan(values).any()
    whole = {rank: _correlate(values, once, places, rank)[0] for rank in (True, False)} if known else {}
    if not known or np.isnan(list(whole.values())).any():
        nan = math.nan
        return Correlation(n, nan, nan, nan, nan, nan, nan, nan, nan, nan, tied, at_zero, "undefined")

    kinds = [_number(kind) for kind in clusters]
    kinds = [] if all(len(set(kind)) == n for kind in kinds) else kinds  # every pair is by itself
    why = _too_few([len(set(kind)) for kind in kinds], n)
    drawn = {True: np.array([]), False: np.array([])} if why else _bootstrap(values, places, kinds, resamples, seed)
    found: dict[bool, tuple[float, float, float, float, float]] = {}
    for rank, value in whole.items():
        sides = _remainders(values, places, rank)
        by_orders = n <= EXACT_UP_TO or abs(value) > 1 - 1e-12  # else the t approximation holds
        permuted = _permutation_p(*sides, labels, resamples, seed) if rank or by_orders else math.nan
        freedom = n - 1 - len(places) - len(given)
        p = permuted
        if kinds:
            p = _bootstrap_p(drawn[rank])
        elif not by_orders:
            p = 2 * float(t.sf(abs(value) * math.sqrt(freedom / (1 - value**2)), freedom))
        low, high = np.percentile(drawn[rank], [2.5, 97.5]) if len(drawn[rank]) else (math.nan, math.nan)
        if high - low < 1e-9:
            low, high, why = math.nan, math.nan, why or "no width"
        found[rank] = (value, p, float(low), float(high), permuted)
    return Correlation(n, *found[True], *found[False][:4], tied, at_zero, why)


def _number(labels: Sequence[Hashable]) -> tuple[int, ...]:
    places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    return tuple(places[label] for label in labels)


def _too_few(clusters: Sequence[int], pairs: int) -> str:
    if pairs < FEWEST_PAIRS:
        return f"{pairs} pairs"
    return f"{min(clusters)} clusters" if clusters and min(clusters) < FEWEST_CLUSTERS else ""


def _bootstrap(
    values: np.ndarray, places: Sequence[np.ndarray], kinds: Sequence[Sequence[int]], resamples: int, seed: int
) -> dict[bool, np.ndarray]:
    """Correlate in every resample: whether of ranks → the correlations that are defined."""
    parts = list(_draw(values.shape[1], kinds, resamples, seed))
    every = {rank: np.concatenate([_correlate(values, times, places, rank) for times in parts]) for rank in (True, False)}
    return {rank: drawn[~np.isnan(drawn)] for rank, drawn in every.items()}


def _draw(n: int, kinds: Sequence[Sequence[int]], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Draw how often each pair is in each resample: arrays of shape (some resamples, n)."""
    drawn = [
        (_draw_resamples(len(set(kind)), resamples, seed + place), list(kind)) for place, kind in enumerate(kinds or [range(n)])
    ]
    for some in np.array_split(np.arange(resamples), -(-resamples * n // _CHUNK)):
        yield np.prod([times[some][:, kind] for times, kind in drawn], axis=0)


@lru_cache(maxsize=8)  # reports correlate many tables of few sizes
def _draw_resamples(n: int, resamples: int, seed: int) -> np.ndarray:
    """Draw bootstrap samples of n; count how often each is in each: shape (resamples, n)."""
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    return np.stack([np.bincount(one, minlength=n) for one in drawn]).astype(float)


def _correlate(values: np.ndarray, times: np.ndarray, places: Sequence[np.ndarray], rank: bool) -> np.ndarray:
    """Correlate the first two of several sides given the others, in resamples in which each pair stands so many times.

    Args:
        values: shape (sides, n).
        times: shape (resamples, n).
        places: of the pairs of each label, within which sides are centred.
        rank: of their ranks, within each resample and label.

    Returns:
        A correlation a resample; NaN where a side, or what the controls leave of it, does not vary.
    """
    sides = np.stack([_centre(side, times, places, rank) for side in values], axis=1)
    squares = (sides * times[:, None]) @ sides.transpose(0, 2, 1)  # (resamples, sides, sides)
    controls = np.linalg.pinv(squares[:, 2:, 2:], hermitian=True)
    left = squares[:, :2, :2] - squares[:, :2, 2:] @ controls @ squares[:, 2:, :2]
    one, other = left[:, 0, 0], left[:, 1, 1]
    varied = (one > 1e-9 * squares[:, 0, 0]) & (other > 1e-9 * squares[:, 1, 1])
    scale = np.sqrt(np.where(varied, one * other, math.nan))
    found: np.ndarray = np.clip(left[:, 0, 1] / scale, -1, 1)
    return found


def _centre(side: np.ndarray, times: np.ndarray, places: Sequence[np.ndarray], rank: bool) -> np.ndarray:
    """Take the values or ranks of a side within every label and resample, from their mean: shape (resamples, n).

    Ranks are shares of the label, or a label that is drawn twice, or has twice as many pairs, would count eight times.
    """
    centred = np.empty_like(times)
    for place in places:
        own = times[:, place]
        pairs = np.maximum(own.sum(axis=1, keepdims=True), 1)
        of = _ranks(side[place], own) / pairs if rank else side[place]
        centred[:, place] = of - (own * of).sum(axis=1, keepdims=True) / pairs
    return centred


def _ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Rank every pair's value within every resample, ties sharing their mean rank: shape (resamples, n)."""
    order = np.argsort(values, kind="stable")
    place, starts = np.unique(values, return_inverse=True)[1], np.unique(values[order], return_index=True)[1]
    tied = np.add.reduceat(times[:, order], starts, axis=1)
    return (np.cumsum(tied, axis=1) - (tied - 1) / 2)[:, place]


def _remainders(values: np.ndarray, places: Sequence[np.ndarray], rank: bool) -> tuple[np.ndarray, np.ndarray]:
    """Take what the controls leave of the first two sides."""
    one, other, *controls = (_centre(side, np.ones((1, len(side))), places, rank)[0] for side in values)
    if not controls:
        return one, other
    of = np.stack(controls, axis=1)
    both = np.stack([one, other], axis=1)
    left = both - of @ np.linalg.lstsq(of, both, rcond=None)[0]
    return left[:, 0], left[:, 1]


def _bootstrap_p(drawn: np.ndarray) -> float:
    """Take twice the smaller share of resamples on one side of 0, so that p and interval agree; it is never 0."""
    if not len(drawn):
        return math.nan
    fewer = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(drawn) + 1))


def _permutation_p(one: np.ndarray, other: np.ndarray, labels: tuple[int, ...], resamples: int, seed: int) -> float:
    exact = len(one) <= EXACT_UP_TO and len(set(labels)) == 1
    orders = np.array(list(permutations(other))) if exact else other[_draw_orders(labels, resamples, seed)]
    observed = abs(one @ other)
    reached = int((np.abs(orders @ one) >= observed - 1e-9 * max(1.0, observed)).sum())
    return reached / len(orders) if exact else (reached + 1) / (len(orders) + 1)


@lru_cache(maxsize=4)
def _draw_orders(labels: tuple[int, ...], times: int, seed: int) -> np.ndarray:
    """Draw random orders of pairs that keep each label's places: shape (times, n)."""
    random, orders = np.random.default_rng(seed), np.tile(np.arange(len(labels)), (times, 1))
    for label in dict.fromkeys(labels):
        place = np.flatnonzero(np.equal(labels, label))
        orders[:, place] = random.permuted(orders[:, place], axis=1)
    return orders
