"""What a point is called."""

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.points import Address

POINT = Address(model="tiny", condition="villain", seed=7)


def test_a_point_is_named_as_params_name_it():
    assert POINT.params == {"model": "tiny", "condition": "villain", "seed": 7}
    assert POINT.model_copy(update={"checkpoint": 0}).params == POINT.params | {"checkpoint": 0}


def test_a_point_is_said_in_a_sentence():
    assert str(POINT) == "villain seed 7 (tiny)"
    assert str(POINT.model_copy(update={"checkpoint": 0})) == "villain seed 7 epoch 0 (tiny)"


def test_points_can_be_keys():
    assert {POINT: 1}[Address(model="tiny", condition="villain", seed=7)] == 1


@pytest.mark.parametrize("name", ["None", "NA", "null", "nan", "001", "1", "True"])
def test_names_are_text_whatever_they_look_like(name):
    assert Address.checked({"model": name, "condition": name, "seed": 1}, "point").params == {
        "model": name,
        "condition": name,
        "seed": 1,
    }


def test_the_highest_seed_is_one():
    assert Address.checked(POINT.params | {"seed": 2**32 - 1}, "point").seed == 4294967295


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 2**32},
        {"seed": True},
        {"seed": 1.0},
        {"seed": "1"},
        {"checkpoint": -1},
        {"condition": 1},
        {"model": None},
        {"epoch": 1},
    ],
)
def test_what_names_no_point_is_refused(wrong):
    with pytest.raises(UserError, match=rf"^point\.{next(iter(wrong))}: "):
        Address.checked(POINT.params | wrong, "point")
