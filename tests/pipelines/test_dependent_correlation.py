"""Correlations given controls, within labels and over clusters, against other ways to compute them."""

import math
from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from persona_leakage.pipelines.correlation import correlation

RANDOM = np.random.default_rng(7)


def residuals(side, controls):
    design = np.column_stack([np.ones(len(side)), *controls])
    return side - design @ np.linalg.lstsq(design, side, rcond=None)[0]


def test_a_partial_correlation_is_that_of_residuals_of_ranks_and_of_values():
    one, other, *controls = RANDOM.normal(size=(4, 30)) + RANDOM.normal(size=30)
    ranked = [rankdata(side) for side in (one, other, *controls)]

    result = correlation(one, other, given=controls, resamples=100)

    assert result.rho == pytest.approx(np.corrcoef(*(residuals(side, ranked[2:]) for side in ranked[:2]))[0, 1])
    assert result.r == pytest.approx(np.corrcoef(residuals(one, controls), residuals(other, controls))[0, 1])
    assert result.permutation_p == pytest.approx(result.p, abs=0.03)


def test_a_side_that_the_control_explains_has_no_partial_correlation():
    control = list(range(12))

    result = correlation(RANDOM.normal(size=12), [2 * value for value in control], given=[control])

    assert (math.isnan(result.rho), result.no_interval) == (True, "undefined")


def test_a_control_that_does_not_vary_changes_nothing():
    one, other = RANDOM.normal(size=(2, 20))

    assert correlation(one, other, given=[[1.0] * 20]).rho == pytest.approx(spearmanr(one, other).statistic)


def test_within_labels_their_means_do_not_count():
    """Both labels fall, and the second lies above the first on both sides: together the pairs rise."""
    one, other = [1, 2, 3, 11, 12, 13], [3, 2, 1, 13, 12, 11]

    assert correlation(one, other).rho > 0
    assert correlation(one, other, within=list("aaabbb")).rho == pytest.approx(-1)
    assert correlation(one, other, within=list("aaabbb")).r == pytest.approx(-1)


def test_within_labels_ranks_are_those_of_the_label():
    labels = np.repeat(["a", "b", "c"], [4, 6, 8])
    one, other = RANDOM.normal(size=(2, 18))
    sides = [
        np.concatenate(
            [(rankdata(side[labels == name]) - (sum(labels == name) + 1) / 2) / sum(labels == name) for name in "abc"]
        )
        for side in (one, other)
    ]

    assert correlation(one, other, within=labels).rho == pytest.approx(np.corrcoef(*sides)[0, 1])


def test_pairs_are_reordered_within_labels_only():
    """Two labels of three: 36 orders, counted."""
    one, other = [1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 3, 2]
    centred = np.array([-1, 0, 1, -1, 0, 1])
    orders = [np.array([*first, *second]) for first, second in product(permutations((-1, 0, 1)), permutations((-1, 1, 0)))]
    observed = centred @ np.array([-1, 0, 1, -1, 1, 0])
    exact = np.mean([abs(centred @ order) >= observed for order in orders])

    assert correlation(one, other, within=list("aaabbb"), resamples=20_000).permutation_p == pytest.approx(exact, abs=0.01)


def test_clusters_of_single_pairs_are_independent_pairs():
    one, other = RANDOM.normal(size=(2, 20))

    assert correlation(one, other, clusters=[list(range(20))]) == correlation(one, other)


def test_one_cluster_is_fewer_than_two_and_gives_no_interval_either():
    one, other = RANDOM.normal(size=(2, 20))

    found = correlation(one, other, clusters=[list(range(20)), ["x"] * 20])

    assert (found.no_interval, math.isnan(found.low), math.isnan(found.p)) == ("1 clusters", True, True)


def test_an_interval_over_clusters_is_that_of_resampling_them():
    """Every pair stands there four times: the interval is that of the pairs, not of four times as many."""
    one, other = RANDOM.normal(size=(2, 12))
    four, labels = [np.repeat(side, 4) for side in (one, other)], np.repeat(range(12), 4)

    result, plain = correlation(*four, clusters=[labels]), correlation(one, other)

    assert (result.n, result.rho) == (48, pytest.approx(plain.rho))
    assert (result.low, result.high) == pytest.approx((plain.low, plain.high))
    assert correlation(*four).high - correlation(*four).low < (result.high - result.low) / 1.5


def test_p_over_clusters_agrees_with_the_interval():
    sources, personas = np.repeat(range(6), 20), np.tile(range(20), 6)
    rejected = []
    for strength in (0, 0.2, 0.4, 0.8):
        one = RANDOM.normal(size=120)
        result = correlation(one, strength * one + RANDOM.normal(size=120), clusters=[sources, personas], resamples=400)
        rejected.append(result.p < 0.05)
        assert (result.low > 0 or result.high < 0) == (result.p < 0.05)
    assert rejected[0] is False
    assert rejected[-1] is True


@pytest.mark.parametrize(("kinds", "said"), [([4], "4 clusters"), ([5], ""), ([5, 4], "4 clusters"), ([5, 8], "")])
def test_too_few_clusters_have_neither_interval_nor_p(kinds, said):
    n = 40
    one = RANDOM.normal(size=n)

    result = correlation(one, one + RANDOM.normal(size=n), clusters=[[place % count for place in range(n)] for count in kinds])

    assert result.no_interval == said
    assert [math.isnan(value) for value in (result.low, result.p)] == [bool(said)] * 2
    assert not math.isnan(result.permutation_p)


def test_personas_of_one_source_each_are_resampled_beside_their_sources():
    """Relatives of a source are its own; resampling the sources alone would leave them fixed."""
    one, other = RANDOM.normal(size=(2, 30))
    sources = [place % 5 for place in range(30)]

    alone = correlation(one, other, clusters=[sources])
    crossed = correlation(one, other, clusters=[sources, range(30)])

    assert crossed.high - crossed.low > alone.high - alone.low


def test_chunks_of_resamples_change_nothing(monkeypatch):
    one, other = RANDOM.normal(size=(2, 40))
    whole = correlation(one, other, clusters=[[place % 8 for place in range(40)]])
    monkeypatch.setattr("persona_leakage.pipelines.correlation._CHUNK", 1000)

    assert correlation(one, other, clusters=[[place % 8 for place in range(40)]]) == pytest.approx(whole)
