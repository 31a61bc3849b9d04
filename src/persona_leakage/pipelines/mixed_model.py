"""A logistic mixed model of counts: fixed effects, and any number of crossed or nested random ones.

docs/method.md says why it is our own, and how often its intervals hold.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit

_PRIOR = 0.5  # power of a standard deviation that its prior is proportional to
_ROUNDS, _STEPS, _SETTLED = 300, 30, 5e-4  # a standard deviation that changes by less has settled


class Random(NamedTuple):
    """Effects drawn from one normal distribution around 0.

    Attributes:
        columns: what each of them adds to the log-odds of each row, shape (rows, effects).
        held: their standard deviation, where it is not to be estimated.
    """

    columns: sparse.csr_array
    held: float | None = None


class Fit(NamedTuple):
    """Estimates on the scale of log-odds.

    Attributes:
        fixed: effect of every fixed column.
        error: its standard error; training runs, questions and whatever else is random is in it.
        df: degrees of freedom of Student's t that belong to it (Satterthwaite).
        sd: standard deviation of every random term.
        sd_error: standard error of its logarithm; 0 where it is held.
    """

    fixed: np.ndarray
    error: np.ndarray
    df: np.ndarray
    sd: np.ndarray
    sd_error: np.ndarray


def fit(hits: np.ndarray, n: np.ndarray, fixed: np.ndarray, random: Sequence[Random]) -> Fit:
    """Fit logit(rate) = fixed effects + random effects by penalised quasi-likelihood with REML (Breslow & Clayton 1993).

    Steps of Newton's method for all effects alternate with updates of the variances (Fellner 1986; Schall 1991). A variance
    that few levels tell of is often estimated as 0, and intervals are then too narrow; a prior proportional to the square
    root of the standard deviation keeps it above (Chung et al. 2013) and hardly matters where there are many levels. Degrees of
    freedom are those of Satterthwaite (1946), from how well the variances are known (Fai & Cornelius 1996).

    Args:
        hits: of every row.
        n: of every row, at least 1.
        fixed: shape (rows, columns), of full column rank; the first is 1 everywhere.
        random: the terms.

    Raises:
        ArithmeticError: nothing settled, as where a column tells hits from misses without exception.
    """
    columns = sparse.csr_array(sparse.hstack([sparse.csr_array(fixed), *(term.columns for term in random)]))
    across = sparse.csr_array(columns.T)
    ends = np.cumsum([fixed.shape[1], *(term.columns.shape[1] for term in random)])
    blocks = [slice(first, end) for first, end in pairwise(ends)]
    variances = np.array([0.25 if term.held is None else term.held**2 for term in random])
    free = np.array([term.held is None for term in random], dtype=bool)
    effects = np.zeros(ends[-1])
    effects[0] = np.log((hits.sum() + 0.5) / (n.sum() - hits.sum() + 0.5))
    for _ in range(_ROUNDS):
        precisions = np.concatenate([np.zeros(ends[0]), 1 / np.repeat(variances, np.diff(ends))])
        effects, covariance = _maximise(hits, n, columns, across, precisions, effects)
        new = variances.copy()
        for place in np.flatnonzero(free):
            own, variance = effects[blocks[place]], variances[place]
            known = len(own) - np.trace(covariance[blocks[place], blocks[place]]) / variance  # as many as the data tell apart
            new[place] = (own @ own + _PRIOR * variance) / max(known, 1e-6)
        settled = np.abs(np.sqrt(new) - np.sqrt(variances)).max(initial=0.0) < _SETTLED
        variances = new
        if settled:
            return _infer(effects, covariance, ends[0], blocks, variances, free)
    raise ArithmeticError("the variances do not settle")


def _maximise(
    hits: np.ndarray,
    n: np.ndarray,
    columns: sparse.csr_array,
    across: sparse.csr_array,
    precisions: np.ndarray,
    effects: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Maximise the penalised likelihood over all effects; return them with the inverse of its curvature."""
    from scipy.linalg import LinAlgError, cholesky
    from scipy.linalg.lapack import dpotri

    def value(of: np.ndarray) -> float:
        odds = columns @ of
        return float(hits @ odds - n @ np.logaddexp(0, odds) - precisions * of @ of / 2)

    reached = value(effects)
    for _ in range(_STEPS):
        rate = expit(columns @ effects)
        curvature = (across.multiply((n * rate * (1 - rate))[None]).tocsr() @ columns).toarray() + np.diag(precisions)
        try:
            inverse, _ = dpotri(cholesky(curvature, lower=True), lower=True)
        except LinAlgError as error:
            raise ArithmeticError("effects cannot be told apart") from error
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        step = inverse @ (across @ (hits - n * rate) - precisions * effects)
        while (found := value(effects + step)) < reached - 1e-9 and np.abs(step).max() > 1e-8:
            step = step / 2
        effects, gained, reached = effects + step, found - reached, found
        if gained < 1e-4:
            return effects, inverse
    raise ArithmeticError("effects grow without bound")


def _infer(
    effects: np.ndarray, covariance: np.ndarray, fixed: int, blocks: list[slice], variances: np.ndarray, free: np.ndarray
) -> Fit:
    """Take errors and degrees of freedom of a linear model with the weights that the fit ended with."""
    places = np.flatnonzero(free)
    known = np.zeros((len(places), len(places)))  # REML's expected information on the variances
    for i, one in enumerate(places):
        for j, other in enumerate(places):
            projected = -covariance[blocks[one], blocks[other]] / variances[one] / variances[other]
            if one == other:
                projected = projected + np.eye(len(projected)) / variances[one]
            known[i, j] = (projected**2).sum() / 2
    known += np.diag(_PRIOR / (2 * variances[places] ** 2))  # the prior's
    spread = np.linalg.inv(known)
    squared = np.diag(covariance)[:fixed]
    slopes = (
        np.stack([(covariance[:fixed, blocks[place]] ** 2).sum(axis=1) / variances[place] ** 2 for place in places], axis=1)
        if len(places)
        else np.zeros((fixed, 0))
    )  # of the squared errors, by each variance
    uncertain = np.einsum("ij,jk,ik->i", slopes, spread, slopes)
    df = np.divide(2 * squared**2, uncertain, out=np.full(fixed, np.inf), where=uncertain > 0)
    sd_error = np.zeros(len(blocks))
    sd_error[places] = np.sqrt(np.diag(spread)) / (2 * variances[places])
    return Fit(effects[:fixed], np.sqrt(squared), df, np.sqrt(variances), sd_error)
