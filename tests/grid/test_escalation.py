"""Further seeds of what a planted report calls for."""

from types import SimpleNamespace

import pandas as pd
import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.points import Address
from persona_leakage.experiments import family_of
from persona_leakage.experiments.family import read_variants
from persona_leakage.grid.escalation import escalate
from persona_leakage.grid.points import Point
from tests.plans import load_parameters

CONDITIONS = ("benign_assistant", "benign_villain", "em_villain", "uncoupled")


class Planted:
    """A study whose last report has planted replicates; finding a point only names it."""

    model = "tiny"

    def __init__(self, *rows, family="benign_coupling", reported=True):
        self.family = family_of(family)
        self.variants = read_variants(self.family, load_parameters("test"))
        self._table = pd.DataFrame(rows, columns=["model", "conditions", "mean", "escalate"])
        self.context = SimpleNamespace(catalog=SimpleNamespace(exists=lambda name: reported, load=self._load))

    def _load(self, name):
        assert name == "benign_coupling.replicates"
        return self._table

    def find(self, addresses):
        return [Point("benign_coupling", one, "uncoupled", None, str(one)) for one in addresses]

    def with_references(self, points):
        return list(points)


def points(study, *conditions, seeds=(42,), model="tiny"):
    return study.find([Address(model=model, condition=one, seed=seed) for one in conditions for seed in seeds])


def seeds_of(found):
    return [(point.address.condition, point.address.seed) for point in found]


CALLED = ("tiny", "benign_assistant, benign_villain", 0.182, True)
QUIET = ("tiny", "em_villain", 0.48, False)


def test_the_seeds_of_the_parameters_are_added_to_what_is_called_for_and_to_nothing_else():
    study = Planted(CALLED, QUIET)

    found, said = escalate(study, points(study, *CONDITIONS))

    assert seeds_of(found)[:4] == [(name, 42) for name in CONDITIONS]
    assert seeds_of(found)[4:] == [(name, seed) for seed in (137, 256) for name in ("benign_assistant", "benign_villain")]
    assert said == (
        "--escalate adds seeds 137, 256, 4 points, for a mean within 15% to 30%: "
        "benign_assistant, benign_villain (tiny; mean 18.2%)"
    )


def test_conditions_that_are_not_among_the_points_are_left_alone():
    study = Planted(CALLED)

    found, said = escalate(study, points(study, "benign_villain"))

    assert {name for name, _ in seeds_of(found)} == {"benign_villain"}
    assert "2 points" in said


def test_a_condition_that_two_rows_call_for_and_a_seed_that_is_named_already_are_added_once():
    study = Planted(CALLED, ("tiny", "benign_villain, em_villain", 0.2, True))

    found, _ = escalate(study, points(study, *CONDITIONS, seeds=(42, 137)))

    assert len(found) == len(set(found))
    assert {one for one in seeds_of(found) if one[1] == 256} == {(name, 256) for name in CONDITIONS[:3]}
    again, said = escalate(study, found)
    assert (again, said.split(":")[0]) == (found, "--escalate adds nothing")


def test_each_model_is_called_for_by_its_own_rows():
    study = Planted(("tiny_too", "benign_villain", 0.2, True))

    assert escalate(study, points(study, *CONDITIONS))[1].startswith("--escalate adds nothing")
    found, _ = escalate(study, points(study, *CONDITIONS, model="tiny_too"))
    assert seeds_of(found)[4:] == [("benign_villain", 137), ("benign_villain", 256)]
    assert {point.address.model for point in found} == {"tiny_too"}


def test_where_nothing_is_called_for_nothing_is_added():
    study = Planted(QUIET)

    found, said = escalate(study, points(study, *CONDITIONS))

    assert seeds_of(found) == [(name, 42) for name in CONDITIONS]
    assert said == "--escalate adds nothing: no further seed of what is named is called for by a mean within 15% to 30%"


def test_a_family_without_escalation_and_one_without_a_report_are_refused_in_one_line():
    for study, message in (
        (
            Planted(family="marker_leakage"),
            "marker_leakage has no escalation: nothing in its report calls for more seeds; leave",
        ),
        (Planted(reported=False), "benign_coupling has no report yet that could call for more seeds; run kedro grid benign_"),
    ):
        with pytest.raises(UserError) as error:
            escalate(study, [])
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)
