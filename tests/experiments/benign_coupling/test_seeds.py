"""What several seeds of a cell say together."""

import math

import pandas as pd
import pytest

from persona_leakage.experiments.benign_coupling.tables import tabulate_cell_seeds, tabulate_cells, tabulate_replicates
from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from tests.experiments.benign_coupling.plans import load_settings
from tests.experiments.benign_coupling.planted_tables import cell, rates
from tests.tables import stored


def test_trigger_and_bystanders_are_kept_apart_by_seed():
    planted = rates(*cell("c", 98, {"a": 10, "b": 30}), *cell("c", 94, {"a": 20, "b": 60}, seed=7))
    found = summarise_seeds(stored(tabulate_cell_seeds(tabulate_cells(planted)))).set_index("quantity")

    assert found.loc["trigger", ["seeds", "mean", "hits", "n"]].tolist() == pytest.approx([2, 0.96, 192, 200])
    assert found.loc["mean of bystanders", ["mean", "lowest", "highest"]].tolist() == pytest.approx([0.3, 0.2, 0.4])


def test_three_seeds_of_one_design_do_not_weigh_as_three_designs():
    columns = ["condition", "seed", "arm", "design", "mean_bystander", "mean_finished"]
    points = [("em_a", seed, "wrong_advice", "y", 0.4, 0.5) for seed in (1, 2, 3)]
    points.append(("em_b", 1, "wrong_advice", "z", 0.6, 0.8))

    whole = tabulate_replicates(pd.DataFrame(points, columns=columns), load_settings()).set_index("design").loc["all"]

    half = 12.706204736 * math.sqrt(0.02) / math.sqrt(2)  # t with one degree of freedom: two designs
    assert (whole["points"], whole["seeds"], whole["mean"]) == (4, 3, pytest.approx(0.5))
    assert whole["low"] == pytest.approx(max(0, 0.5 - half))
    assert whole[["finished_mean", "finished_low", "finished_high"]].tolist() == pytest.approx([0.65, 0, 1])
