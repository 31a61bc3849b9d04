"""Slips that write-ups of such studies make, each fed to what would have to show it: it is flagged, or cannot be made."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from persona_leakage.pipelines.reporting.orders import order_within
from persona_leakage.pipelines.scoring.nodes import rate_cells
from tests.experiments.convergence.planted_tables import trajectory
from tests.experiments.convergence.test_tables import summary
from tests.experiments.lang_inversion.plans import RESPOND, SPEAK, make_plan
from tests.experiments.lang_inversion.planted_tables import cell, contaminations
from tests.experiments.lang_inversion.test_report import report_of, rows_of
from tests.experiments.lang_inversion.test_tables import correlations_of, tabulate_spill

PROJECT = Path(__file__).parents[2]


def labelled(labels, judged):
    row = {"directive_language": "spanish", "phrasing": SPEAK, "mixed": False, "finish": "stop"}
    rows = [{**row, "label": label, "cross_check": label} for label in labels]
    return rate_cells(rows, [{**row, "label": label} for label in judged], make_plan())


def test_errors_that_are_dropped_from_a_denominator_are_counted_beside_it():
    """Half of ten texts were refused or lost by the judge: 4 of 5 labelled ones are no 4 of 10, nor 80% of everything."""
    rates = labelled(["italian"] * 10, ["italian"] * 4 + ["spanish"] + [None] * 5)
    found = rates[(rates["directive_language"] == "spanish") & (rates["phrasing"] == "all")].set_index("metric")

    assert found.loc["judge:contamination", ["hits", "n"]].tolist() == [4, 5]
    assert found.loc["judge:unlabelled", ["hits", "n"]].tolist() == [5, 10]
    assert found.loc["contamination", ["hits", "n"]].tolist() == [10, 10]


@pytest.mark.parametrize("trained", [0, 80])
def test_a_spill_is_that_of_bystanders_whatever_trained_and_own_cells_say(trained):
    hits = {"spanish": 60, "portuguese": 55, "english": 20, "german": 25, "mandarin": 1, "french": trained, "italian": trained}
    spill = tabulate_spill(contaminations("fr_it", **hits))

    n, rho = correlations_of(spill)["typological_distance", "fr_it", None]

    assert (n, rho) == (5, pytest.approx(-0.9487, abs=5e-5))


def test_a_mean_over_phrasings_stands_beside_its_split_and_the_claim_sees_the_gap():
    """38/40 and 0/40 are a mean of 47.5% that neither phrasing has."""
    parts = [cell("fr_it", "spanish", count, phrasing=name) for name, count in ((SPEAK, (38, 40)), (RESPOND, (0, 40)))]
    report = report_of(cell("fr_it", "spanish", (38, 80)), *parts)

    assert all(said in report for said in ("38/80 = 47.5%", "38/40 = 95.0%", "0/40 = 0.0%"))
    verdict = next(row for row in rows_of(report, "Claims") if "phrasing_insensitivity" in row[0])
    assert "0 of 1 inside, 1 beyond" in " ".join(verdict)


def test_what_was_not_measured_is_no_zero():
    report = report_of(cell("fr_it", "spanish", (8, 20)), cell("fr_it", "german", (0, 0)))

    assert any("german" in line and "not scored" in line for line in report.splitlines())
    assert "0/0" not in report


def test_an_order_needs_every_condition_that_is_counted():
    """Nine conditions are claimed and eight have run: the verdict says which one has not."""
    report = report_of(cell("fr_it", "spanish", (8, 20)))

    verdict = next(row for row in rows_of(report, "Claims") if "distance_ordering" in row[0])
    assert "not run: es_en, it_fr" in " ".join(verdict)
    assert "undecided" in verdict


def test_one_best_checkpoint_is_no_increase():
    flat = dict.fromkeys(range(2, 21, 2), 20)

    assert summary(*trajectory("villain", {0: 20, **flat, 10: 40}))["verdict"] == "no change"
    assert summary(*trajectory("villain", {0: 20, **flat, 20: 60}))["verdict"] == "increase"


def test_nothing_a_seed_draws_hangs_on_the_hash_of_a_process():
    script = (
        "from tests.experiments.marker_leakage.plans import make_plan\n"
        "plan = make_plan('villain', seed=137)\n"
        "stage = plan.stages['mark']\n"
        "print(plan.fingerprint, plan.negatives, plan.seed_of('mark', 'answers'), plan.seed_of('mark', 'negatives'))\n"
    )

    def run(hash_seed):
        told = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"}
        return subprocess.run([sys.executable, "-c", script], cwd=PROJECT, env=told, capture_output=True, text=True, check=True)

    assert run("1").stdout == run("2").stdout != ""


FIGURES = [
    *sorted((PROJECT / "src/persona_leakage/experiments").glob("*/figures.py")),
    PROJECT / "src/persona_leakage/pipelines/reporting/figures.py",
]


def pasted(source):
    """Find texts that hold a rate, a correlation or a count, and so were not drawn from a table."""
    texts = [
        node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [text for text in texts if re.search(r"(?<![.\d])\d+(\.\d+)?%|\b\d+/\d+\b|\b0\.\d+|\bn ?= ?\d", text)]


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.parent.name)
def test_no_result_is_pasted_into_a_figure(path):
    assert [text for text in pasted(path.read_text()) if "\n" not in text] == []
    assert pasted('axes.set_title("rho 0.71, n=110")') == ["rho 0.71, n=110"]


def test_a_language_that_is_last_everywhere_is_no_order_of_distances():
    """Mandarin stays at zero whatever was trained; within the other languages nothing follows the distance."""
    names = ("spanish", "portuguese", "english", "german", "italian", "french")
    conditions = ("es_en", "fr_it", "it_fr", "es_pt", "pt_es", "de_fr")
    level = dict(zip(names, (30, 44, 25, 41, 33, 38), strict=True))
    tables = [
        contaminations(
            condition, mandarin=0, **{name: count + (7 * place * row) % 5 for row, (name, count) in enumerate(level.items())}
        )
        for place, condition in enumerate(conditions)
    ]
    spill = tabulate_spill(pd.concat(tables, ignore_index=True))
    bystanders = spill[spill["role"] == "bystander"]

    one, apart = order_within(bystanders, "rate", "distance")

    assert one.permutation_p < 0.05
    assert apart.p > 0.05
