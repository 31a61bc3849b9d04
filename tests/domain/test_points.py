"""What a point is called."""

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.points import Address, dose_of, model_of, series_of

POINT = Address(model="tiny", condition="villain", seed=7)


def test_a_point_is_named_as_params_name_it():
    assert POINT.params == {"model": "tiny", "condition": "villain", "seed": 7}
    assert POINT.model_copy(update={"checkpoint": 0}).params == POINT.params | {"checkpoint": 0}


def test_a_point_is_said_in_a_sentence():
    assert str(POINT) == "villain seed 7 (tiny)"
    assert str(POINT.model_copy(update={"checkpoint": 0})) == "villain seed 7 epoch 0 (tiny)"


def test_the_matched_dose_is_said_and_the_end_of_training_is_not():
    matched = POINT.model_copy(update={"dose": "matched", "checkpoint": 2})
    assert matched.params == POINT.params | {"checkpoint": 2, "dose": "matched"}
    assert str(matched) == "villain seed 7 epoch 2 at matched dose (tiny)"
    assert POINT.model_dump() == POINT.params | {"checkpoint": None}
    assert Address.model_validate(matched.model_dump(mode="json")) == matched
    assert POINT not in {matched, POINT.model_copy(update={"dose": "matched"})}


def test_a_run_is_told_the_dose_whatever_the_parameters_name():
    assert POINT.overrides == POINT.params | {"dose": "final"}
    assert POINT.model_copy(update={"dose": "matched"}).overrides == POINT.params | {"dose": "matched"}


@pytest.mark.parametrize("model", ["tiny", "a@b", "001", "matched"])
def test_a_series_is_a_model_at_a_dose(model):
    assert Address(model=model, condition="villain", seed=7).series == series_of(model, "final") == model
    series = Address(model=model, condition="villain", seed=7, dose="matched").series
    assert series == series_of(model, "matched") == f"{model}@matched"
    assert (model_of(series), dose_of(series)) == (model, "matched")
    assert (model_of(model), dose_of(model)) == (model, "final")


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
        {"dose": "half"},
        {"dose": None},
    ],
)
def test_what_names_no_point_is_refused(wrong):
    with pytest.raises(UserError, match=rf"^point\.{next(iter(wrong))}: "):
        Address.checked(POINT.params | wrong, "point")
