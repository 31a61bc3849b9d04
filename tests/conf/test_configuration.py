"""Every environment x condition is complete: it validates, and every dataset has a place of its own on disk."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.project import configure_project
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import MemoryDataset

from persona_leakage.datasets import HubRowsDataset
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import FAMILIES, family_module
from persona_leakage.experiments.points import plan_from_parameters
from persona_leakage.settings import CONFIG_LOADER_ARGS
from tests.plans import load_source
from tests.project import PROJECT

ENVIRONMENTS = sorted(folder.name for folder in (PROJECT / "conf").iterdir() if (folder / "globals.yml").is_file())


@cache
def parameters(env: str) -> dict[str, Any]:
    return dict(OmegaConfigLoader(conf_source=str(PROJECT / "conf"), env=env, **CONFIG_LOADER_ARGS)["parameters"])


def conditions(family: str) -> list[str]:
    return list(family_module(family).Settings.model_validate(parameters("base")[family]).conditions)


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize(("family", "condition"), [(name, condition) for name in FAMILIES for condition in conditions(name)])
def test_every_condition_of_every_environment_resolves(env: str, family: str, condition: str) -> None:
    plan = plan_from_parameters(family, parameters(env), load_source, condition=condition)
    assert plan.condition == condition
    # a trajectory begins with its own baseline, and a cell without a first stage has nothing below it
    assert plan.reference in conditions(family) or family in ("convergence", "benign_coupling")


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_no_parameter_is_left_unread(env: str) -> None:
    assert set(parameters(env)) == {
        "condition",
        "seed",
        "checkpoint",
        "base_model",
        "grid",
        "completions_file",
        "rates_file",
        "estimates",
        *FAMILIES,
    }


def test_the_protocol_of_record_is_the_base_environment() -> None:
    plan = plan_from_parameters("lang_inversion", parameters("base"), load_source, condition="fr_it")
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

    record = plan_from_parameters("lang_inversion", parameters("base"), load_source, condition="de_fr")
    for env in ENVIRONMENTS:
        assert rules(plan_from_parameters("lang_inversion", parameters(env), load_source, condition="de_fr")) == rules(record)
        assert parameters(env)["lang_inversion"]["claims"] == parameters("base")["lang_inversion"]["claims"]


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_dataset_has_a_place_that_carries_its_point(env: str, family: str) -> None:
    bootstrap_project(PROJECT)
    configure_project("persona_leakage")
    pipeline = family_module(family).create_pipeline()
    with KedroSession.create(PROJECT, env=env, runtime_params={"condition": "es_pt", "seed": 137}) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
    scale = parameters_scale(env)
    paths: dict[str, str] = {}
    point_outputs = pipeline.only_nodes_with_tags("data_generation", "fine_tuning", "generation", "scoring", "geometry")
    for name in pipeline.datasets():
        if name.startswith("params:"):
            continue
        assert name in catalog, f"{name} matches no catalog entry"
        dataset = catalog[name]
        assert not isinstance(dataset, MemoryDataset)
        path = getattr(dataset, "_filepath", None) or getattr(dataset, "_path", None)
        if path is None:
            assert name in {"trainer", "generator", "extractor", "tokenizer", "language_model"} or isinstance(
                dataset, HubRowsDataset
            )
            continue
        if not name.endswith("@grid"):
            paths[name] = str(path)
        if name in point_outputs.all_outputs():
            assert f"/{scale}/{family}/es_pt/seed_137/" in str(path), name
        elif name.startswith(family) and not name.endswith("@grid"):
            assert f"/{scale}/{family}/{Path(path).name}" in str(path), name
    assert len(set(paths.values())) == len(paths)


def parameters_scale(env: str) -> str:
    loader = OmegaConfigLoader(conf_source=str(PROJECT / "conf"), env=env, **CONFIG_LOADER_ARGS)
    return str(loader["globals"]["scale"])


def test_versioned_datasets_are_those_that_are_expensive_to_make() -> None:
    loader = OmegaConfigLoader(conf_source=str(PROJECT / "conf"), env="embedded", **CONFIG_LOADER_ARGS)
    versioned = {name for name, entry in loader["catalog"].items() if isinstance(entry, dict) and entry.get("versioned")}
    assert versioned == {
        "{family}.{stage}.answers",
        "{family}.{stage}.train_set",
        "{family}.{stage}.adapters",
        "{family}.completions",
        "{family}.centroids",
        "benign_coupling_replay.completions",
    }
