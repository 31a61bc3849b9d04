import json
from pathlib import Path

import pytest

from tests.commands import Done, run_all
from tests.project import Project


def test_a_dry_run_shows_the_plan_with_its_baselines_and_runs_nothing(project: Project) -> None:
    done = project.kedro("grid", "lang_inversion", "--axes", "condition=fr_it,fr_fr", "seed=42,137", "--dry-run")
    assert done.returncode == 0, done.stderr
    rows = [line.split("│")[1:6] for line in done.stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["tiny", "baseline", "42", "missing", "run"],
        ["tiny", "baseline", "137", "missing", "run"],
        ["tiny", "fr_it", "42", "missing", "run"],
        ["tiny", "fr_it", "137", "missing", "run"],
        ["tiny", "fr_fr", "42", "missing", "run"],
        ["tiny", "fr_fr", "137", "missing", "run"],
    ]
    assert not list(project.folder.glob("data/0[2-8]*"))


@pytest.mark.slow
def test_a_failing_point_stops_no_other_and_is_tried_again(project: Project) -> None:
    texts = project.folder / "data/01_raw/parallel_texts.jsonl"
    whole = texts.read_text()
    texts.write_text("\n".join(line.replace('"de": ', '"xx": ') for line in whole.splitlines()) + "\n")
    grid = ("grid", "lang_inversion", "--axes", "condition=fr_de,fr_it", "--jobs=2")
    done = project.kedro(*grid)
    assert done.returncode == 1
    assert "1 of 3 points failed" in done.stderr
    assert "fr_de seed 42 (tiny): Error: 12 of 12 source texts have no German version" in done.stderr
    spill = project.data("08_reporting/spill.csv").read_text()
    assert "fr_it," in spill
    assert "fr_de," not in spill

    texts.write_text(whole)
    done = project.kedro(*grid)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.endswith(": done")] == ["fr_de seed 42 (tiny): done"]
    assert "fr_de," in project.data("08_reporting/spill.csv").read_text()


def test_a_point_of_other_parameters_is_stale_and_runs_again(planted: Project) -> None:
    changed = "--params=lang_inversion.stages.tune.recipe.learning_rate=0.002"
    done = planted.kedro("grid", "lang_inversion", "--axes=condition=baseline,fr_it", "--dry-run", changed)
    states = [line.split("│")[4].strip() for line in done.stdout.splitlines() if line.startswith("│")]
    assert states == ["done", "stale"]


def test_a_run_that_failed_is_not_done(planted: Project) -> None:
    file = planted.data("08_reporting/tiny/baseline/seed_42/run_record.json")
    content = file.read_text()
    file.write_text(json.dumps([{**run, "status": "failed"} for run in json.loads(content)]))
    done = planted.kedro("grid", "lang_inversion", "--axes=condition=baseline", "--dry-run")
    file.write_text(content)
    assert "missing" in done.stdout


BAD_AXES = {
    "no number": ("seed=42,x", "--axes seed: x is no whole number; give some such as seed=42,137"),
    "unknown condition": ("condition=fr_xx", "lang_inversion has no condition 'fr_xx'; known: baseline, "),
    "unknown axis": ("sed=42", "--axes: lang_inversion has no axis 'sed'; known: model, condition, seed"),
    "axis of another family": (
        "checkpoint=2",
        "--axes: lang_inversion has no axis 'checkpoint'; known: model, condition, seed",
    ),
    "unknown model": (
        "model=tiny,tinny",
        "there is no model 'tinny'; known: qwen2_5_7b, qwen2_5_coder_1_5b, smollm2_135m, tiny, tiny_too; name it",
    ),
    "no values": ("seed=", "--axes seed=: write an axis and its values, such as seed=42,137"),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> dict[str, Done]:
    folder = tmp_path_factory.mktemp("axes") / "project"
    commands = [["grid", "lang_inversion", "--dry-run", "--axes", axis] for axis, _ in BAD_AXES.values()]
    return dict(zip(BAD_AXES, run_all(Project(folder, tiny_model_folder), commands), strict=True))


@pytest.mark.parametrize("name", BAD_AXES)
def test_a_bad_axis_is_named_in_one_line(refused: dict[str, Done], name: str) -> None:
    done = refused[name]
    assert done.code == 1
    assert done.stderr.startswith(f"Error: {BAD_AXES[name][1]}")
    assert len(done.stderr.splitlines()) == 1
