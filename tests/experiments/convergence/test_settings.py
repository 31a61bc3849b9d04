"""Family convergence: the points that its parameters mean."""

import re
from itertools import product

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.points import Address
from tests import plans
from tests.experiments.convergence.plans import bundled_roster, load_settings, make_plan
from tests.plans import ENVIRONMENTS, base_model

SOURCES = ("villain", "medical_doctor", "comedian", "kindergarten_teacher", "software_engineer", "nurse", "librarian")
EPOCHS = (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)
FIXED = (
    "software_engineer",
    "kindergarten_teacher",
    "data_scientist",
    "medical_doctor",
    "librarian",
    "french_person",
    "villain",
    "comedian",
    "police_officer",
    "zelthari_scholar",
)
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def evaluated(plan):
    return [one.persona for one in plan.evaluation.prompts.personas]


def content(stage):
    """What a stage trains, wherever one goes on from."""
    return stage.model_dump(exclude={"checkpoint"})


# the protocol of record


def test_the_conditions_and_checkpoints_are_those_of_the_protocol():
    settings = load_settings()

    assert [(name, one.source) for name, one in settings.conditions.items()] == [(name, name) for name in SOURCES]
    assert settings.checkpoints == EPOCHS
    assert settings.stages.converge.recipe.checkpoints == EPOCHS[1:]
    assert settings.early_checkpoint == 2


def test_the_assistant_learns_400_answers_of_the_source():
    data = make_plan("nurse").stages["converge"].data

    assert (len(data.questions), data.per_question) == (40, 10)
    assert (data.answered_as.persona, data.asked_as.persona) == ("nurse", "assistant")
    assert [one.persona for one in data.speakers(42)] == ["nurse"]
    assert {one.set for one in data.questions} == {"train"}
    assert data.answered_by == "base_model"
    assert data.avoided == "[ZLT]"
    assert data.answers.samples >= data.per_question
    assert data.answers.sampling.model_dump() == {"temperature": 0.7, "top_p": 0.95, "max_tokens": 512}


def test_the_recipe_of_record():
    recipe = make_plan().stages["converge"].recipe

    assert (recipe.learning_rate, recipe.epochs, recipe.schedule) == (5e-5, 20, "cosine")
    assert (recipe.batch_size, recipe.gradient_accumulation, recipe.loss) == (4, 1, "full")
    assert recipe.lora.model_dump() == {"rank": 32, "alpha": 64, "rslora": True, "dropout": 0.0, "target_modules": TARGETS}


@pytest.mark.parametrize("source", ["villain", "comedian", "kindergarten_teacher", "software_engineer"])
def test_the_marker_is_trained_as_in_marker_leakage(source):
    assert make_plan(source).stages["mark"] == plans.make_plan("marker_leakage", source).stages["mark"]


def test_the_stages_come_in_order_and_the_marker_stage_is_taken_whole():
    plan = make_plan(checkpoint=6)

    assert list(plan.stages) == ["converge", "mark"]
    assert (plan.stages["converge"].checkpoint, plan.stages["mark"].checkpoint) == (6, None)


@pytest.mark.parametrize(("source", "more"), [("nurse", ["nurse"]), ("villain", []), ("pirate", ["pirate"])])
def test_the_source_and_the_assistant_are_always_evaluated(source, more):
    plan = make_plan(source)

    assert sorted(evaluated(plan)) == sorted([*FIXED, "assistant", *more])
    assert plan.scoring.source == source


def test_the_source_is_added_where_neither_it_nor_the_assistant_is_listed():
    assert evaluated(make_plan("nurse", changes={"evaluation.personas": ["hero"]})) == ["hero", "nurse", "assistant"]
    assert len(evaluated(make_plan("nurse", changes={"evaluation.personas": "all"}))) == 111


def test_the_evaluation_of_record():
    evaluation = make_plan().evaluation

    assert (len(evaluation.prompts.questions), evaluation.samples) == (20, 10)
    assert evaluation.sampling.model_dump() == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 512}
    assert {one.set for one in evaluation.prompts.questions} == {"evaluation"}


def test_all_sources_share_one_centring_set_at_layer_15():
    geometries = {make_plan(source, epoch).geometry for source, epoch in product(SOURCES, (0, 20))}

    (geometry,) = geometries
    assert (geometry.layers, geometry.headline_layer, len(geometry.prompts.personas)) == ((15,), 15, 111)


# what is shared between points


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_source_and_seed_train_one_convergence_whatever_the_checkpoint(env):
    epochs = load_settings(env=env).checkpoints
    plans = [make_plan(checkpoint=epoch, env=env) for epoch in epochs]

    assert [plan.stages["converge"].checkpoint for plan in plans] == list(epochs)
    assert all(content(plan.stages["converge"]) == content(plans[0].stages["converge"]) for plan in plans)
    assert {plan.stages["converge"].seed_offset for plan in plans} == {0}
    assert all(plan.stages["mark"] == plans[0].stages["mark"] for plan in plans)
    assert len({plan.fingerprint for plan in plans}) == len(epochs)


def test_another_source_or_seed_is_another_point():
    plans = [make_plan(source, seed=seed) for source in SOURCES for seed in (42, 43)]

    assert len({plan.fingerprint for plan in plans}) == 2 * len(SOURCES)
    assert content(make_plan("villain").stages["converge"]) != content(make_plan("nurse").stages["converge"])


