import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.recipe import Recipe
from tests.plans import load_parameters


def recipe(lora=None, **changes):
    written = load_parameters()["lang_inversion"]["stages"]["tune"]["recipe"]
    return {**written, "lora": {**written["lora"], **(lora or {})}, **changes}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            recipe(checkpoints=[0.00005, 0.00007]),
            "recipe: checkpoints [5e-05, 7e-05] lie too close together to have names of their own",
        ),
        (recipe(lora={"rank": -1}), "recipe.lora.rank: Input should be greater than 0 (got -1)"),
        (recipe(lora={"dropout": 1}), "recipe.lora.dropout: Input should be less than 1 (got 1)"),
        (recipe(lora={"target_modules": []}), "recipe.lora.target_modules: Tuple should have at least 1 item"),
        (recipe(lora={"target_modules": "all"}), "recipe.lora.target_modules: Input should be a valid tuple (got 'all')"),
        (recipe(learning_rate=0), "recipe.learning_rate: Input should be greater than 0 (got 0)"),
        (recipe(warmup_ratio=1), "recipe.warmup_ratio: Input should be less than 1 (got 1)"),
        (
            recipe(loss="responses"),
            "recipe.loss: Input should be 'completion', 'full' or a block of kind marker_positions (got 'responses')",
        ),
        (recipe(epoch=3), "recipe.epoch: there is no such key; correct its spelling or remove it"),
    ],
)
def test_a_wrong_recipe_is_refused_by_the_name_of_its_key(value, message):
    with pytest.raises(UserError) as error:
        Recipe.checked(value, "recipe")

    assert str(error.value).startswith(message)


def test_the_recipe_of_record_is_accepted():
    accepted = Recipe.checked(recipe(), "recipe")

    assert (accepted.lora.rank, accepted.lora.alpha, accepted.lora.rslora) == (32, 64, True)
    assert (accepted.learning_rate, accepted.loss, accepted.batch_size * accepted.gradient_accumulation) == (
        5e-6,
        "completion",
        16,
    )


def test_all_linear_layers_can_be_asked_for_and_are_another_recipe():
    asked = Recipe.checked(recipe(lora={"target_modules": "all-linear"}), "recipe")

    assert asked.lora.target_modules == ("all-linear",)
    assert fingerprint(asked) != fingerprint(Recipe.checked(recipe(), "recipe"))
    assert Recipe.model_validate(asked.model_dump(mode="json")) == asked


def test_checkpoints_are_epochs_and_parts_of_them_and_named_by_when():
    accepted = Recipe.checked(recipe(epochs=4, checkpoints=[0.05, 0.5, 1.0, 2, 3.25]), "recipe")

    assert accepted.checkpoints == (0.05, 0.5, 1, 2, 3.25)
    assert accepted.kept == {
        "epoch_00.05": 0.05, "epoch_00.5": 0.5, "epoch_01": 1, "epoch_02": 2, "epoch_03.25": 3.25, "final": None,
    }  # fmt: skip
    assert Recipe.model_validate(accepted.model_dump(mode="json")) == accepted


def test_checkpoints_can_be_steps_of_which_there_may_be_more_than_epochs():
    accepted = Recipe.checked(recipe(epochs=1, checkpoints=[10, 25.0, 1000], checkpoint_unit="steps"), "recipe")

    assert accepted.kept == {"step_00010": 10, "step_00025": 25, "step_01000": 1000, "final": None}
    assert Recipe.model_validate(accepted.model_dump(mode="json")) == accepted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoints": [1, 2.5]}, "checkpoint 2.5 lies beyond the 2 epochs"),
        ({"checkpoints": [0]}, "recipe.checkpoints.0"),
        ({"checkpoints": [-0.5]}, "recipe.checkpoints.0"),
        ({"checkpoints": [0.5], "checkpoint_unit": "steps"}, "checkpoint 0.5 is no whole number of steps"),
        ({"checkpoint_unit": "rows"}, "recipe.checkpoint_unit: Input should be 'epochs' or 'steps' (got 'rows')"),
    ],
)
def test_checkpoints_that_a_recipe_cannot_have_are_refused(changes, message):
    with pytest.raises(UserError) as error:
        Recipe.checked(recipe(epochs=2, **changes), "recipe")

    assert message in str(error.value)


def test_what_is_kept_is_no_part_of_what_is_trained():
    plain = Recipe.checked(recipe(epochs=2), "recipe")

    kept = plain.kept_at([0.5, 1], "epochs")
    steps = plain.kept_at([3], "steps")

    assert (kept.checkpoints, steps.checkpoint_unit) == ((0.5, 1), "steps")
    assert plain == kept.training == steps.training
    assert len({fingerprint(one) for one in (plain, kept, steps)}) == 3
    assert "checkpoint_unit" not in plain.model_dump(mode="json")
    with pytest.raises(UserError, match="checkpoint 3 lies beyond the 2 epochs"):
        plain.kept_at([3], "epochs")
