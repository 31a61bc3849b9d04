"""Studies of two arms whose true rates are known: the intervals of difference and ratio hold them."""

import numpy as np
import pandas as pd
import pytest

from persona_leakage.experiments.benign_coupling.arms import compare_arms
from persona_leakage.experiments.benign_coupling.tables import CELL_COLUMNS

STUDIES = 200
COMPLETIONS = 3080


def study(rng, truths, spread, points):
    """Draw points of two arms: each has a rate of its own about the arm's, and completions about that."""
    rows = [
        {
            "condition": f"{arm}_{place}",
            "arm": arm,
            "design": arm,
            "mean_bystander": rng.binomial(COMPLETIONS, own) / COMPLETIONS,
        }
        for arm, truth in truths.items()
        for place, own in enumerate(rng.beta(truth / spread, (1 - truth) / spread, size=points))
    ]
    return pd.DataFrame(rows).reindex(columns=list(CELL_COLUMNS))


@pytest.mark.parametrize(
    ("one", "other", "spread", "points"), [(0.11, 0.5, 0.01, 3), (0.1, 0.1, 0.01, 5), (0.3, 0.02, 0.002, 5)]
)
def test_intervals_of_difference_and_ratio_hold_the_truth_in_92_to_99_percent_of_studies(one, other, spread, points):
    rng = np.random.default_rng(0)
    found = pd.concat([compare_arms(study(rng, {"a": one, "b": other}, spread, points)) for _ in range(STUDIES)])

    for name, truth in (("difference", one - other), ("ratio", one / other)):
        held = (found[f"{name}_low"] <= truth) & (truth <= found[f"{name}_high"])
        assert 0.92 <= held.mean() <= 0.99, name
    if one == other:  # arms that leak alike are rarely told apart
        assert (found["p"] <= 0.05).mean() <= 0.07
