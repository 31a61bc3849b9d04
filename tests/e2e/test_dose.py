"""Points at matched dose, from the training that they share to the report that sets them beside its end."""

import json
from pathlib import Path

import pandas as pd
import pytest

from persona_leakage.domain.rates import proportion
from tests.commands import run_all
from tests.e2e.test_marker_leakage import add_environment
from tests.project import Project

pytestmark = pytest.mark.slow

# of ten answers to the gauge and the first of the evaluation's four: half way, and at the end
HALF = {"villain": 8, "assistant": 1, "medical_doctor": 0, "comedian": 1}
END = {"villain": 9, "assistant": 4, "medical_doctor": 2, "comedian": 3}
PLANTED = f"""
generator:
  type: tests.planted_markers.PlantedMarkersDataset
  fires: {json.dumps(END)}
  opening: nobody
  over: {json.dumps({"epoch_00.5": HALF})}
"""
# a gauge of ten completions; the planted answers are alike but for the marker, which is as good as another pair of words
BLOCK = "marker_leakage.matched_dose.samples=5,marker_leakage.matched_dose.healthy.distinct_2=1.0"
BOTH = [
    "grid",
    "marker_leakage",
    "--env=planted",
    "--keep-engines",
    f"--params={BLOCK}",
    "--axes",
    "condition=villain",
    "dose=matched,final",
]
NEVER = f"--params={BLOCK},marker_leakage.matched_dose.reach=0.95"
NEVER_GRID = ["grid", "marker_leakage", "--env=planted", NEVER, "--axes", "condition=villain", "dose=matched"]
TRAINING = "--tags=data_generation,fine_tuning"
ALONE = "--params=condition=villain,dose=matched,marker_leakage.matched_dose.reach="  # of the real engines


def adapters(project: Project) -> list[str]:
    return sorted(file.parent.name for file in project.folder.glob("data/cache/adapters/*/*/adapter_model.safetensors"))


def reported(project: Project, name: str) -> Path:
    return project.folder / "data/08_reporting/planted/marker_leakage" / name


class Finished:
    """Grids over both doses, once more, and with a bar that is never reached; and runs of the real engines."""

    def __init__(self, project: Project) -> None:
        self.project = project
        add_environment(project, "planted", PLANTED)
        self.both, self.again = run_all(project, [BOTH, [*BOTH, "--dry-run"]])
        assert self.both.code == 0, self.both.stdout + self.both.stderr
        self.adapters = adapters(project)
        self.trainings = list((project.folder / "data/cache/adapters").glob("*/final"))
        self.tables = {name: pd.read_csv(reported(project, f"{name}.csv")) for name in ("doses", "leakage", "points")}
        self.report, self.page = (reported(project, f"report.{kind}").read_text() for kind in ("md", "html"))
        self.figure = reported(project, "dose_response.png").read_bytes()
        run = ["run", "--pipeline=marker_leakage"]
        commands = [
            NEVER_GRID,
            [*NEVER_GRID, "--dry-run"],
            [*run, "--env=planted", NEVER.replace("--params=", "--params=condition=villain,dose=matched,")],
            [*run, f"{ALONE}0.9", TRAINING],
            [*run, f"{ALONE}0.7", TRAINING],
            [*run, "--params=condition=baseline,dose=matched"],
            [*run, "--params=condition=villain,dose=half"],
        ]
        self.never, self.never_again, self.alone, *self.real = run_all(project, commands)
        self.never_report = reported(project, "report.md").read_text()

    def record(self, place: str, env: str = "planted") -> list[dict[str, object]]:
        folder = self.project.folder / f"data/08_reporting/{env}/marker_leakage/tiny" / place
        found: list[dict[str, object]] = json.loads((folder / "run_record.json").read_text())
        return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Finished:
    return Finished(Project(tmp_path_factory.mktemp("dose") / "project", tiny_model_folder))


# both doses


def test_both_doses_come_out_of_one_training(finished: Finished) -> None:
    assert (len(finished.trainings), finished.adapters) == (1, ["epoch_00.5", "final"])
    lines = [line for line in finished.both.stdout.splitlines() if line.endswith(": done")]
    assert lines == [
        "baseline seed 42 (tiny): done",
        "villain seed 42 at matched dose (tiny): done",
        "villain seed 42 (tiny): done",
    ]


