"""Two base models in one grid and one report, under names that look like something else and parameters that are nothing."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.commands import Done, run_all
from tests.e2e.conftest import PLANTED
from tests.project import Project

pytestmark = pytest.mark.slow

# conditions whose names YAML, Kedro and pandas would each take for something else
NAMES = """
lang_inversion:
  conditions:
    "001": {directive: spanish, completion: italian}
    "True": {directive: german, completion: italian}
  scoring:
    judge: {model: claude-test, temperature: 0.0, max_tokens: 512, shows_directive: false}
"""
OVERRIDES = "lang_inversion.evaluation.samples=2,lang_inversion.evaluation.sampling.top_p=0.5,lang_inversion.scoring.judge=null"
GRID = ["grid", "lang_inversion", "--params", OVERRIDES, "--keep-engines", "--axes"]
BOTH = [*GRID, "model=tiny,tiny_too", "condition=fr_it,001"]
POINTS = [(model, condition) for model in ("tiny", "tiny_too") for condition in ("baseline", "fr_it", "001")]


def stage(params: str) -> list[str]:
    return ["run", "--pipeline=scoring", "--params", f"family=lang_inversion,{params},{OVERRIDES}"]


def states(done: Done) -> dict[tuple[str, str], str]:
    """Read (model, condition) → state off the table of a grid."""
    rows = [[cell.strip() for cell in line.split("│")[1:6]] for line in done.stdout.splitlines() if line.startswith("│")]
    return {(row[0], row[1]): row[3] for row in rows}


class Finished:
    """A run of one model, a grid of two, what each sees of the other, and stages of a point alone."""

    def __init__(self, project: Project) -> None:
        self.project = project
        (project.folder / "conf/test/catalog.yml").write_text(PLANTED)
        (project.folder / "conf/test/parameters_names.yml").write_text(NAMES)
        commands = {
            "run": ["run", "--pipeline=lang_inversion", "--params", f"condition=001,{OVERRIDES}"],
            "before": [*BOTH, "--dry-run"],
            "grid": BOTH,
            "after": [*BOTH, "--dry-run"],
            "alone": [*GRID, "condition=fr_it", "--dry-run"],
            "stage": stage("condition=001,model=tiny_too"),
            "stage of nothing": stage("condition=it_fr"),
            "stage of no family": ["run", "--pipeline=scoring", "--params", "family=lang_inversoin"],
            "axis": [*GRID, "condition=True", "--dry-run"],
            "plan": ["run", "--pipeline=lang_inversion", "--params", "condition=True", "--to-nodes=data_generation.plan_point"],
            "default": ["run", "--pipeline=marker_leakage", "--to-nodes=data_generation.plan_point"],
        }
        self.done = dict(zip(commands, run_all(project, list(commands.values())), strict=True))
        self.left = {name: self.file(f"08_reporting/{name}") for name in ("report.md", "rates.csv")}

    def file(self, path: str) -> str:
        return self.project.data(path).read_text()

    def plan(self, model: str, condition: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.file(f"02_intermediate/{model}/{condition}/seed_42/plan.json"))
        return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Finished:
    return Finished(Project(tmp_path_factory.mktemp("models") / "project", tiny_model_folder))


def test_every_command_that_should_ends_well(finished: Finished) -> None:
    wrong = {name for name, done in finished.done.items() if done.code}
    assert wrong == {"stage of nothing", "stage of no family"}, {name: finished.done[name].stderr for name in wrong}


def test_overrides_under_one_key_and_nothing_reach_every_process(finished: Finished) -> None:
    said = finished.done["run"].stdout
    assert "baseline seed 42 (tiny) has not run with these parameters; running it first" in said
    begins = (
        r"^tiny computes in float32, on a processor that has (no )?instructions for bfloat16: 2 points, how long is not known"
    )
    assert re.search(begins, said, re.MULTILINE)
    for model, condition in POINTS:
        plan = finished.plan(model, condition)
        assert plan["evaluation"]["samples"] == 2  # type: ignore[index]
        assert plan["evaluation"]["sampling"]["top_p"] == 0.5  # type: ignore[index]
        assert plan["scoring"]["judge"] is None  # type: ignore[index]


def test_a_name_that_looks_like_a_number_or_a_truth_stays_as_it_is_written(finished: Finished) -> None:
    for model, condition in POINTS:
        assert finished.plan(model, condition)["address"] == {
            "model": model,
            "condition": condition,
            "seed": 42,
            "checkpoint": None,
        }
    assert states(finished.done["axis"]) == {("tiny", "baseline"): "done", ("tiny", "True"): "missing"}
    assert finished.plan("tiny", "True")["address"]["condition"] == "True"  # type: ignore[index]


def test_neither_model_makes_the_other_stale(finished: Finished) -> None:
    before, after = states(finished.done["before"]), states(finished.done["after"])
    ran = {("tiny", "baseline"), ("tiny", "001")}
    assert before == {point: "done" if point in ran else "missing" for point in before}
    assert set(before) == set(after) == set(POINTS)
    assert set(after.values()) == {"done"}
    assert states(finished.done["alone"]) == {("tiny", "baseline"): "done", ("tiny", "fr_it"): "done"}
    weights = {
        model: finished.project.latest(f"07_model_output/{model}/baseline/seed_42/centroids.safetensors").read_bytes()
        for model in ("tiny", "tiny_too")
    }
    assert weights["tiny"] != weights["tiny_too"]


def test_one_report_has_both_models_and_every_name(finished: Finished) -> None:
    rates = pd.read_csv(finished.project.data("08_reporting/rates.csv"), dtype=str, keep_default_na=False)
    assert set(zip(rates["model"], rates["condition"], strict=True)) == set(POINTS)
    assert set(rates["stale"]) == {"False"}
    spill = pd.read_csv(finished.project.data("08_reporting/spill.csv"), dtype=str, keep_default_na=False)
    pooled = spill[(spill["phrasing"] == "all") & (spill["directive_language"] == "spanish")]
    found = {(row.model, row.condition): (row.hits, row.n, row.baseline_n) for row in pooled.itertuples()}
    assert found == {(model, name): ("4", "4", "4") for model in ("tiny", "tiny_too") for name in ("fr_it", "001")}
    report = finished.left["report.md"]
    for model, condition in POINTS:
        assert f"{condition} ({model})" in report
    assert "Left out as stale" not in report


def test_all_runs_of_both_models_are_in_one_table(finished: Finished) -> None:
    runs = pd.read_csv(finished.project.data("08_reporting/runs.csv"), dtype=str)
    assert set(zip(runs["model"], runs["condition"], strict=True)) == set(POINTS)


# a stage alone


def test_a_stage_of_a_point_runs_alone(finished: Finished) -> None:
    record = json.loads(finished.file("08_reporting/tiny_too/001/seed_42/run_record.json"))[-1]
    assert record["status"] == "completed"
    assert {name.split(".")[0] for name in record["nodes"]} == {"scoring"}


def test_a_stage_whose_inputs_are_not_there_says_what_it_needs(finished: Finished) -> None:
    for name, said in (
        ("stage of nothing", "it_fr/seed_42"),
        ("stage of no family", "--params: there is no family 'lang_inversoin'; known: "),
    ):
        last = finished.done[name].stderr.splitlines()[-1]
        assert last.startswith("Error: ")
        assert said in last
    assert "run the pipeline whole" in finished.done["stage of nothing"].stderr.splitlines()[-1]


def test_a_pipeline_without_a_condition_takes_its_own_familys_default(finished: Finished) -> None:
    plan = finished.project.folder / "data/02_intermediate/test/marker_leakage/tiny/villain/seed_42/plan.json"
    assert json.loads(plan.read_text())["scoring"]["source"] == "villain"


# another folder


def test_a_folder_inside_the_project_means_the_project(finished: Finished) -> None:
    folder = finished.project.folder / "notebooks"
    folder.mkdir()
    done = finished.project.kedro(*BOTH, "--dry-run", within="notebooks")
    assert done.returncode == 0, done.stderr
    assert set(states(Done(0, done.stdout, "")).values()) == {"done"}
    point = finished.project.kedro(
        "run", "--pipeline=lang_inversion", "--params", f"condition=it_fr,{OVERRIDES}", within="notebooks"
    )
    assert point.returncode == 0, point.stderr
    assert finished.project.data("07_model_output/tiny/it_fr/seed_42/cell_rates.csv").is_file()
    assert list(folder.iterdir()) == []
