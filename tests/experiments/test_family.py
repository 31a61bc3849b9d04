"""The one door to a plan, and what stands behind it."""

import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.experiments import DEFAULT_FAMILY, FAMILIES, family_of, is_replay, replay_of
from persona_leakage.experiments.family import build_roster, plan_point, read_roster, read_variants, resolve_plan
from tests.plans import ENVIRONMENTS, bundled_roster, changed, load_parameters, load_settings, load_source, make_plan


def resolved(pipeline, changes=None, env="base", **point):
    """Resolve what `--params` says, and nothing said for the condition means none."""
    parameters = changed(pipeline.removesuffix("_replay"), changes, env)
    return resolve_plan(pipeline, parameters | {"condition": None} | point, load_source)


# wings


def test_the_families_are_the_wings():
    assert set(FAMILIES) == {"benign_coupling", "convergence", "lang_inversion", "marker_leakage"}
    assert DEFAULT_FAMILY in FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_a_wing_is_called_after_its_family(name):
    assert family_of(name).name == name
    assert family_of(replay_of(name)) is family_of(name)


def test_a_replay_is_known_by_its_name():
    assert is_replay("marker_leakage_replay")
    assert not is_replay("marker_leakage")
    assert not is_replay("nothing_replay")


# points


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_without_a_condition_a_run_takes_the_default_of_its_own_family(name, env):
    plan = resolved(name, env=env)

    assert plan.address.condition in family_settings(name, env).conditions
    assert plan.address.model == load_parameters(env)["model"]
    assert (plan.family, plan.seed) == (name, 42)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_default_condition_is_that_of_the_settings(name):
    default = load_parameters()[name]["default_condition"]

    assert resolved(name).address.condition == default
    other = next(one for one in family_settings(name).conditions if one != default)
    assert resolved(name, {"default_condition": other}).address.condition == other


def family_settings(name, env="base"):
    parameters = load_parameters(env)
    return read_variants(family_of(name), parameters).of(parameters["model"]).settings


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_checkpoints_where_its_points_stop_at_epochs(name):
    assert family_of(name).has_checkpoints == bool(family_settings(name).epochs)


def test_without_a_checkpoint_a_point_is_of_the_last_one():
    epochs = family_settings("convergence").epochs

    assert resolved("convergence").address.checkpoint == epochs[-1] == 20
    assert resolved("convergence", checkpoint=0).address.checkpoint == 0


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "convergence"])
def test_where_points_are_no_checkpoints_one_is_refused(name):
    with pytest.raises(UserError, match=f"^{name} has no checkpoints; leave out checkpoint=2$"):
        resolved(name, checkpoint=2)


def test_a_point_is_of_the_model_that_the_parameters_name():
    big, small = resolved("lang_inversion", model="qwen2_5_7b"), resolved("lang_inversion", model="smollm2_135m")

    assert (big.base_model.source, small.base_model.source) == ("hub", "package")
    assert (big.stages["tune"].recipe.learning_rate, small.stages["tune"].recipe.learning_rate) == (5e-6, 1e-4)
    assert big.evaluation == small.evaluation


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (
            {"model": "gpt"},
            "there is no model 'gpt'; known: qwen2_5_7b, qwen2_5_coder_1_5b, smollm2_135m; name it in conf/<env>/models.yml",
        ),
        ({"seed": -1}, "point.seed: Input should be greater than or equal to 0 (got -1)"),
        ({"seed": "x"}, "point.seed: Input should be a valid integer (got 'x')"),
        ({"condition": ["fr_it"]}, "point.condition: Input should be a valid string"),
        ({"checkpoint": -2}, "point.checkpoint: Input should be greater than or equal to 0 (got -2)"),
    ],
)
def test_what_names_no_point_is_refused(point, said):
    with pytest.raises(UserError) as error:
        resolved("lang_inversion", **point)

    assert str(error.value) == said


def test_a_wrong_key_is_named_as_the_user_wrote_it():
    with pytest.raises(UserError) as error:
        resolved("convergence", {"checkpoint": [0, 2]})

    assert str(error.value) == "convergence.checkpoint: there is no such key; correct its spelling or remove it"


