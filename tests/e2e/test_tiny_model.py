"""The real engines from end to end, on a random model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import PROJECT, Project

NO_REPORT = "--tags=data_generation,fine_tuning,generation,geometry,scoring"


def completions(project: Project, seed: int) -> list[str]:
    file = project.latest(f"07_model_output/tiny/fr_it/seed_{seed}/completions.jsonl")
    return [json.loads(line)["completion"] for line in file.read_text().splitlines()]


def labels(project: Project, seed: int) -> list[tuple[str, str]]:
    file = project.data(f"07_model_output/tiny/fr_it/seed_{seed}/labels.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [(row["label"], row["cross_check"]) for row in rows]


def fingerprint(project: Project) -> str:
    adapters = project.latest("06_models/tiny/fr_it/seed_42/tune/adapters")
    return json.loads((adapters / "final/provenance.json").read_text())["fingerprint"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Project:
    project = Project(tmp_path_factory.mktemp("finished") / "project", tiny_model_folder)
    done = project.run("condition=fr_it")
    assert done.returncode == 0, done.stderr
    return project


def test_the_same_seed_gives_the_same_completions_and_another_seed_others(finished: Project, project: Project) -> None:
    again = project.run("condition=fr_it", NO_REPORT)
    other = project.run("condition=fr_it,seed=7", NO_REPORT)
    assert again.returncode == other.returncode == 0, again.stderr + other.stderr
    assert len(completions(finished, 42)) == 42
    assert completions(project, 42) == completions(finished, 42)
    assert labels(project, 42) == labels(finished, 42)
    assert completions(project, 7) != completions(finished, 42)


def test_a_rerun_trains_and_samples_nothing_again_and_a_changed_recipe_does(finished: Project) -> None:
    first = fingerprint(finished)
    weights = sorted(finished.folder.glob("data/cache/adapters/*/final/adapter_model.safetensors"))
    rerun = finished.run("condition=fr_it", NO_REPORT)
    assert rerun.returncode == 0
    assert "nothing to train" in rerun.stdout
    assert "were sampled before" in rerun.stdout
    assert fingerprint(finished) == first

    changed = finished.run("condition=fr_it,lang_inversion.stages.tune.recipe.lora.rank=2", NO_REPORT)
    assert changed.returncode == 0
    assert fingerprint(finished) != first
    assert len(sorted(finished.folder.glob("data/cache/adapters/*/final/adapter_model.safetensors"))) == len(weights) + 1


def test_a_model_that_is_missing_is_told_with_what_makes_it(project: Project) -> None:
    (project.folder / "data/test_model").unlink()
    done = project.run("condition=baseline", NO_REPORT)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "Error: there is no model in the folder data/test_model; make it with: python -m tests.tiny_model data/test_model"
    )


def test_the_command_makes_the_model(tmp_path: Path, tiny_model_folder: Path) -> None:
    weights = {}
    for seed, name in (("0", "model"), ("1", "other_model")):
        command = [sys.executable, "-m", "tests.tiny_model", str(tmp_path / name), seed]
        subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
        assert weights[name] == (tiny_model_folder.parent / name / "model.safetensors").read_bytes()
    assert weights["model"] != weights["other_model"]


def test_a_truncated_adapter_is_refused_by_name(finished: Project) -> None:
    weights = finished.latest("06_models/tiny/fr_it/seed_42/tune/adapters") / "final/adapter_model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[: len(content) // 2])
    done = finished.run(
        "condition=fr_it,lang_inversion.stages.tune.recipe.lora.rank=2", "--from-nodes=fine_tuning.tune.extend_stack"
    )
    assert done.returncode == 1
    assert "adapter_model.safetensors is truncated" in done.stderr
    assert str(weights.parent) in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
