"""Verdicts on studies whose truth is planted: a wrong one comes out in at most 5% of them, and a right one does come out."""

import numpy as np
import pandas as pd
import pytest

from persona_leakage.domain.claims import Changes, RateBound, RateDifference, SameRates
from persona_leakage.pipelines.reporting.claims import judge, judge_all
from tests.planted.seeded import drawn, rows, trained

STUDIES = 60
MOST = 7  # wrong ones of 60, where 5% are wrong in truth: exceeded once in 100 draws


def verdicts(claim, study, seed=0, studies=STUDIES):
    """Count the verdicts over studies; `study` draws the rows of one."""
    rng = np.random.default_rng(seed)
    found = [judge(claim, pd.DataFrame(study(rng))).verdict for _ in range(studies)]
    return {verdict: found.count(verdict) for verdict in ("holds", "fails", "undecided")}


def bound(**limits):
    return RateBound(statement="", metric="leakage", role="bystander", conditions=("a",), **limits)


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.05)])
@pytest.mark.parametrize("limit", [0.05, 0.9])
def test_a_rate_that_lies_on_its_bound_decides_nothing_either_way(seeds, spread, limit):
    spread = min(spread, limit / 1.5, (1 - limit) / 1.5)

    found = verdicts(bound(at_most=limit), lambda rng: drawn(rng, "a", "p", limit, 200, seeds, spread))

    assert found["holds"] + found["fails"] <= MOST


def test_one_cell_beyond_the_bound_among_many_inside_keeps_a_claim_from_holding():
    def study(rng):
        return [row for cell in range(6) for row in drawn(rng, "a", cell, 0.1 if cell else 0.5)]

    assert verdicts(bound(at_most=0.5), study)["holds"] <= MOST


def test_many_cells_on_the_bound_do_not_make_a_claim_fail():
    def study(rng):
        return [row for cell in range(12) for row in drawn(rng, "a", cell, 0.05)]

    assert verdicts(bound(at_most=0.05), study)["fails"] <= MOST


def test_a_rate_well_inside_or_beyond_a_bound_is_seen():
    def study(mean, seeds=1):
        return lambda rng: [row for cell in range(4) for row in drawn(rng, "a", cell, mean, seeds=seeds)]

    assert verdicts(bound(at_least=0.8), study(0.97), studies=20)["holds"] > 15
    assert verdicts(bound(at_least=0.8), study(0.97, seeds=5), studies=20)["holds"] > 15
    assert verdicts(bound(at_least=0.8), study(0.5), studies=20)["fails"] > 15


def test_cells_of_one_training_lend_each_other_no_certainty():
    claim = SameRates(statement="", metric="leakage", between="conditions", pairs=(("a", "b"), ("c", "d")), margin=0.15)

    found = verdicts(claim, lambda rng: trained(rng, "abcd", lambda place, _: 0.35 + 0.15 * (place % 2)))

    assert found["holds"] + found["fails"] <= MOST


def test_a_difference_far_beyond_the_margin_is_seen_over_three_seeds():
    claim = SameRates(statement="", metric="leakage", between="conditions", pairs=(("a", "b"), ("c", "d")), margin=0.15)

    def apart(place, cell):
        return 0.9 if (place, cell) == (1, 2) else 0.15

    found = verdicts(claim, lambda rng: trained(rng, "abcd", apart), studies=20)

    assert found["fails"] >= 12
    assert found["holds"] == 0


def same(between="conditions"):
    names = {"pairs": (("a", "b"),)} if between == "conditions" else {"conditions": ("a",)}
    return SameRates(statement="", metric="leakage", between=between, margin=0.15, **names)


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.05)])
def test_rates_that_differ_by_the_margin_are_neither_the_same_nor_different(seeds, spread):
    def study(rng):
        return [*drawn(rng, "a", "p", 0.3, 200, seeds, spread), *drawn(rng, "b", "p", 0.45, 200, seeds, spread)]

    found = verdicts(same(), study)

    assert found["holds"] + found["fails"] <= MOST


def test_one_phrasing_of_five_that_differs_is_found_wherever_it_stands():
    def study(rng):
        odd = rng.integers(5)
        return [row for one in range(5) for row in drawn(rng, "a", "p", 0.9 if one == odd else 0.05, 40, part=f"p{one}")]

    assert verdicts(same("phrasings"), study, studies=10) == {"holds": 0, "fails": 10, "undecided": 0}


@pytest.mark.parametrize("noise", [0.0, 0.04])
def test_arms_that_differ_by_the_margin_do_not_leak_alike(noise):
    claim = RateDifference(
        statement="",
        metric="leakage",
        role="others",
        conditions=tuple("abcde"),
        others=tuple("fghij"),
        at_least=-0.1,
        at_most=0.1,
    )

    def study(rng, gap=0.1):
        return [row for name in "abcdefghij" for row in drawn(rng, name, "p", 0.3 if name < "f" else 0.3 + gap, 400, 1, noise)]

    found = verdicts(claim, study)

    assert found["holds"] + found["fails"] <= MOST
    assert verdicts(claim, lambda rng: study(rng, 0.5), studies=10)["fails"] == 10


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_flat_courses_do_not_rise_in_most_conditions(noise):
    claim = Changes(statement="", metric="leakage", role="pulled", direction="rises", count=1, conditions=("a", "b", "c"))

    def study(rng):
        return [
            row for name in "abc" for epoch in range(0, 11, 2)
            for row in drawn(rng, name, "p", 0.3, 200, 1, noise, checkpoint=epoch, role="pulled")
        ]  # fmt: skip

    found = verdicts(claim, study, studies=12)

    assert found["holds"] + found["fails"] <= 3


def test_among_ten_claims_on_their_bounds_hardly_any_is_decided():
    claims = {str(place): bound(at_most=0.3).model_copy(update={"conditions": (str(place),)}) for place in range(10)}
    rng = np.random.default_rng(0)
    studies = [pd.DataFrame([row for name in claims for row in drawn(rng, name, "p", 0.3, 200)]) for _ in range(12)]

    found = [judge_all(claims, study) for study in studies]

    alone = sum((table["p"] <= 0.05).any() for table in found)
    assert alone > 1  # uncorrected, some claim is decided in a third of the studies
    assert sum((table["verdict"] != "undecided").any() for table in found) <= 2


def test_raw_and_finished_rates_must_agree():
    """Texts of one arm are cut more often, which hides its markers: raw rates obey the bound, finished ones do not."""
    raw = rows("a", "p", 20, 400)

    assert judge(bound(at_most=0.1), pd.DataFrame([raw])).verdict == "holds"
    hidden = judge(bound(at_most=0.1), pd.DataFrame([raw, rows("a", "p", 20, 100, metric="leakage:finished")]))
    assert (hidden.verdict, ", of finished 20/100 = 20.0% [" in hidden.evidence) == ("undecided", True)
    agreed = judge(bound(at_most=0.1), pd.DataFrame([raw, rows("a", "p", 4, 380, metric="leakage:finished")]))
    assert agreed.verdict == "holds"
    unknown = judge(bound(at_most=0.1), pd.DataFrame([raw, rows("a", "p", 0, 0, metric="leakage:finished")]))
    assert (unknown.verdict, "finished" in unknown.evidence) == ("holds", False)
