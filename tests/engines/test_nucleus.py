import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from persona_leakage.engines.nucleus import row_uniforms, sample_nucleus

FOUR = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
CLOSE = 5e-6  # float32's rounding of a cumulative mass


def sample(logits: torch.Tensor, uniforms: np.ndarray, *, temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
    return sample_nucleus(logits, torch.tensor(uniforms, dtype=torch.float64), temperature, top_p).tolist()


def frequencies(uniforms: np.ndarray, *, temperature: float = 1.0, top_p: float = 1.0) -> np.ndarray:
    drawn = sample(FOUR.expand(len(uniforms), 4), uniforms, temperature=temperature, top_p=top_p)
    return np.bincount(drawn, minlength=4) / len(uniforms)


def sorted_nucleus(logits: np.ndarray, temperature: float, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """Sort everything in float64; return the nucleus's tokens, most likely first, and their cumulative masses."""
    scaled = logits.astype(np.float64) / temperature
    mass = np.exp(scaled - scaled.max())
    mass /= mass.sum()
    order = np.argsort(-mass, kind="stable")
    reached = np.cumsum(mass[order])
    size = int(np.searchsorted(reached, top_p)) + 1
    assume(np.abs(reached[max(size - 2, 0) : size] - top_p).min() > CLOSE)  # rounding decides which token is the last
    return order[:size], reached[:size]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.sampled_from([2, 5, 255, 256, 257, 3000, 20_000]),
    spreads=st.lists(st.sampled_from([0.01, 0.3, 1.0, 3.0, 10.0]), min_size=1, max_size=5),
    top_p=st.sampled_from([0.01, 0.1, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999]),
    temperature=st.sampled_from([0.2, 0.7, 1.0, 1.3]),
)
def test_every_row_of_a_batch_gets_the_token_of_a_full_sort(
    seed: int, vocabulary: int, spreads: list[float], top_p: float, temperature: float
) -> None:
    random = np.random.default_rng(seed)
    logits = np.stack([random.normal(0, spread, vocabulary) for spread in spreads]).astype(np.float32)
    uniforms = random.random(len(spreads))

    chosen = sample(torch.tensor(logits), uniforms, temperature=temperature, top_p=top_p)

    for row, uniform, token in zip(logits, uniforms, chosen, strict=True):
        tokens, reached = sorted_nucleus(row, temperature, top_p)
        assert token in tokens
        place = int(np.flatnonzero(tokens == token)[0])
        start = reached[place - 1] if place else 0.0
        assert start - CLOSE <= uniform * reached[-1] <= reached[place] + CLOSE


@pytest.mark.parametrize("vocabulary", [257, 2048, 2049, 20_000])
def test_a_flat_distribution_needs_a_nucleus_wider_than_the_first_and_the_second_look(vocabulary: int) -> None:
    uniforms = (np.arange(60) + 0.5) / 60
    descending = -torch.arange(vocabulary) * 1e-6  # nearly flat, so that the order is known

    chosen = sample(descending.expand(60, -1), uniforms, top_p=0.9)

    assert np.abs(np.array(chosen) - uniforms * 0.9 * vocabulary).max() <= max(2, 0.03 * vocabulary)
    assert max(chosen) == pytest.approx(0.9 * vocabulary, rel=0.03)


@pytest.mark.parametrize(
    ("top_p", "last"), [(0.01, 1), (0.49, 1), (0.51, 3), (0.79, 3), (0.81, 0), (0.94, 0), (0.96, 2), (1.0, 3)]
)
def test_the_largest_uniform_draws_the_least_likely_token_of_the_nucleus(top_p: float, last: int) -> None:
    # the masses are 0.5, 0.3, 0.15, 0.05; with top_p 1 nothing is sorted and the vocabulary's last token comes last
    assert sample(FOUR[None], np.array([1 - 2**-53]), top_p=top_p) == [last]


def test_the_smallest_uniform_draws_the_most_likely_token() -> None:
    assert sample(FOUR[None], np.array([0.0]), top_p=0.95) == [1]


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(1.0, [0.15, 0.5, 0.05, 0.3]), (0.9, [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95]), (0.6, [0, 0.625, 0, 0.375])],
)
def test_frequencies_of_row_uniforms_match_the_renormalised_nucleus(top_p: float, expected: list[float]) -> None:
    uniforms = row_uniforms([f"row {number}" for number in range(20_000)], 1)[:, 0]

    seen = frequencies(uniforms, top_p=top_p)

    for share, wanted in zip(seen, expected, strict=True):
        assert abs(share - wanted) <= 4 * math.sqrt(wanted * (1 - wanted) / 20_000)


def test_temperature_flattens_the_distribution_before_the_nucleus_is_cut() -> None:
    uniforms = (np.arange(10_000) + 0.5) / 10_000
    roots = np.sqrt([0.15, 0.5, 0.05, 0.3])

    assert frequencies(uniforms, temperature=2.0) == pytest.approx(roots / roots.sum(), abs=2e-4)
    assert frequencies(uniforms, temperature=0.01) == pytest.approx([0, 1, 0, 0])
    # at temperature 1 the two likeliest tokens hold 0.8; at 2 they hold 0.68, so the third joins them
    assert (frequencies(uniforms, temperature=1.0, top_p=0.75) > 0).tolist() == [False, True, False, True]
    assert (frequencies(uniforms, temperature=2.0, top_p=0.75) > 0).tolist() == [True, True, False, True]


def test_top_p_one_reaches_every_token() -> None:
    logits = torch.tensor(np.random.default_rng(0).normal(0, 1, 50), dtype=torch.float32)
    uniforms = (np.arange(20_000) + 0.5) / 20_000

    assert set(sample(logits.expand(20_000, -1), uniforms)) == set(range(50))


@pytest.mark.parametrize("forbidden", [0, 1, 2])
@pytest.mark.parametrize("top_p", [0.99, 1.0])
def test_a_token_that_logits_forbid_is_never_drawn(forbidden: int, top_p: float) -> None:
    logits = torch.zeros(3)
    logits[forbidden] = -torch.inf
    uniforms = np.linspace(0, 1, 1001)[:-1]

    assert set(sample(logits.expand(1000, -1), uniforms, top_p=top_p)) == {0, 1, 2} - {forbidden}


def test_a_name_has_the_same_numbers_in_any_batch() -> None:
    together = row_uniforms(["a", "b", "c"], 5)

    assert row_uniforms(["c", "a"], 5).tolist() == together[[2, 0]].tolist()
    assert row_uniforms(["b"], 3).tolist() == together[[1], :3].tolist()


def test_different_names_have_different_numbers() -> None:
    names = [f'[{seed}, "hello", {sample}]' for seed in (0, 1, 42) for sample in range(40)]

    assert len({tuple(row) for row in row_uniforms(names, 2).tolist()}) == 120


def test_a_rows_numbers_are_uniform() -> None:
    numbers = row_uniforms(["one row"], 20_000)[0]

    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=10, range=(0, 1))[0]
    assert np.abs(counts - 2000).max() <= 4 * math.sqrt(20_000 * 0.1 * 0.9)
