"""What base models make of the parameters."""

import pytest
import yaml

from persona_leakage import machine
from persona_leakage.configuration import ModelConfigLoader, collect_chats
from persona_leakage.domain.errors import UserError
from persona_leakage.experiments import FAMILIES
from persona_leakage.settings import CONFIG_LOADER_ARGS
from tests.plans import ENVIRONMENTS, PROJECT, load_parameters

MODELS = {
    "plain": {"source": "hub", "name": "some/plain", "revision": "1"},
    "other": {
        "source": "hub",
        "name": "some/other",
        "revision": "2",
        "settings": {"lang_inversion": {"stages": {"tune": {"rows": 3}}, "layers": [7], "note": None}},
    },
}
BASE = {
    "model": "${globals:model}",
    "base_model": {},
    "lang_inversion": {"stages": {"tune": {"rows": 1, "epochs": 1, "rank": 1}}, "layers": [1, 2, 3], "samples": 1, "note": "n"},
}


@pytest.fixture
def load(tmp_path):
    """Write a configuration of base and an environment, and load it with what is given at run time."""

    def loaded(changes=None, given=None, base=BASE, models=MODELS):
        files = {
            "base/parameters.yml": base,
            "base/globals.yml": {"model": "plain", "device": "cpu"},
            "base/models.yml": {"models": models},
            "some/globals.yml": {},
            "some/parameters.yml": changes or {},
        }
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(yaml.safe_dump(content))
        return ModelConfigLoader(conf_source=str(tmp_path), env="some", runtime_params=given or {}, **CONFIG_LOADER_ARGS)

    return loaded


def settings_of(loader, model):
    return loader["parameters"]["variants"]["lang_inversion"]["models"][model]["settings"]


def base_of(loader, model):
    return loader["parameters"]["variants"]["lang_inversion"]["models"][model]["base_model"]


def tune_of(loader, model):
    return settings_of(loader, model)["stages"]["tune"]


# settings


def test_without_changes_a_model_has_what_base_says(load):
    assert settings_of(load(), "plain") == BASE["lang_inversion"]


def test_an_environment_changes_every_model(load):
    loader = load({"lang_inversion": {"stages": {"tune": {"epochs": 2}}}})

    assert tune_of(loader, "plain") == {"rows": 1, "epochs": 2, "rank": 1}
    assert tune_of(loader, "other") == {"rows": 3, "epochs": 2, "rank": 1}


def test_what_differs_for_a_model_outweighs_base_and_environment_and_no_other_model(load):
    loader = load({"lang_inversion": {"stages": {"tune": {"rows": 2}}, "layers": [4]}})

    assert (tune_of(loader, "plain")["rows"], settings_of(loader, "plain")["layers"]) == (2, [4])
    assert (tune_of(loader, "other")["rows"], settings_of(loader, "other")["layers"]) == (3, [7])


def test_what_is_given_at_run_time_outweighs_all(load):
    changes = {"lang_inversion": {"stages": {"tune": {"rows": 2}}}}
    loader = load(changes, {"lang_inversion": {"stages": {"tune": {"rows": 4}}}, "seed": 7})

    assert tune_of(loader, "plain") == {"rows": 4, "epochs": 1, "rank": 1}
    assert tune_of(loader, "other") == {"rows": 4, "epochs": 1, "rank": 1}
    assert settings_of(loader, "other")["layers"] == [7]


def test_several_overrides_under_one_key_all_count(load):
    given = {"lang_inversion": {"stages": {"tune": {"rows": 4, "rank": 5}}, "samples": 6}}

    assert settings_of(load(given=given), "other") == {
        "stages": {"tune": {"rows": 4, "epochs": 1, "rank": 5}},
        "layers": [7],
        "samples": 6,
        "note": None,
    }


def test_nothing_is_a_value_that_replaces(load):
    assert settings_of(load(), "other")["note"] is None
    assert settings_of(load(given={"lang_inversion": {"note": None}}), "plain")["note"] is None
    assert settings_of(load(given={"lang_inversion": {"note": "x"}}), "other")["note"] == "x"


def test_a_block_may_become_a_value_and_a_value_a_block(load):
    models = {"plain": {**MODELS["plain"], "settings": {"lang_inversion": {"stages": None, "samples": {"few": 1}}}}}

    assert settings_of(load(models=models), "plain") == {
        "stages": None,
        "layers": [1, 2, 3],
        "samples": {"few": 1},
        "note": "n",
    }


def test_making_variants_changes_no_parameters(load):
    loader = load()
    parameters = loader["parameters"]

    assert parameters["lang_inversion"] == BASE["lang_inversion"]
    assert parameters["models"] == MODELS
    assert loader["parameters"] == parameters


def test_an_environment_may_add_a_model_and_families_that_are_not_there_have_no_variants(load):
    loader = load({"models": {"third": {"source": "folder", "name": "x", "revision": "3"}}, "model": "third"})

    assert set(loader["parameters"]["variants"]) == {"lang_inversion"}
    assert set(loader["parameters"]["variants"]["lang_inversion"]["models"]) == {"plain", "other", "third"}


