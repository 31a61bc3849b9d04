"""How many seeds and completions a mean over seeds needs, foretold from how far seeds differ."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.plan import Plan
from persona_leakage.pipelines.reporting.seeds import VALUE_COLUMNS
from persona_leakage.preflight.estimate import Span, add_spans

RATES = (0.5, 0.2, 0.05)  # 80% and 95% need as many seeds as 20% and 5%
_FACTORS = (0.5, 1, 2, 4)  # of the samples that the settings ask for
_MOST_SEEDS = 50_000
_MIDDLE = (0.1, 0.9)  # a rate nearer to 0 or 1 hardly tells how far seeds differ
_LEAST_SEEDS = 30  # more seeds than cells by fewer than this tell less than the default does


class Spread(NamedTuple):
    """How far seeds differ.

    Attributes:
        correlation: share of the variance of a single completion's outcome that lies between seeds: with a true rate of p, the
            seeds' own rates vary by correlation x p x (1 - p).
        cells: of earlier points that it was measured in; 0 for the default.
        seeds: of these cells, added up.
    """

    correlation: float
    cells: int = 0
    seeds: int = 0


class Together(NamedTuple):
    """Seconds, one point after the other, and US dollars; None where nothing is paid."""

    seconds: Span
    dollars: Span | None


class Need(NamedTuple):
    """One way to a wished half-width.

    Attributes:
        prompts: of a cell, a persona or a directive language.
        samples: of each prompt.
        seeds: for each of `RATES`.
        points: of the grid with the first number of seeds.
        takes: what they take, if nothing had run.
    """

    prompts: int
    samples: int
    seeds: tuple[int, ...]
    points: int
    takes: Together


class Precision(NamedTuple):
    """A wished half-width, how far seeds differ, and the ways to it."""

    wish: float
    spread: Spread
    needs: list[Need]


def measure_spread(by_seed: pd.DataFrame, default: float) -> Spread:
    """Measure how far the seeds of earlier points differ, beyond what sampling makes them differ.

    In each cell with several seeds and a mean rate of 10 to 90%, the variance of the seeds' rates less the mean of their
    sampling variances p(1 - p)/(n - 1) estimates the variance between seeds, and the mean of n p(1 - p)/(n - 1) that within
    them; both are added up over cells (the moment estimator of an intraclass correlation; Ridout et al. 1999, Biometrics 55).

    Args:
        by_seed: see `reporting.seeds.keep_seeds`; quantities without n, and parts of a cell, are left out.
        default: taken where there are fewer than 30 seeds more than cells.
    """
    if "n" not in by_seed:
        return Spread(default)
    once = ~by_seed["quantity"].str.contains(",")  # not the same completions again, finished or cut
    if "phrasing" in by_seed:
        once &= by_seed["phrasing"] == "all"
    known = by_seed[once & (by_seed["n"] > 1)].astype({"n": float, "value": float})
    keys = [name for name in known if name not in VALUE_COLUMNS or name == "quantity"]
    within = known["value"] * (1 - known["value"]) / (known["n"] - 1)
    cells = (
        known.assign(noise=within, within=within * known["n"])
        .groupby(keys, dropna=False)
        .agg(seeds=("value", "size"), mean=("value", "mean"), variance=("value", "var"), noise=("noise", "mean"),
             within=("within", "mean"))
    )  # fmt: skip
    cells = cells[(cells["seeds"] > 1) & cells["mean"].between(*_MIDDLE)]
    seeds = int(cells["seeds"].sum())
    if seeds - len(cells) < _LEAST_SEEDS:
        return Spread(default)
    ratio = max(0.0, float((cells["variance"] - cells["noise"]).sum() / cells["within"].sum()))
    return Spread(ratio / (1 + ratio), len(cells), seeds)


def half_width(rate: float, correlation: float, completions: int, seeds: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Foretell the half-width, on average, of Student's t 95% interval of a mean over seeds.

    A seed's rate has the variance p(1 - p) (r + (1 - r)/n), r being the correlation: what lies between seeds and, over n
    completions, within them. The standard deviation of k seeds is on average c4(k) of the true one.

    Args:
        rate: p.
        correlation: see `Spread`.
        completions: n, of the cell in each seed.
        seeds: k, or several; at least 2.
    """
    from scipy.special import gammaln
    from scipy.stats import t

    count = np.asarray(seeds, dtype=float)
    deviation = math.sqrt(rate * (1 - rate) * (correlation + (1 - correlation) / completions))
    c4 = np.sqrt(2 / (count - 1)) * np.exp(gammaln(count / 2) - gammaln((count - 1) / 2))
    found: npt.NDArray[np.float64] = t.ppf(0.975, count - 1) * c4 * deviation / np.sqrt(count)
    return found


def seeds_needed(wish: float, rate: float, correlation: float, completions: int) -> int:
    """Return the fewest seeds whose interval is on average no wider than wished.

    Raises:
        UserError: no number of seeds that anyone could run is enough.
    """
    seeds = np.arange(2, _MOST_SEEDS)
    enough = half_width(rate, correlation, completions, seeds) <= wish
    if not enough.any():
        raise UserError(f"--half-width {wish} takes more than {_MOST_SEEDS} seeds; wish for a wider one")
    return int(seeds[enough.argmax()])


def list_needs(plans: Sequence[Plan], spread: Spread, wish: float, costed: Callable[[Sequence[Plan]], Together]) -> list[Need]:
    """List ways to a half-width: with half the samples of the settings, with as many, with twice and four times as many.

    Args:
        plans: of a grid of one family.
        spread: how far its seeds differ.
        wish: half-width.
        costed: what points take that share nothing with others; every seed after the first takes what the second takes.
    """
    asked, settled = plans[0].evaluation.prompts, plans[0].evaluation.samples
    prompts = min(Counter(row[asked.group_key] for row in asked.prompts()).values())  # type: ignore[literal-required]
    needs = []
    for samples in sorted({max(1, round(factor * settled)) for factor in _FACTORS}):
        seeds = tuple(seeds_needed(wish, rate, spread.correlation, prompts * samples) for rate in RATES)
        first = [_changed(plan, samples) for plan in plans if plan.seed == plans[0].seed]
        second = [_reseeded(plan, 1 if plan.seed == 0 else 0) for plan in first]
        one, two = costed(first), costed([*first, *second])
        takes = Together(
            _onwards(one.seconds, two.seconds, seeds[0]),
            one.dollars and two.dollars and _onwards(one.dollars, two.dollars, seeds[0]),
        )
        needs.append(Need(prompts, samples, seeds, seeds[0] * len(first), takes))
    return needs


def _changed(plan: Plan, samples: int) -> Plan:
    return plan.model_copy(update={"evaluation": plan.evaluation.model_copy(update={"samples": samples})})


def _reseeded(plan: Plan, seed: int) -> Plan:
    return plan.model_copy(update={"address": plan.address.model_copy(update={"seed": seed})})


def _onwards(one: Span, two: Span, seeds: int) -> Span:
    return add_spans([one, two.times(seeds - 1), one.times(1 - seeds)])
