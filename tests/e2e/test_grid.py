import json

from tests.project import Project


def test_a_dry_run_shows_the_plan_with_its_baselines_and_runs_nothing(project: Project) -> None:
    done = project.kedro("grid", "lang_inversion", "--conditions=fr_it,fr_fr", "--seeds=42,137", "--dry-run")
    assert done.returncode == 0, done.stderr
    rows = [line.split("│")[1:5] for line in done.stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["baseline", "42", "missing", "run"],
        ["baseline", "137", "missing", "run"],
        ["fr_it", "42", "missing", "run"],
        ["fr_it", "137", "missing", "run"],
        ["fr_fr", "42", "missing", "run"],
        ["fr_fr", "137", "missing", "run"],
    ]
    assert not list(project.folder.glob("data/0[2-8]*"))


def test_a_failing_point_stops_no_other_and_is_tried_again(project: Project) -> None:
    texts = project.folder / "data/01_raw/parallel_texts.jsonl"
    whole = texts.read_text()
    texts.write_text("\n".join(line.replace('"de": ', '"xx": ') for line in whole.splitlines()) + "\n")
    grid = ("grid", "lang_inversion", "--conditions=fr_de,fr_it", "--jobs=2")
    done = project.kedro(*grid)
    assert done.returncode == 1
    assert "1 of 3 points failed" in done.stderr
    assert "fr_de seed 42: Error: 12 of 12 source texts have no German version" in done.stderr
    spill = project.data("08_reporting/spill.csv").read_text()
    assert "fr_it," in spill
    assert "fr_de," not in spill

    texts.write_text(whole)
    done = project.kedro(*grid)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.endswith(": done")] == ["fr_de seed 42: done"]
    assert "fr_de," in project.data("08_reporting/spill.csv").read_text()


def test_a_point_of_other_parameters_is_stale_and_runs_again(planted: Project) -> None:
    changed = "--params=lang_inversion.stages.tune.recipe.learning_rate=0.002"
    done = planted.kedro("grid", "lang_inversion", "--conditions=baseline,fr_it", "--dry-run", changed)
    states = [line.split("│")[3].strip() for line in done.stdout.splitlines() if line.startswith("│")]
    assert states == ["done", "stale"]


def test_a_run_that_failed_is_not_done(planted: Project) -> None:
    file = planted.data("08_reporting/baseline/seed_42/run_record.json")
    content = file.read_text()
    file.write_text(json.dumps([{**run, "status": "failed"} for run in json.loads(content)]))
    done = planted.kedro("grid", "lang_inversion", "--conditions=baseline", "--dry-run")
    file.write_text(content)
    assert "missing" in done.stdout


def test_bad_seeds_are_named(project: Project) -> None:
    done = project.kedro("grid", "lang_inversion", "--seeds=42,x")
    assert (done.returncode, done.stderr.strip()) == (1, "Error: --seeds: x is no whole number; give some such as 42,137")
