"""What a claim names is checked before anything runs."""

import re

import pytest
from pydantic import ValidationError

from persona_leakage.domain.claims import (
    Changes,
    CosinePredicts,
    RankOrder,
    RateBound,
    RateDifference,
    SameRates,
    among,
    check_terms,
)

BOUND = RateBound(statement="s", metric="leakage", role="source", conditions=("a",), at_least=0.5)
ORDER = RankOrder(
    statement="s", metric="contamination", predictor="typological_distance", direction="falls", conditions=("a", "b")
)
SAME = SameRates(statement="s", metric="leakage", between="conditions", pairs=(("a", "b"), ("a", "c")), margin=0.1)
PREDICTS = CosinePredicts(statement="s", geometry="cosine", layer=20, conditions=("a",))


def check(claim, **known):
    check_terms({"mine": claim}, **known)


@pytest.mark.parametrize(
    ("claim", "known", "said"),
    [
        (BOUND, {"condition": among("b", "c")}, "claims.mine names the condition 'a'; known: b, c"),
        (BOUND, {"metric": among("following")}, "claims.mine names the metric 'leakage'; known: following"),
        (BOUND, {"role": among("bystander")}, "claims.mine names the role 'source'; known: bystander"),
        (ORDER, {"condition": among("a")}, "claims.mine names the condition 'b'; known: a"),
        (ORDER, {"metric": among("following")}, "claims.mine names the metric 'contamination'; known: following"),
        (SAME, {"condition": among("a", "b")}, "claims.mine names the condition 'c'; known: a, b"),
        (SAME, {"condition": among("b", "c")}, "claims.mine names the condition 'a'; known: b, c"),
        (SAME, {"metric": among("following")}, "claims.mine names the metric 'leakage'; known: following"),
        (PREDICTS, {"layer": among(10, 15)}, "claims.mine names the layer '20'; known: 10, 15"),
        (PREDICTS, {"condition": among("b")}, "claims.mine names the condition 'a'; known: b"),
    ],
)
def test_what_a_claim_names_must_be_known(claim, known, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        check(claim, **known)


@pytest.mark.parametrize("claim", [BOUND, ORDER, SAME, PREDICTS])
def test_a_claim_about_what_is_known_is_accepted(claim):
    check(
        claim,
        condition=among("a", "b", "c"),
        metric=among("leakage", "contamination"),
        role=among("source"),
        layer=among(20),
    )


def test_a_kind_that_nobody_knows_is_not_asked_for():
    check(PREDICTS, role=among())
    check(BOUND)


def test_phrasings_are_compared_within_conditions_which_must_be_known_too():
    claim = SameRates(statement="s", metric="leakage", between="phrasings", conditions=("a", "x"), margin=0.1)

    with pytest.raises(ValueError, match="names the condition 'x'; known: a"):
        check(claim, condition=among("a"))


@pytest.mark.parametrize("bounds", [{}, {"at_most": 1.5}, {"at_least": -0.1}])
def test_a_bound_needs_a_bound_that_a_rate_can_reach(bounds):
    with pytest.raises(ValidationError):
        RateBound(statement="s", metric="leakage", role="source", conditions=("a",), **bounds)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"at_most": 0.0}, "at_most 0 is shown by no number of completions.*between 0 and 1, such as 0.01"),
        ({"at_least": 1.0}, "at_least 1 is shown by no number of completions.*between 0 and 1, such as 0.99"),
        ({"at_least": 0.5, "at_most": 0.2}, "at_least lies above at_most; exchange them"),
        ({}, "a bound needs at_most or at_least"),
    ],
)
def test_a_bound_that_nothing_can_show_is_refused_with_one_that_something_can(bounds, said):
    with pytest.raises(ValidationError, match=said):
        RateBound(statement="s", metric="leakage", role="source", conditions=("a",), **bounds)


def test_a_difference_may_have_negative_bounds_and_names_both_sides():
    given = {"statement": "s", "metric": "leakage", "role": "others", "conditions": ("a",), "others": ("b",)}

    assert RateDifference(**given, at_least=-0.1, at_most=0.1).terms["condition"] == ("a", "b")
    with pytest.raises(ValidationError, match=r"at_least -1 is shown by no number.*between -1 and 1, such as -0.99"):
        RateDifference(**given, at_least=-1)


def test_no_more_changes_than_conditions_can_be_claimed():
    with pytest.raises(ValidationError, match="count 3 exceeds the 2 conditions; lower it"):
        Changes(statement="s", metric="leakage", role="pulled", direction="rises", count=3, conditions=("a", "b"))


def test_a_margin_of_0_is_refused():
    with pytest.raises(ValidationError):
        SameRates(**{**SAME.model_dump(), "margin": 0})