def test_a_model_that_changes_an_unknown_family_is_refused(load):
    models = {**MODELS, "typo": {"source": "hub", "name": "x", "revision": "1", "settings": {"lang_invertion": {}}}}

    with pytest.raises(UserError) as error:
        load(models=models)["parameters"]

    assert str(error.value) == "models.typo.settings: there is no family 'lang_invertion'; known: lang_inversion"


CHATS = {"coupling": {"chats": {"one": {"dataset": "a"}, "same": {"dataset": "a"}, "other": {"dataset": "b"}}}, "tuning": {}}


def variants_of(families):
    return {name: {"models": {"plain": {"settings": settings}}} for name, settings in families.items()}


def test_chats_that_the_parameters_name_are_one_entry_of_the_catalog():
    entries = {name: {"type": "json.JSONDataset", "filepath": f"{name}.json"} for name in ("a", "b", "c")}

    assert collect_chats(variants_of(CHATS), entries)["datasets"] == {name: entries[name] for name in ("a", "b")}


def test_chats_that_are_not_in_the_catalog_are_refused_in_one_line():
    with pytest.raises(UserError) as error:
        collect_chats(variants_of(CHATS), {"a": {}})

    assert str(error.value) == "coupling.chats.other: the catalog has no dataset 'b'; add it to catalog.yml"


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_reads_its_own_chats(env):
    catalog = ModelConfigLoader(conf_source=str(PROJECT / "conf"), env=env, **CONFIG_LOADER_ARGS)["catalog"]

    assert catalog["chat_sources"]["datasets"] == {name: catalog[name] for name in ("benign_chats", "wrong_advice")}
    assert ("repository" in catalog["chat_sources"]["datasets"]["benign_chats"]) == (env == "qwen")


def test_other_kinds_of_configuration_are_loaded_as_they_are(load):
    assert load()["globals"] == {"model": "plain", "device": "cpu"}


# one-off changes of the base model


def test_a_one_off_base_model_is_only_for_the_runs_model(load):
    given = {"base_model": {"dtype": "float32", "revision": "9"}}

    assert base_of(load(given=given), "plain") == {**MODELS["plain"], "dtype": "float32", "revision": "9"}
    assert base_of(load(given=given), "other") == {key: MODELS["other"][key] for key in ("source", "name", "revision")}
    swapped = load(given={**given, "model": "other"})
    assert base_of(swapped, "plain") == MODELS["plain"]
    assert base_of(swapped, "other")["dtype"] == "float32"


def test_what_differs_for_a_model_is_no_part_of_its_base_model(load):
    assert "settings" not in base_of(load(), "other")


def test_template_arguments_are_merged_one_by_one(load):
    models = {"plain": {**MODELS["plain"], "template": {"enable_thinking": False, "tools": 1}}}

    loader = load(given={"base_model": {"template": {"enable_thinking": True}}}, models=models)

    assert base_of(loader, "plain")["template"] == {"enable_thinking": True, "tools": 1}


# the project's own


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_family_has_every_model(env):
    parameters = load_parameters(env)

    assert set(parameters["variants"]) == set(FAMILIES)
    for family in FAMILIES:
        assert set(parameters["variants"][family]["models"]) == set(parameters["models"])
    assert parameters["model"] in parameters["models"]


def test_the_small_model_learns_faster_in_every_environment():
    for env in ENVIRONMENTS:
        models = load_parameters(env)["variants"]["lang_inversion"]["models"]
        assert models["smollm2_135m"]["settings"]["stages"]["tune"]["recipe"]["learning_rate"] == 1e-4, env


# the number format


AUTO = {"plain": {**MODELS["plain"], "dtype": "auto"}, "other": {**MODELS["other"], "dtype": "float32"}}
FORMATS = {**BASE, "auto_dtype": None, "grid": {"gpus": 0}}


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_what_the_processor_computes_in_and_a_format_that_is_named_stays(load, monkeypatch, native):
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: native)
    loader = load(base=FORMATS, models=AUTO)
    assert loader["parameters"]["auto_dtype"] == base_of(loader, "plain")["dtype"] == ("bfloat16" if native else "float32")
    assert base_of(loader, "other")["dtype"] == "float32"


def test_points_of_a_grid_that_are_given_gpus_compute_in_bfloat16_whatever_the_machine_that_plans_them(load, monkeypatch):
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: False)
    assert base_of(load(base={**FORMATS, "grid": {"gpus": 0.5}}, models=AUTO), "plain")["dtype"] == "bfloat16"


def test_what_another_machine_settled_is_kept(load, monkeypatch):
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: True)
    assert base_of(load(base=FORMATS, models=AUTO, given={"auto_dtype": "float32"}), "plain")["dtype"] == "float32"


def test_a_one_off_format_outweighs_auto_and_may_be_auto(load, monkeypatch):
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: False)
    given = {"base_model": {"dtype": "bfloat16"}}
    assert base_of(load(base=FORMATS, models=AUTO, given=given), "plain")["dtype"] == "bfloat16"
    loader = load(base=FORMATS, given={"model": "other", "base_model": {"dtype": "auto"}})
    assert base_of(loader, "other")["dtype"] == "float32"