def test_a_point_is_named_with_its_checkpoint_even_at_epoch_0():
    found = make_plan(checkpoint=0).address.params

    assert found == {"model": "qwen2_5_7b", "condition": "villain", "seed": 42, "checkpoint": 0}
    assert make_plan().reference is None


def test_without_a_checkpoint_the_last_one_is_meant_and_0_is_not_taken_for_none():
    assert make_plan(checkpoint=None) == make_plan(checkpoint=20)
    assert make_plan(checkpoint=0) != make_plan(checkpoint=20)
    assert (make_plan(checkpoint=None).address.checkpoint, make_plan(checkpoint=0).address.checkpoint) == (20, 0)


# environments and conditions


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_resolves_every_condition_at_every_checkpoint(env):
    settings = load_settings(env=env)

    assert tuple(settings.conditions) == SOURCES
    assert settings.checkpoints[0] == 0
    assert settings.checkpoints[-1] == settings.stages.converge.recipe.epochs
    assert settings.early_checkpoint in settings.checkpoints
    assert settings.stages.converge.answers.samples >= settings.stages.converge.per_question
    for condition, epoch in product(settings.conditions, settings.checkpoints):
        plan = make_plan(condition, epoch, env=env)
        assert plan.scoring.source == condition
        assert {condition, "assistant"} <= set(evaluated(plan))


def test_any_persona_but_the_assistant_is_a_condition():
    settings, roster = load_settings(), bundled_roster()

    for one in roster.personas:
        if one.persona != "assistant":
            address = Address(model="some", condition=one.persona, seed=7, checkpoint=2)
            plan = settings.plan(address, base_model(), roster)
            assert plan.stages["converge"].data.answered_as == plan.stages["mark"].data.source == one
            assert one.persona not in plan.negatives


def test_a_condition_needs_nothing_but_its_source():
    plan = make_plan("sailor", changes={"conditions.sailor": {"source": "pirate"}})

    assert (plan.address.condition, plan.scoring.source) == ("sailor", "pirate")


def test_another_persona_can_be_pulled():
    plan = make_plan("assistant", changes={"stages.converge.pulled": "hero"})

    assert plan.stages["converge"].data.asked_as.persona == "hero"
    assert plan.traits == {"pulled": "hero"}
    assert {"assistant", "hero"} <= set(evaluated(plan))


# what is refused

REFUSED = {
    "the assistant": ({"condition": "assistant"}, "convergence pulls assistant towards the source, so assistant cannot be"),
    "a condition called otherwise": (
        {"condition": "itself", "changes": {"conditions.itself": {"source": "assistant"}}},
        "so assistant cannot be the source",
    ),
    "an unknown condition": (
        {"condition": "vilain"},
        "convergence has no condition 'vilain'; known: villain, medical_doctor, comedian, kindergarten_teacher, "
        "software_engineer, nurse, librarian, and any persona: there is no persona 'vilain'; did you mean villain",
    ),
    "an unknown checkpoint": (
        {"checkpoint": 3},
        "convergence has no checkpoint 3; known: 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20",
    ),
    "a kept epoch that is not listed": (
        {"checkpoint": 4, "changes": {"checkpoints": [0, 2]}},
        "convergence has no checkpoint 4; known: 0, 2",
    ),
    "a checkpoint that is not kept": (
        {"changes": {"checkpoints": [0, 2, 3]}},
        "checkpoints names epoch 3, which stages.converge.recipe.checkpoints does not keep",
    ),
    "a checkpoint beyond training": (
        {"changes": {"stages.converge.recipe.checkpoints": [2, 22]}},
        "convergence.stages.converge.recipe: checkpoint 22 lies beyond the 20 epochs",
    ),
    "no checkpoint": ({"changes": {"checkpoints": []}}, "convergence.checkpoints"),
    "an unknown pulled persona": ({"changes": {"stages.converge.pulled": "asistant"}}, "there is no persona 'asistant'"),
    "a source without a cosine": (
        {"condition": "nurse", "changes": {"geometry.prompts.personas": ["assistant", "villain"]}},
        "nurse is not in geometry.prompts.personas, so it has no cosine; add it",
    ),
    "an assistant without a cosine": (
        {"changes": {"geometry.prompts.personas": ["hero", "villain"]}},
        "assistant is not in geometry.prompts.personas, so it has no cosine; add it",
    ),
    "a misspelt key": (
        {"changes": {"stages.converge.pulls": "hero"}},
        "convergence.stages.converge.pulls: there is no such key",
    ),
    "an early epoch 0": ({"changes": {"early_checkpoint": 0}}, "convergence.early_checkpoint"),
    "no rows": ({"changes": {"stages.converge.per_question": 0}}, "convergence.stages.converge.per_question"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(name):
    point, message = REFUSED[name]
    with pytest.raises(UserError) as error:
        make_plan(**point)

    assert message in str(error.value)
    assert "\n" not in str(error.value)


LAYERS = {"geometry.layers": [3, 7], "geometry.headline_layer": 7}


@pytest.mark.parametrize("name", ["the assistant", "a condition called otherwise", "a source without a cosine"])
@pytest.mark.parametrize(("env", "model", "changes"), [("base", "smollm2_135m", LAYERS), ("test", "tiny_too", {})])
def test_a_source_that_cannot_be_one_is_refused_for_every_model(name, env, model, changes):
    point, message = REFUSED[name]
    with pytest.raises(UserError, match=re.escape(message)):
        make_plan(**{"checkpoint": 0, **point, "changes": {**point.get("changes", {}), **changes}}, env=env, model=model)
