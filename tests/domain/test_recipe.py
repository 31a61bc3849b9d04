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