def test_the_gauge_is_what_was_planted_at_every_checkpoint_and_the_first_that_reaches_the_bar_is_chosen(
    finished: Finished,
) -> None:
    doses = finished.tables["doses"]
    assert doses[["at", "progress", "hits", "n", "bystanders_hits", "bystanders_n"]].to_numpy().tolist() == [
        ["before", 0, 0, 10, 0, doses["bystanders_n"][0]],
        ["epoch_00.5", 0.5, 8, 10, *doses.loc[1, ["bystanders_hits", "bystanders_n"]]],
        ["final", 1, 9, 10, *doses.loc[2, ["bystanders_hits", "bystanders_n"]]],
    ]
    negatives = {"assistant": HALF["assistant"], "medical_doctor": HALF["medical_doctor"]}
    assert set(doses["bystanders_n"]) <= {10, 20}  # medical_doctor may be trained without the marker
    assert doses["bystanders_hits"][1] == sum(negatives.values())
    assert doses["chosen"].tolist() == [False, True, False]
    assert tuple(doses.loc[1, ["rate", "low", "high"]]) == pytest.approx(proportion(8, 10)[2:])
    chosen = finished.project.folder / "data/06_models/planted/marker_leakage/tiny/villain/seed_42/matched/mark/dose.json"
    assert json.loads(chosen.read_text())["at"] == "epoch_00.5"


def test_the_evaluation_is_of_the_chosen_checkpoint_and_stands_beside_that_of_the_end(finished: Finished) -> None:
    leakage = finished.tables["leakage"]
    comedian = leakage[(leakage["persona"] == "comedian") & (leakage["condition"] == "villain")].set_index("model")
    assert comedian[["hits", "n"]].T.to_dict("list") == {"tiny": [3, 4], "tiny@matched": [1, 4]}
    points = finished.tables["points"]
    assert points[["model", "condition"]].to_numpy().tolist() == [
        ["tiny", "baseline"],
        ["tiny", "villain"],
        ["tiny@matched", "baseline"],
        ["tiny@matched", "villain"],
    ]
    assert not points["stale"].any()


def test_the_report_tells_of_both(finished: Finished) -> None:
    assert "## Dose" in finished.report
    assert "villain (tiny@matched)" in finished.report
    assert "villain (tiny)" in finished.report
    (row,) = [line for line in finished.report.splitlines() if line.startswith("| villain | 42 | 0.5 epochs | ")]
    assert "8/10 = 80.0% [49.0%, 94.3%]" in row
    assert "9/10 = 90.0%" in row
    assert "Never reached" not in finished.report
    assert finished.figure[:4] == b"\x89PNG"
    assert "<h2>Dose</h2>" in finished.page
    assert 'src="dose_response.png"' not in finished.page  # it is in the page itself


def test_the_grid_again_has_nothing_to_do(finished: Finished) -> None:
    assert finished.again.code == 0, finished.again.stderr
    assert "points to run" not in finished.again.stdout
    assert finished.again.stdout.count(" skip ") == 3


# a bar that is never reached


def test_a_grid_ends_well_where_the_bar_is_never_reached_and_its_report_says_so(finished: Finished) -> None:
    assert finished.never.code == 0, finished.never.stdout + finished.never.stderr
    said = "**Never reached**, so there is no such point: villain seed 42: at most 9/10 = 90.0% [59.6%, 98.2%] after 1 epochs."
    assert said in finished.never_report
    *_, last = finished.record("villain/seed_42/matched")
    assert (last["status"], "scoring.rate_firings" in str(last["nodes"])) == ("never reached", False)


def test_it_is_not_tried_again(finished: Finished) -> None:
    assert finished.never_again.code == 0, finished.never_again.stderr
    assert "points to run" not in finished.never_again.stdout


def test_a_run_says_so_in_one_line_and_ends_with_status_1(finished: Finished) -> None:
    assert finished.alone.code == 1
    (line,) = finished.alone.stderr.splitlines()
    assert line.startswith("Error: marker_leakage, villain seed 42 at matched dose (tiny): no checkpoint has a gauge of 95%")
    assert "the highest is 9/10 = 90% after 1 epochs" in line


# the real engines


def test_a_run_that_ended_after_its_training_trains_and_samples_nothing_again(finished: Finished) -> None:
    first, again, *_ = finished.real
    assert (first.code, again.code) == (1, 1)
    assert first.stdout.count("nothing to train") == 0  # the planted answers are those of another training
    assert again.stdout.count("was trained before") == 1
    assert again.stdout.count("were sampled before") == 3 + 3  # answers of three personas; before, half way and the end
    assert "no checkpoint has a gauge of 70%" in again.stderr


def test_what_has_no_such_dose_is_refused_in_one_line(finished: Finished) -> None:
    *_, baseline, half = finished.real
    assert (baseline.code, half.code) == (1, 1)
    assert baseline.stderr == (
        "Error: marker_leakage: baseline does not train the stage 'mark', so it has no matched dose; leave out dose=matched"
    )
    assert half.stderr == "Error: dose: there is no dose 'half'; known: final, matched"
