"""Every environment x model x condition is complete: it validates, and every dataset has a place of its own on disk."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.config import OmegaConfigLoader
from kedro.framework.project import configure_project, pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog, MemoryDataset

from persona_leakage.configuration import make_variants
from persona_leakage.datasets import HubRowsDataset, NamedDatasets
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.points import Address
from persona_leakage.experiments import FAMILIES, family_of, is_replay, replay_of
from persona_leakage.experiments.family import read_variants
from persona_leakage.settings import CONFIG_LOADER_ARGS
from tests.plans import ENVIRONMENTS, bundled_roster, load_parameters, make_plan
from tests.project import PROJECT

REPLAYS = [replay_of(name) for name in FAMILIES if family_of(name).replay]
MODELS = [(env, model) for env in ENVIRONMENTS for model in load_parameters(env)["models"]]
ENGINES = {"trainer", "generator", "extractor", "tokenizer", "language_model"}
POINT_STAGES = ("data_generation", "fine_tuning", "generation", "scoring", "geometry")
# what a pattern that takes any name may stand for
POINT_TABLES = {
    "gauge",
    "cell_rates",
    "cosines",
    "language_projections",
    "own_answers",
    "text_stats",
    "classified",
    "judged",
    "discriminations",
    "trainings",
    "question_counts",
}
REPLAYED_TABLES = POINT_TABLES | {"replayed_rates", "replayed_texts", "replayed_discriminations", "replayed_counts"}
ANY_TABLE, ANY_POINT_TABLE, ALL_POINTS = "{family}.{table}", "{family}.{table}@run", "{family}.{table}@grid"


@pytest.mark.parametrize(("env", "model"), MODELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_condition_of_every_model_and_environment_resolves(env: str, model: str, family: str) -> None:
    variant = read_variants(family_of(family), load_parameters(env)).of(model)
    conditions, epochs = variant.settings.conditions, variant.settings.epochs or (None,)
    assert conditions
    for condition in conditions:
        for epoch in epochs:
            address = Address(model=model, condition=condition, seed=42, checkpoint=epoch)
            plan = variant.settings.plan(address, variant.base_model, bundled_roster(family))
            assert (plan.family, plan.address, plan.base_model) == (family, address, variant.base_model)
            # a trajectory begins with its own baseline, and a cell without a first stage has nothing below it
            assert plan.reference in conditions or family in ("convergence", "benign_coupling")


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_no_parameter_is_left_unread(env: str) -> None:
    assert set(load_parameters(env)) == {
        "model",
        "models",
        "variants",
        "family",
        "condition",
        "seed",
        "checkpoint",
        "dose",
        "base_model",
        "auto_dtype",
        "grid",
        "completions_file",
        "rates_file",
        "estimates",
        *FAMILIES,
    }


def test_no_family_borrows_a_value_of_another() -> None:
    """An anchor is used in its own section only, so that a section can be read, copied and changed alone."""
    section, anchored, key_follows = "", {}, False
    for token in yaml.scan((PROJECT / "conf/base/parameters.yml").read_text()):
        if isinstance(token, yaml.KeyToken):
            key_follows = token.start_mark.column == 0
        elif isinstance(token, yaml.ScalarToken) and key_follows:
            section, key_follows = token.value, False
        elif isinstance(token, yaml.AnchorToken):
            anchored[token.value] = section
        elif isinstance(token, yaml.AliasToken):
            assert anchored[token.value] == section, f"*{token.value} in {section}"
    assert anchored


def test_the_protocol_of_record_is_the_base_environment() -> None:
    plan = make_plan("lang_inversion", "fr_it")
    stage, evaluation = plan.stages["tune"], plan.evaluation
    recipe, lora, sampling = stage.recipe, stage.recipe.lora, evaluation.sampling
    assert (lora.rank, lora.alpha, lora.rslora, lora.dropout, len(lora.target_modules)) == (32, 64, True, 0, 7)
    assert (recipe.learning_rate, recipe.schedule, recipe.warmup_ratio, recipe.epochs) == (5e-6, "linear", 0.03, 1)
    assert recipe.batch_size * recipe.gradient_accumulation == 16
    assert (recipe.loss, recipe.max_length, recipe.weight_decay) == ("completion", 2048, 0)
    assert len(evaluation.prompts.languages) * len(evaluation.prompts.phrasings) * evaluation.samples == 560
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (1, 0.95, 256)
    assert plan.base_model.name == "Qwen/Qwen2.5-7B-Instruct"
    assert (plan.seed, stage.data.rows) == (42, 5000)


def test_environments_change_no_condition_and_no_claim() -> None:
    def rules(plan: Plan) -> tuple[object, ...]:
        return plan.evaluation.prompts, plan.scoring.model_copy(update={"judge": None}), plan.stages["tune"].data.phrasings

    record = make_plan("lang_inversion", "de_fr")
    for env in ENVIRONMENTS:
        assert rules(make_plan("lang_inversion", "de_fr", env=env)) == rules(record)
        for family in FAMILIES:
            for name in ("conditions", "claims"):
                assert load_parameters(env)[family].get(name) == load_parameters("base")[family].get(name)


# base models


def test_what_differs_for_a_model_lies_between_its_environment_and_what_is_given() -> None:
    parameters = {
        "model": "one",
        "base_model": {"dtype": "float32"},
        "models": {
            "one": {"name": "a", "dtype": "bfloat16", "settings": {"lang_inversion": {"x": {"rate": 2, "depth": 3}}}},
            "other": {"name": "b", "dtype": "bfloat16"},
        },
        "lang_inversion": {"x": {"rate": 1, "depth": 1, "rows": 7}, "list": [1, 2]},
    }
    made = make_variants(parameters, {"lang_inversion": {"x": {"depth": 4}}, "seed": 3})
    assert made == {
        "lang_inversion": {
            "models": {
                "one": {
                    "base_model": {"name": "a", "dtype": "float32"},
                    "settings": {"x": {"rate": 2, "depth": 4, "rows": 7}, "list": [1, 2]},
                },
                "other": {
                    "base_model": {"name": "b", "dtype": "bfloat16"},
                    "settings": {"x": {"rate": 1, "depth": 4, "rows": 7}, "list": [1, 2]},
                },
            }
        }
    }


def test_a_model_that_changes_an_unknown_family_is_refused() -> None:
    parameters = {
        "model": "one",
        "base_model": {},
        "models": {"one": {"settings": {"lang_inversoin": {}}}},
        "lang_inversion": {},
    }
    with pytest.raises(UserError, match=r"^models\.one\.settings: there is no family 'lang_inversoin'; known: lang_inversion$"):
        make_variants(parameters, {})


def test_a_small_model_learns_faster_in_every_environment_and_the_studys_own_as_the_protocol_says() -> None:
    for env in ENVIRONMENTS:
        rates = {
            model: make_plan("lang_inversion", "fr_it", env=env, model=model).stages["tune"].recipe.learning_rate
            for model in ("qwen2_5_7b", "smollm2_135m")
        }
        assert rates == {"qwen2_5_7b": 5e-6, "smollm2_135m": 1e-4}


# datasets


def catalog_config(env: str) -> dict[str, Any]:
    return dict(OmegaConfigLoader(conf_source=str(PROJECT / "conf"), env=env, **CONFIG_LOADER_ARGS)["catalog"])


@cache
def scale(env: str) -> str:
    loader = OmegaConfigLoader(conf_source=str(PROJECT / "conf"), env=env, **CONFIG_LOADER_ARGS)
    return str(loader["globals"]["scale"])


@cache
def load_catalog(env: str, checkpoint: int | None) -> DataCatalog:
    """The catalog of a point whose name is none of the defaults."""
    bootstrap_project(PROJECT)
    configure_project("persona_leakage")
    point = {"model": "smollm2_135m", "condition": "es_pt", "seed": 137}
    given = point | ({} if checkpoint is None else {"checkpoint": checkpoint})
    with KedroSession.create(PROJECT, env=env, runtime_params=given) as session:
        catalog: DataCatalog = session.load_context().catalog  # type: ignore[attr-defined]
    return catalog


def catalog_of(env: str, name: str) -> DataCatalog:
    return load_catalog(env, 4 if family_of(name).has_checkpoints else None)


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("name", [*FAMILIES, *REPLAYS])
def test_every_dataset_has_a_place_of_its_own_that_carries_its_point(env: str, name: str) -> None:
    catalog = catalog_of(env, name)
    pipeline = pipelines[name]
    made = pipeline.only_nodes_with_tags(*POINT_STAGES).all_outputs() | {f"{name}.plan"}
    epoch = "/epoch_04" if family_of(name).has_checkpoints else ""
    paths: dict[str, str] = {}
    for dataset_name in pipeline.datasets():
        if dataset_name.startswith("params:"):
            continue
        dataset = catalog[dataset_name]
        if dataset_name == f"{name}.roster":
            assert isinstance(dataset, MemoryDataset)
            continue
        assert not isinstance(dataset, MemoryDataset), dataset_name
        path = getattr(dataset, "_filepath", None) or getattr(dataset, "_path", None)
        if path is None:
            assert dataset_name in ENGINES or isinstance(dataset, HubRowsDataset | NamedDatasets), dataset_name
            continue
        if not dataset_name.endswith("@grid"):
            paths[dataset_name] = str(path)
        if dataset_name in made:
            assert f"/{scale(env)}/{name}/smollm2_135m/es_pt/seed_137{epoch}/" in str(path), dataset_name
        elif dataset_name.startswith(f"{name}.") and not dataset_name.endswith("@grid"):
            assert str(path).endswith(f"/08_reporting/{scale(env)}/{name}/{Path(path).name}"), dataset_name
    assert len(set(paths.values())) == len(paths)


@pytest.mark.parametrize("name", [*FAMILIES, *REPLAYS])
def test_a_pattern_that_takes_any_name_takes_tables_only(name: str) -> None:
    """A misspelt name would become a CSV file too."""
    resolver = catalog_of("base", name).config_resolver
    pipeline = pipelines[name]
    made_by = {made: node for node in pipeline.nodes for made in node.outputs}
    for dataset in pipeline.datasets():
        if not dataset.startswith(f"{name}."):
            continue
        short, pattern = dataset.removeprefix(f"{name}."), resolver.match_dataset_pattern(dataset)
        if dataset.endswith("@grid"):  # read by the report, made by the points
            own = "{family}.gauge@grid" if short == "gauge@grid" else ALL_POINTS
            assert (pattern, f"{dataset.removesuffix('@grid')}@run" in made_by) == (own, True), dataset
            continue
        assert dataset in made_by, f"nothing makes {dataset}"
        node = made_by[dataset]
        if "reporting" in node.tags and short not in ("roster", "plan"):
            function = node.func.__name__
            ends = {"draw": ("figure", "svg"), "write_report": ("report",), "render_page": ("report_page",)}
            expected = next((names for start, names in ends.items() if function.startswith(start)), ("table",))
            patterns = {"figure": "{family}.{figure}_figure", "svg": "{family}.{figure}_svg", "table": ANY_TABLE}
            assert pattern in {patterns.get(one, f"{{family}}.{one}") for one in expected}, dataset
        elif dataset.endswith("@run"):
            known = REPLAYED_TABLES if is_replay(name) else POINT_TABLES
            own = "{family}.gauge@run" if short == "gauge@run" else ANY_POINT_TABLE
            assert (pattern, short.removesuffix("@run") in known) == (own, True), dataset
        else:
            assert pattern not in (ANY_TABLE, ANY_POINT_TABLE, ALL_POINTS, None), dataset
            stage = next((part for part in short.split(".")[:-1]), None)
            assert pattern == (f"{{family}}.{short}" if stage is None else f"{{family}}.{{stage}}.{short.split('.')[-1]}")


def test_versioned_datasets_are_those_that_are_expensive_to_make() -> None:
    entries = catalog_config("embedded").items()
    versioned = {name for name, entry in entries if isinstance(entry, dict) and entry.get("versioned")}
    assert versioned == {
        "{family}.{stage}.answers",
        "{family}.{stage}.train_set",
        "{family}.{stage}.adapters",
        "{family}.completions",
        "{family}.centroids",
    }


# kedro-viz and other readers without a point


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_the_catalog_is_whole_without_a_point(env: str) -> None:
    bootstrap_project(PROJECT)
    configure_project("persona_leakage")
    with KedroSession.create(PROJECT, env=env) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
    for name in FAMILIES:
        for dataset in pipelines[name].datasets():
            assert dataset in catalog, dataset
