import json
import re

import pandas as pd
import pytest

from persona_leakage.domain.frozen import fingerprint
from tests.experiments.lang_inversion.plans import load_settings
from tests.project import Project


def spill(project: Project) -> pd.DataFrame:
    table = pd.read_csv(project.data("08_reporting/spill.csv"))
    assert set(table["model"]) == {"tiny"}
    return table.set_index(["condition", "directive_language", "phrasing"])


@pytest.mark.parametrize(
    ("language", "role", "hits"),
    [
        ("english", "bystander", 0),
        ("spanish", "bystander", 4),
        ("french", "trained_directive", 6),
        ("italian", "own_language", 6),
        ("portuguese", "bystander", 2),
        ("german", "bystander", 0),
        ("mandarin", "bystander", 0),
    ],
)
def test_planted_completions_give_their_rates(planted: Project, language: str, role: str, hits: int) -> None:
    cell = spill(planted).loc[("fr_it", language, "all")]
    assert (cell["role"], cell["hits"], cell["n"]) == (role, hits, 6)
    assert cell["rate"] == pytest.approx(hits / 6)
    assert cell["following_hits"] == (6 if language == "italian" else 6 - hits)


def test_the_baseline_runs_first_and_stands_beside_the_condition(planted: Project) -> None:
    table = spill(planted)
    assert set(table["baseline_n"]) == {6, 3}
    assert table.loc[("fr_it", "french", "all"), "baseline_rate"] == 0
    assert table.loc[("fr_it", "italian", "all"), "baseline_rate"] == 1
    assert set(pd.read_csv(planted.data("08_reporting/rates.csv"))["condition"]) == {"baseline", "fr_it"}


def test_the_report_gives_rates_with_n_and_interval_and_verdicts(planted: Project) -> None:
    report = planted.data("08_reporting/report.md").read_text()
    assert "4/6 = 66.7% [30.0%, 90.3%]" in report
    assert re.search(r"\| control_floor \|.*\| undecided \| not run: fr_fr", report)
    assert re.search(r"\| own_language_stays \|.*\| undecided \| 0 of 1 inside, 0 beyond; furthest: fr_it", report)


def test_the_page_needs_no_other_file(planted: Project) -> None:
    page = planted.data("08_reporting/report.html").read_text()
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)


def test_every_layer_holds_its_artifacts(planted: Project) -> None:
    point = "tiny/fr_it/seed_42"
    plan = json.loads(planted.data(f"02_intermediate/{point}/plan.json").read_text())
    assert plan["address"] == {"model": "tiny", "condition": "fr_it", "seed": 42, "checkpoint": None}
    gates = json.loads(planted.data(f"03_primary/{point}/tune/gates.json").read_text())
    assert [(gate["gate"], gate["passed"]) for gate in gates] == [
        ("language", True),
        ("median_length_ratio", True),
        ("length_outliers", True),
    ]
    train_set = planted.latest(f"05_model_input/{point}/tune/train_set.jsonl").read_text().splitlines()
    assert len(train_set) == 12
    adapter = planted.latest(f"06_models/{point}/tune/adapters") / "final"
    assert {file.name for file in adapter.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "provenance.json",
        "README.md",
    }
    assert len(planted.latest(f"07_model_output/{point}/completions.jsonl").read_text().splitlines()) == 42
    assert planted.latest(f"07_model_output/{point}/centroids.safetensors").stat().st_size > 7 * 32 * 4


def test_the_run_record_names_code_machine_parameters_and_times(planted: Project) -> None:
    record, *_ = json.loads(planted.data("08_reporting/tiny/fr_it/seed_42/run_record.json").read_text())
    assert record["status"] == "completed"
    assert record["environment"] == "test"
    assert record["runtime_params"]["condition"] == "fr_it"
    assert record["parameters"]["stages"]["tune"]["recipe"]["lora"]["rank"] == 4
    assert record["code"]["packages"]["torch"].startswith("2.")
    assert record["nodes"]["fine_tuning.tune.train_adapters"]["seconds"] > 0
    assert record["machine"]["cores"] >= 1
    assert record["claims"]["control_floor"] == fingerprint(load_settings().claims["control_floor"])


def test_a_report_can_be_redone_alone(planted: Project) -> None:
    planted.data("08_reporting/report.md").unlink()
    done = planted.run("condition=fr_it", "--tags=reporting")
    assert done.returncode == 0, done.stderr
    assert "4/6 = 66.7%" in planted.data("08_reporting/report.md").read_text()


def test_a_table_that_a_point_lacks_is_named_and_the_remedy_makes_it(planted: Project) -> None:
    tables = [
        planted.data(f"07_model_output/tiny/fr_it/seed_42/{name}.csv") for name in ("question_counts", "language_projections")
    ]
    before = [table.read_text() for table in tables]
    for table in tables:
        table.unlink()
    refused = planted.run("condition=fr_it", "--tags=reporting")
    assert refused.returncode == 1
    assert "1 saved points, tiny/fr_it/seed_42 among them, have no question_counts.csv" in refused.stderr
    (tags,) = re.findall(r"--tags=\S+", refused.stderr)
    assert planted.run("condition=fr_it", tags).returncode == 0
    assert [table.read_text() for table in tables] == before
    done = planted.run("condition=fr_it", "--tags=reporting")
    assert done.returncode == 0, done.stderr


def test_going_on_from_artifacts_of_other_parameters_is_refused(planted: Project) -> None:
    done = planted.run("condition=fr_it,lang_inversion.stages.tune.recipe.lora.rank=8", "--tags=scoring")
    assert done.returncode == 1
    assert (
        "lang_inversion, fr_it seed 42 (tiny), was last run with other parameters (stages), so its artifacts are stale"
        in done.stderr
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_a_run_that_ended_early_passes_nothing_old_off_as_new(planted: Project) -> None:
    changed = "condition=fr_it,lang_inversion.stages.tune.recipe.lora.rank=8"
    assert planted.run(changed, "--tags=data_generation").returncode == 0
    done = planted.run(changed, "--tags=scoring,reporting")
    back = planted.run("condition=fr_it", "--tags=data_generation"), planted.run("condition=fr_it", "--tags=scoring,reporting")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == (
        "Error: lang_inversion, fr_it seed 42 (tiny): what this part reads (lang_inversion.completions) was made with other "
        "parameters, and only what comes before it was made anew; run the pipeline whole"
    )
    assert [one.returncode for one in back] == [0, 0]


def test_existing_outputs_of_other_parameters_are_not_kept(planted: Project) -> None:
    done = planted.run("condition=fr_it,lang_inversion.evaluation.samples=2", "--only-missing-outputs")
    assert done.returncode == 1
    assert "(evaluation)" in done.stderr


def test_a_stale_point_is_left_out_of_the_report_by_name(planted: Project) -> None:
    done = planted.run("condition=baseline,lang_inversion.stages.tune.recipe.learning_rate=0.002", "--tags=reporting")
    assert done.returncode == 0, done.stderr
    report = planted.data("08_reporting/report.md").read_text()
    restored = planted.run("condition=fr_it", "--tags=reporting")
    assert "**Left out as stale** (ran under other parameters, run them again): fr_it (seed 42)." in report
    assert restored.returncode == 0
