"""How often verdicts are wrong on planted truths: `python benchmarks/claims.py`.

One rate over seeds by two methods, pairs of conditions whose cells share a training's luck, and flat courses of checkpoints.
"""

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom, t

from persona_leakage.domain.claims import SameRates
from persona_leakage.domain.rates import difference, proportion
from persona_leakage.pipelines.bounds import (
    LEVEL,
    Runs,
    at_least,
    difference_tails,
    rate_tails,
    spread_between,
    spread_of,
    trend_p,
)
from persona_leakage.pipelines.reporting.claims import judge
from persona_leakage.run_record import describe_code

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.planted.seeded import trained  # noqa: E402

STUDIES, PAIRS, COURSES = 1000, 200, 280
RATES = [(0.02, (0.0, 0.01, 0.02)), (0.05, (0.0, 0.03)), (0.5, (0.0, 0.08, 0.2)), (0.9, (0.0, 0.08))]


def main() -> None:
    """Write `benchmarks/results/claims.json`."""
    rng = np.random.default_rng(0)
    rates = [
        rate_errors(rng, bound, spread, seeds, n)
        for bound, spreads in RATES
        for spread, seeds, n in product(spreads, (2, 3, 5), (280,))
    ]
    cases = product((1, 7), (0.03, 0.3), (0.0, 0.03), (1, 3))
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    found = {
        "code": code,
        "studies": STUDIES,
        "rates_on_a_bound": rates,
        "pairs": PAIRS,
        "pairs_that_differ": [pair_errors(rng, *case) for case in product((0.15, 0.5), (0.0, 0.08), (1, 3))],
        "courses": COURSES,
        "flat_courses": [flat_errors(rng, *case) for case in cases],
    }
    (PROJECT / "benchmarks/results/claims.json").write_text(json.dumps(found, indent=1) + "\n")


def rate_errors(rng: np.random.Generator, bound: float, spread: float, seeds: int, n: int) -> dict[str, Any]:
    """Count studies whose rate lies on the bound in truth and is said to lie below or above; seeds are beta variates."""
    size = bound * (1 - bound) / spread**2 - 1 if spread else 0
    true = rng.beta(bound * size, (1 - bound) * size, (STUDIES, seeds)) if spread else np.full((STUDIES, seeds), bound)
    hits = rng.binomial(n, true)
    ours = [_tails(Runs(tuple(map(int, study)), (n,) * seeds), bound) for study in hits]
    means = [_t_tails(study, n, bound) for study in hits]
    errors = {
        f"{method}_{side}": float(np.mean([2 * tails[place] <= LEVEL for tails in found]))
        for method, found in (("quasi", ours), ("t", means))
        for place, side in enumerate(("below", "above"))
    }
    return {"bound": bound, "spread": spread, "seeds": seeds, "n": n, **errors}


def _tails(runs: Runs, bound: float) -> Sequence[float]:
    return rate_tails(runs, bound, spread_between(runs))


def _t_tails(hits: np.ndarray, n: int, bound: float) -> tuple[float, float]:
    """Test the mean over seeds by Student's t, where they differ, and the pooled counts exactly; the larger p counts."""
    pooled, rates, seeds = int(hits.sum()), hits / n, len(hits)
    exact = float(binom.cdf(pooled, n * seeds, bound)), float(binom.sf(pooled - 1, n * seeds, bound))
    if not np.ptp(rates):
        return exact
    statistic = (rates.mean() - bound) / (rates.std(ddof=1) / seeds**0.5)
    return max(exact[0], float(t.cdf(statistic, seeds - 1))), max(exact[1], float(t.sf(statistic, seeds - 1)))


def pair_errors(rng: np.random.Generator, gap: float, spread: float, seeds: int) -> dict[str, Any]:
    """Count the verdicts on "a pair differs by at most 15 points", where five cells of two pairs differ by `gap`."""
    claim = SameRates(statement="", metric="leakage", between="conditions", pairs=(("a", "b"), ("c", "d")), margin=0.15)
    drawn = [trained(rng, "abcd", lambda place, _: 0.25 + gap * (place % 2), spread, seeds) for _ in range(PAIRS)]
    found = [judge(claim, pd.DataFrame(study)).verdict for study in drawn]
    shares = {verdict: found.count(verdict) / PAIRS for verdict in ("holds", "fails")}
    return {"gap": gap, "spread": spread, "seeds": seeds, **shares}


def flat_errors(rng: np.random.Generator, sources: int, rate: float, noise: float, seeds: int) -> dict[str, Any]:
    """Count courses of 11 checkpoints at one true rate, n 200 a seed, that are said to change; noise is between trainings."""
    found = [one for _ in range(COURSES // sources) for one in _flat_courses(rng, sources, rate, noise, seeds)]
    shares = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    return {"sources": sources, "rate": rate, "noise": noise, "seeds": seeds, **shares}


def _flat_courses(rng: np.random.Generator, sources: int, rate: float, noise: float, seeds: int) -> list[dict[str, bool]]:
    n, epochs = 200, range(0, 21, 2)
    true = np.clip(rng.normal(rate, noise, (sources, len(epochs), seeds)), 0, 1)
    courses = [[Runs(tuple(map(int, step)), (n,) * seeds) for step in course] for course in rng.binomial(n, true)]
    spread = spread_of(courses)
    return [_verdicts(course, epochs, spread) for course in courses]


def _verdicts(course: Sequence[Runs], epochs: Sequence[int], spread: Any) -> dict[str, bool]:
    start, *later = course
    before, *after = (proportion(*step.pooled) for step in course)
    ends, highest = difference(after[-1], before), difference(max(after, key=lambda one: one.rate), before)
    changed = ends.low > 0 or ends.high < 0
    peak = at_least([difference_tails(step, start, 0, spread).above for step in later], 1) <= LEVEL
    pooled = Runs(*map(tuple, zip(*(step.pooled for step in course), strict=True)))
    trend = trend_p(pooled, epochs, spread) <= LEVEL
    return {
        "changed": changed,
        "transient": peak and not changed,
        "transient_by_newcombe": highest.low > 0 and not changed,
        "trend": trend,
    }


if __name__ == "__main__":
    main()