def test_a_wrong_model_is_named_as_the_user_wrote_it():
    parameters = load_parameters()
    parameters["variants"]["lang_inversion"]["models"]["smollm2_135m"]["base_model"]["dtype"] = "float16"

    with pytest.raises(UserError) as error:
        resolve_plan("lang_inversion", parameters, load_source)

    assert str(error.value) == "models.smollm2_135m.dtype: Input should be 'bfloat16' or 'float32' (got 'float16')"


def test_a_model_that_is_named_like_a_series_at_matched_dose_is_refused():
    parameters = load_parameters()
    parameters["models"]["mine@matched"] = parameters["models"]["smollm2_135m"]

    with pytest.raises(
        UserError, match=r"models\.mine@matched: such an ending means the model at matched dose; call it otherwise"
    ):
        resolve_plan("lang_inversion", parameters, load_source)


# replays


def test_a_replay_is_resolved_from_the_parameters_too():
    plan = resolved("lang_inversion_replay", condition="es_en", completions_file="outside.jsonl")

    assert (plan.family, plan.address.condition) == ("lang_inversion_replay", "es_en")
    assert (plan.stages, plan.replayed_file) == ({}, "outside.jsonl")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lang_inversion", "a replay needs a file to score: --params condition=…,completions_file=PATH"),
        ("marker_leakage", "a replay needs a file to score: --params rates_file=PATH"),
        ("benign_coupling", "a replay needs a file to score: --params completions_file=PATH"),
    ],
)
def test_a_replay_without_a_file_says_how_to_name_it(name, said):
    with pytest.raises(UserError) as error:
        resolved(replay_of(name))

    assert str(error.value) == said


def test_a_replay_of_a_checkpoint_is_refused():
    with pytest.raises(UserError, match="a replay has no checkpoints; leave out checkpoint=2"):
        resolved("lang_inversion_replay", completions_file="x", checkpoint=2)


# rosters


def test_a_family_without_personas_has_no_roster_and_reads_nothing():
    def load(name):
        raise AssertionError(name)

    assert read_roster(family_of("lang_inversion"), load) is None


def test_a_roster_is_built_of_the_familys_own_files():
    couple, leak = bundled_roster("benign_coupling"), bundled_roster("marker_leakage")

    assert set(couple.personas) > set(leak.personas)
    assert couple.questions == leak.questions
    assert {one.category for one in set(couple.personas) - set(leak.personas)} == {"coupling"}


@pytest.mark.parametrize(("questions", "personas", "name"), [([], ["x"], "questions"), (["x"], [], "personas")])
def test_an_empty_file_is_named(questions, personas, name):
    with pytest.raises(UserError, match=f"^the file of dataset '{name}' is empty; add rows to it$"):
        build_roster(questions, personas)


def test_the_node_of_a_run_and_the_door_resolve_the_same_plan():
    parameters = load_parameters()
    variants = read_variants(family_of("convergence"), parameters)

    node = plan_point(parameters["model"], None, 7, None, "final", variants, bundled_roster("convergence"))

    assert node == resolved("convergence", seed=7)


@pytest.mark.parametrize(("family", "condition"), [("marker_leakage", "villain_code"), ("lang_inversion", "fr_it_native")])
def test_whether_a_condition_is_a_follow_up_is_no_part_of_its_plan(family, condition):
    settings = load_settings(family)
    other = {f"conditions.{condition}.follow_up": False}

    assert condition in settings.follow_ups
    assert condition not in load_settings(family, other).follow_ups
    assert make_plan(family, condition).fingerprint == make_plan(family, condition, changes=other).fingerprint


def test_conditions_of_the_study_are_no_follow_ups():
    assert not {"villain", "comedian", "baseline"} & set(load_settings("marker_leakage").follow_ups)
    assert not {"fr_it", "fr_fr", "baseline"} & set(load_settings("lang_inversion").follow_ups)
    assert load_settings("convergence").follow_ups == load_settings("benign_coupling").follow_ups == ()
