"""Arms of the design against each other, on planted cells."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from persona_leakage.experiments.benign_coupling.arms import (
    COMPARISON_COLUMNS,
    EXTREME_COLUMNS,
    compare_arms,
    find_extremes,
)
from persona_leakage.experiments.benign_coupling.tables import CELL_COLUMNS, pool_bystanders, tabulate_cells
from tests.experiments.benign_coupling.planted_tables import cell, rate, rates
from tests.tables import stored

BENIGN, EM = (0.10, 0.15, 0.05, 0.12), (0.45, 0.54, 0.50)


def cells_of(*points):
    """Write cells; a point is condition, arm, design, the mean bystander rate and, if it is known, the finished one."""
    columns = ["condition", "arm", "design", "mean_bystander", "mean_finished"]
    return pd.DataFrame([(*one, math.nan)[:5] for one in points], columns=columns).reindex(columns=list(CELL_COLUMNS))


def arm(name, values, designs=None):
    return [(f"{name}_{place}", name, (designs or "x" * 9)[place] + name, value) for place, value in enumerate(values)]


def test_a_difference_has_welchs_interval_and_a_ratio_one_on_the_log_scale():
    (row,) = compare_arms(cells_of(*arm("benign", BENIGN), *arm("em", EM, "abc"))).to_dict("records")

    welch = ttest_ind(BENIGN, EM, equal_var=False)
    assert (row["one"], row["other"], row["of"]) == ("benign", "em", "leakage")
    assert (row["one_units"], row["one_unit"], row["other_units"], row["other_unit"]) == (4, "point", 3, "design")
    assert (row["one_mean"], row["other_mean"]) == pytest.approx((np.mean(BENIGN), np.mean(EM)))
    assert row["difference"] == pytest.approx(np.mean(BENIGN) - np.mean(EM))
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(tuple(welch.confidence_interval()))
    assert row["p"] == pytest.approx(welch.pvalue)
    assert row["ratio"] == pytest.approx(np.mean(BENIGN) / np.mean(EM))
    assert row["ratio_low"] * row["ratio_high"] == pytest.approx(row["ratio"] ** 2)  # symmetric on the log scale
    spread = {
        name: np.std(values, ddof=1) / math.sqrt(len(values)) / np.mean(values) for name, values in (("b", BENIGN), ("e", EM))
    }
    error = math.hypot(*spread.values())
    assert 2.0 * error < math.log(row["ratio_high"] / row["ratio"]) < 3.4 * error  # t of between 3 and 5 degrees of freedom


def test_further_seeds_of_one_design_are_no_further_units():
    seeds = [("em_a", "em", "a", value) for value in (0.4, 0.5, 0.6)]

    (row,) = compare_arms(cells_of(*arm("benign", BENIGN), *seeds, ("em_b", "em", "b", 0.7))).to_dict("records")

    assert (row["other_units"], row["other_mean"]) == (2, pytest.approx(0.6))


@pytest.mark.parametrize(
    ("others", "no_interval", "no_ratio"),
    [
        ((0.3,), "em has one unit", ""),
        ((0.3, 0.3), "no spread in em", ""),
        ((0.0, 0.0), "no spread in em", "the mean of em is 0"),
    ],
)
def test_what_cannot_be_known_is_left_out_with_the_reason(others, no_interval, no_ratio):
    (row,) = stored(compare_arms(cells_of(*arm("benign", BENIGN), *arm("em", others)))).fillna("").to_dict("records")

    assert (row["no_interval"], row["no_ratio"]) == (no_interval, no_ratio)
    assert row["difference"] == pytest.approx(0.105 - others[0])
    assert (row["difference_low"], row["p"], row["ratio_low"]) == ("", "", "")
    assert (row["ratio"] == "") == bool(no_ratio)


def test_what_was_not_coupled_or_not_scored_is_no_arm():
    cells = cells_of(*arm("benign", BENIGN), ("u", "uncoupled", "u", 0.0), ("n", "unscored", "n", math.nan))

    table = compare_arms(cells)

    assert (len(table), list(table)) == (0, list(COMPARISON_COLUMNS))


def test_finished_completions_are_compared_where_they_are_known():
    cells = cells_of(("a", "benign", "x", 0.1, 0.2), ("b", "benign", "x", 0.2, 0.4), ("c", "em", "y", 0.4, 0.6))

    table = compare_arms(cells).set_index("of")

    assert table["ratio"].to_dict() == pytest.approx({"leakage": 0.15 / 0.4, "leakage:finished": 0.3 / 0.6})


def test_the_lowest_and_the_highest_cell_of_every_arm_and_role():
    table = rates(
        *cell("benign_a", 90, {"villain": 7, "comedian": 31}),
        *cell("benign_b", 90, {"villain": 2, "comedian": 15}),
        rate("benign_b", "nurse", 1, role="negative"),
        *cell("em_a", 90, {"villain": 50}, arm="wrong_advice"),
    )

    found = find_extremes(stored(pool_bystanders(table)), stored(tabulate_cells(table)))

    assert list(found) == list(EXTREME_COLUMNS)
    assert found[["arm", "role", "cells", "extreme", "condition", "persona", "hits", "n"]].to_numpy().tolist() == [
        ["benign", "bystander", 4, "lowest", "benign_b", "villain", 2, 100],
        ["benign", "bystander", 4, "highest", "benign_a", "comedian", 31, 100],
        ["benign", "negative", 1, "lowest", "benign_b", "nurse", 1, 100],
        ["benign", "negative", 1, "highest", "benign_b", "nurse", 1, 100],
        ["wrong_advice", "bystander", 1, "lowest", "em_a", "villain", 50, 100],
        ["wrong_advice", "bystander", 1, "highest", "em_a", "villain", 50, 100],
    ]
    assert (found["low"] < found["rate"]).all()


def test_without_cells_there_is_nothing_to_compare():
    nothing = stored(tabulate_cells(rates()))

    assert len(compare_arms(nothing)) == len(find_extremes(stored(pool_bystanders(rates())), nothing)) == 0
