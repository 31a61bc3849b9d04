"""What `kedro preflight` foretells of means over seeds, against studies whose seeds differ by a planted amount."""

import numpy as np
import pandas as pd
import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.pipelines.reporting.seeds import mean_over
from persona_leakage.preflight.estimate import Span
from persona_leakage.preflight.power import Together, half_width, list_needs, measure_spread, seeds_needed
from tests.plans import make_plan


def studies(rate: float, correlation: float, completions: int, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Draw the seeds' rates of studies: true rates of a beta distribution, and hits of a binomial one."""
    rng = np.random.default_rng(seed)
    size = 1 / correlation - 1 if correlation else None
    true = np.full(shape, rate) if size is None else rng.beta(rate * size, (1 - rate) * size, shape)
    return rng.binomial(completions, true) / completions


def table(rates: np.ndarray, completions: int) -> pd.DataFrame:
    """Write rates (cells, seeds) as reports write them."""
    rows = [
        (f"c{cell}", "leakage", seed, round(value * completions), completions, value)
        for cell, values in enumerate(rates)
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["condition", "quantity", "seed", "hits", "n", "value"])


def mean_half_width(rate: float, correlation: float, completions: int, seeds: int) -> float:
    """Average over studies the half-width that a report has; 0 where all seeds agree."""
    found = (mean_over(pd.Series(rates), -9.0) for rates in studies(rate, correlation, completions, (800, seeds)))
    return float(np.mean([0.0 if np.isnan(one.low) else one.mean - one.low for one in found]))  # nothing cuts off below


@pytest.mark.parametrize(
    ("rate", "correlation", "completions", "seeds"),
    [(0.5, 0.0, 200, 3), (0.5, 0.016, 80, 3), (0.5, 0.1, 200, 8), (0.2, 0.016, 400, 5), (0.3, 0.05, 40, 10)],
)
def test_the_half_width_that_is_foretold_is_met_on_average(
    rate: float, correlation: float, completions: int, seeds: int
) -> None:
    foretold = float(half_width(rate, correlation, completions, seeds))
    assert mean_half_width(rate, correlation, completions, seeds) == pytest.approx(foretold, rel=0.04)


@pytest.mark.parametrize("wish", [0.05, 0.1])
def test_the_seeds_needed_reach_the_wish_and_one_fewer_does_not(wish: float) -> None:
    seeds = seeds_needed(wish, 0.5, 0.016, 80)
    assert mean_half_width(0.5, 0.016, 80, seeds) < wish < mean_half_width(0.5, 0.016, 80, seeds - 1)


@pytest.mark.parametrize("correlation", [0.0, 0.016, 0.1, 0.4])
@pytest.mark.parametrize("completions", [40, 400])
def test_how_far_seeds_differ_is_recovered_from_their_rates(correlation: float, completions: int) -> None:
    found = [
        measure_spread(table(studies(0.5, correlation, completions, (60, 4), seed), completions), 0.9).correlation
        for seed in range(10)
    ]
    assert np.mean(found) == pytest.approx(correlation, abs=0.003 + 0.05 * correlation)


def test_few_seeds_and_quantities_without_counts_leave_the_default() -> None:
    few = measure_spread(table(studies(0.5, 0.1, 80, (14, 3)), 80), 0.02)
    means = table(studies(0.5, 0.1, 80, (60, 3)), 80).assign(n=float("nan"))
    extreme = table(studies(0.01, 0.1, 80, (60, 3)), 80)
    for found in (few, measure_spread(means, 0.02), measure_spread(extreme, 0.02), measure_spread(pd.DataFrame(), 0.02)):
        assert found == (0.02, 0, 0)
    assert measure_spread(table(studies(0.5, 0.1, 80, (15, 3)), 80), 0.02)[1:] == (15, 45)


def test_a_half_width_out_of_reach_is_refused() -> None:
    with pytest.raises(UserError, match=r"--half-width 0\.001 takes more than 50000 seeds; wish for a wider one"):
        seeds_needed(0.001, 0.5, 0.5, 10)


def test_needs_are_of_the_cells_of_a_plan_and_every_further_seed_costs_what_the_second_costs() -> None:
    plans = [make_plan("marker_leakage", name, seed) for name in ("baseline", "villain") for seed in (42, 137)]
    asked = []

    def costed(of: list) -> Together:  # type: ignore[type-arg]
        asked.append([(one.address.condition, one.seed, one.evaluation.samples) for one in of])
        return Together(Span(10 + 5 * len(of), 20 + 5 * len(of)), Span(len(of), len(of)))

    spread = measure_spread(pd.DataFrame(), 0.016)
    needs = list_needs(plans, spread, 0.05, costed)
    assert [(one.prompts, one.samples) for one in needs] == [(20, 5), (20, 10), (20, 20), (20, 40)]
    assert asked[1] == [("baseline", 42, 5), ("villain", 42, 5), ("baseline", 0, 5), ("villain", 0, 5)]
    for one in needs:
        assert one.seeds == tuple(seeds_needed(0.05, rate, 0.016, 20 * one.samples) for rate in (0.5, 0.2, 0.05))
        assert one.points == 2 * one.seeds[0]
        assert one.takes == Together(Span(10 + 5 * one.points, 20 + 5 * one.points), Span(one.points, one.points))
    assert [one.seeds[0] for one in needs] == sorted((one.seeds[0] for one in needs), reverse=True)
