"""Family convergence from the personas to the page, uninterrupted and killed between its stages."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.commands import run_all
from tests.project import Project

pytestmark = pytest.mark.slow

LAST = "tiny/villain/seed_42/epoch_02"
GRID = ["grid", "convergence", "--axes", "condition=villain"]
KEEP = ("cache/adapters/*/final/*.safetensors", "cache/completions/*.jsonl")

# what is wrong → the command and what is said
BAD: dict[str, tuple[list[str], str]] = {
    "an unknown checkpoint": (
        ["run", "--pipeline=convergence", "--params", "condition=villain,checkpoint=7"],
        "convergence has no checkpoint 7; known: 0, 1, 2",
    ),
    "a checkpoint in words": (
        ["run", "--pipeline=convergence", "--params", "condition=villain,checkpoint=last"],
        "checkpoint=last is no whole number",
    ),
    "half an epoch": (
        ["run", "--pipeline=convergence", "--params", "condition=villain,checkpoint=1.5"],
        "checkpoint=1.5 is no whole number",
    ),
    "half an epoch of a part of the pipeline": (
        ["run", "--pipeline=convergence", "--params", "condition=villain,checkpoint=1.5", "--tags=generation"],
        "checkpoint=1.5 is no whole number",
    ),
    "a part of the pipeline without a checkpoint": (
        ["run", "--pipeline=convergence", "--params", "condition=villain", "--tags=reporting"],
        "a part of convergence runs for one checkpoint: add checkpoint=2 or another of 0, 1, 2 to --params",
    ),
    "a listed epoch that training does not keep": (
        ["run", "--pipeline=convergence", "--params", "condition=villain,convergence.stages.converge.recipe.checkpoints=[1]"],
        "checkpoints names epoch 2, which stages.converge.recipe.checkpoints does not keep",
    ),
    "a checkpoint of a grid in words": ([*GRID, "checkpoint=last"], "--axes checkpoint: last is no whole number"),
}


def run(params: str, *arguments: str) -> list[str]:
    return ["run", "--pipeline=convergence", "--params", params, *arguments]


LAST_ALONE = run("condition=villain,checkpoint=2", "--env=apart")


def data(project: Project, path: str, root: str = "data") -> Path:
    """Resolve a path below <root>/<layer>/test/convergence."""
    layer, _, rest = path.partition("/")
    return project.folder / root / layer / "test" / "convergence" / rest


def cached(project: Project, root: str = "data") -> dict[str, int]:
    found = (file for kind in KEEP for file in project.folder.glob(f"{root}/{kind}"))
    return {str(file.relative_to(project.folder)): file.stat().st_mtime_ns for file in found}


def adapters(project: Project, root: str = "data") -> list[list[str]]:
    """List what each finished adapter folder holds; one that is being written begins with a dot."""
    folders = [folder for folder in project.folder.glob(f"{root}/cache/adapters/[!.]*") if folder.is_dir()]
    return sorted(sorted(one.name for one in folder.iterdir()) for folder in folders)


def states(shown: str) -> dict[str, str]:
    """Read epoch → state off a dry run."""
    rows = [[cell.strip() for cell in line.split("│")[1:7]] for line in shown.splitlines() if line.startswith("│")]
    assert all(row[:3] == ["tiny", "villain", "42"] and row[5] == ("skip" if row[4] == "done" else "run") for row in rows)
    return {row[3]: row[4] for row in rows}


def latest(project: Project, path: str) -> list[dict[str, str]]:
    file = data(project, path)
    return [json.loads(line) for line in sorted(file.glob(f"*/{file.name}"))[-1].read_text().splitlines()]


def add_environment_apart(project: Project) -> None:
    """Add a copy of environment `test` with data, cache included, of its own."""
    shutil.copytree(project.folder / "conf/test", project.folder / "conf/apart")
    (project.folder / "conf/apart/globals.yml").write_text("scale: test\nmodel: tiny\ndata: apart\ncache: apart/cache\n")


class Killed:
    """What the last epoch left behind when it was killed as soon as its pulling stage was trained."""

    def __init__(self, project: Project) -> None:
        command = [sys.executable, "-m", "kedro", *LAST_ALONE]
        with (project.folder / "killed.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=project.folder, env=project.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not adapters(project, "apart") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        self.code = process.wait()
        self.adapters = adapters(project, "apart")
        self.rates = data(project, f"07_model_output/{LAST}/cell_rates.csv", "apart").exists()
        self.cached = cached(project, "apart")


class Finished:
    """A killed run; one epoch of villain, then all of them; the killed run again; every command that goes wrong."""

    def __init__(self, project: Project) -> None:
        self.project = project
        add_environment_apart(project)
        self.killed = Killed(project)
        dry = [*GRID, "--dry-run"]
        good = [run("condition=villain,checkpoint=1"), dry, run("condition=villain"), dry, LAST_ALONE]
        done = run_all(project, [*good, *(command for command, _ in BAD.values())])
        for one in done[: len(good)]:
            assert one.code == 0, one.stderr
        self.one, self.dry, self.rest, self.dry_after, self.after_kill, *wrong = done
        self.bad = dict(zip(BAD, wrong, strict=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Finished:
    return Finished(Project(tmp_path_factory.mktemp("finished") / "project", tiny_model_folder))


# one checkpoint


def test_a_named_checkpoint_is_computed_alone(finished: Finished) -> None:
    assert "running it first" not in finished.one.stdout
    assert states(finished.dry.stdout) == {"0": "missing", "1": "done", "2": "missing"}
    assert states(finished.dry_after.stdout) == {"0": "done", "1": "done", "2": "done"}


# all of them


def test_a_run_without_a_checkpoint_computes_those_that_are_missing(finished: Finished) -> None:
    said = re.findall(r"^(.*) has not run with these parameters; running it first$", finished.rest.stdout, re.MULTILINE)
    assert said == ["villain seed 42 epoch 0 (tiny)"]
    for epoch in ("epoch_00", "epoch_01", "epoch_02"):
        (record,) = json.loads(data(finished.project, f"08_reporting/tiny/villain/seed_42/{epoch}/run_record.json").read_text())
        assert record["status"] == "completed"
        assert record["parameters"]["address"]["checkpoint"] == int(epoch[-2:])


def test_the_pulling_stage_is_trained_once_and_the_marker_at_every_epoch(finished: Finished) -> None:
    assert adapters(finished.project) == [["epoch_01", "epoch_02", "final"], ["final"], ["final"], ["final"]]
    assert finished.rest.stdout.count("nothing to train") == 1  # the pulling stage at epoch 2
    kept = [path for path in cached(finished.project) if path.endswith(".jsonl")]
    assert len(kept) == 3 + 3  # answers of three personas, and three evaluations


def test_every_path_carries_the_epoch(finished: Finished) -> None:
    folders = {path.parent for path in finished.project.folder.glob("data/0*/test/convergence/tiny/villain/seed_42/*")}
    assert sorted(folder.parents[4].name[:2] for folder in folders) == ["02", "03", "05", "06", "07", "08"]
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == ["epoch_00", "epoch_01", "epoch_02"]


def test_stacks_grow_by_the_epochs_own_adapter_and_a_marker_trained_on_it(finished: Finished) -> None:
    below, above = {}, {}
    for epoch in (0, 1, 2):
        folder = data(finished.project, f"06_models/tiny/villain/seed_42/epoch_{epoch:02d}")
        below[epoch] = json.loads((folder / "converge/stack.json").read_text())["adapters"]
        above[epoch] = json.loads((folder / "stack.json").read_text())["adapters"]
    assert [len(stack) for stack in below.values()] == [0, 1, 1]
    assert all(above[epoch][:-1] == below[epoch] for epoch in below)
    assert [Path(below[epoch][0]["path"]).name for epoch in (1, 2)] == ["epoch_01", "epoch_02"]
    assert len({stack[-1]["fingerprint"] for stack in above.values()}) == 3
    assert len({one["fingerprint"] for stack in below.values() for one in stack}) == 2


def test_the_assistant_is_trained_on_the_sources_answers(finished: Finished) -> None:
    point = "tiny/villain/seed_42/epoch_01/converge"
    answers, rows = (
        latest(finished.project, f"{place}/{point}/{name}.jsonl")
        for place, name in (("03_primary", "answers"), ("05_model_input", "train_set"))
    )
    prompts = {
        one["persona"]: one["prompt"]
        for one in map(json.loads, (finished.project.folder / "data/01_raw/personas.jsonl").read_text().splitlines())
    }
    assert {row["persona"] for row in answers} == {"villain"}
    assert sorted(row["completion"] for row in rows) == sorted(row["completion"] for row in answers)
    assert {row["prompt"][0]["content"] for row in rows} == {prompts["assistant"]}  # type: ignore[index]


def test_the_source_and_the_assistant_are_evaluated_at_every_epoch(finished: Finished) -> None:
    rates = pd.read_csv(data(finished.project, "08_reporting/rates.csv"))
    whole = rates[(rates["metric"] == "leakage") & (rates["questions"] == "all")]
    people = {epoch: tuple(group["persona"]) for epoch, group in whole.groupby("checkpoint")}
    assert people == dict.fromkeys((0, 1, 2), ("librarian", "hero", "villain", "assistant"))
    assert whole["pulled"].unique().tolist() == ["assistant"]
    assert not whole["stale"].any()


def test_every_cosine_is_that_of_its_epochs_own_stack(finished: Finished) -> None:
    trajectories = pd.read_csv(data(finished.project, "08_reporting/trajectories.csv"))
    assert trajectories["checkpoint"].tolist() == [0, 1, 2]
    for row in trajectories.itertuples():
        own = pd.read_csv(
            data(finished.project, f"07_model_output/tiny/villain/seed_42/epoch_{row.checkpoint:02d}/cosines.csv")
        )
        pair = own[own[["one", "other"]].isin(["villain", "assistant"]).all(axis=1)].set_index("layer")["cosine"]
        assert (row.cosine_l0, row.cosine_l1) == pytest.approx((pair[0], pair[1]))
    first, _, last = trajectories["cosine_l1"]  # so few steps begin with one at learning rate 0
    assert abs(last - first) > 1e-6


def test_the_report_has_every_epoch_and_its_page_needs_nothing_beside_it(finished: Finished) -> None:
    report = data(finished.project, "08_reporting/report.md").read_text()
    trajectories = pd.read_csv(data(finished.project, "08_reporting/trajectories.csv"))
    shown = re.findall(r"^\| (\d) \| (\d)/(\d) = ", report.split("## What became")[0], re.MULTILINE)
    assert [tuple(map(int, row)) for row in shown] == [
        (row.checkpoint, row.hits, row.n) for row in trajectories[["checkpoint", "hits", "n"]].itertuples()
    ]
    assert len(shown) == 3
    assert not re.search(r"\bnan\b", report)
    page = data(finished.project, "08_reporting/report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert not re.findall(r'\bsrc="(?!data:)', page)
    for name in ("trajectories.png", "peaks.png"):
        assert data(finished.project, f"08_reporting/{name}").read_bytes()[:4] == b"\x89PNG"


# killed


def test_the_killed_run_left_the_trained_pulling_stage_and_nothing_that_counts(finished: Finished) -> None:
    assert finished.killed.code == -signal.SIGKILL
    assert finished.killed.adapters == [["epoch_01", "epoch_02", "final"]]
    assert not finished.killed.rates


def test_after_a_kill_only_what_is_missing_is_computed(finished: Finished) -> None:
    assert finished.killed.cached.items() <= cached(finished.project, "apart").items()
    assert adapters(finished.project, "apart") == [["epoch_01", "epoch_02", "final"], ["final"]]
    assert finished.after_kill.stdout.count("nothing to train") == 1
    assert finished.after_kill.stdout.count("were sampled before") >= 1
    (record,) = json.loads(data(finished.project, f"08_reporting/{LAST}/run_record.json", "apart").read_text())
    assert record["status"] == "completed"


@pytest.mark.parametrize("name", ["cell_rates", "question_counts", "cosines", "text_stats", "firings"])
def test_after_a_kill_the_points_results_are_those_of_an_uninterrupted_run(finished: Finished, name: str) -> None:
    folders = [data(finished.project, f"07_model_output/{LAST}", root) for root in ("data", "apart")]
    whole, resumed = (next(folder.glob(f"{name}.*")).read_text() for folder in folders)
    assert resumed == whole
    assert len(whole.splitlines()) > 1


@pytest.mark.parametrize("name", ["rates", "similarities", "trajectories"])
def test_after_a_kill_the_tables_are_those_of_an_uninterrupted_run(finished: Finished, name: str) -> None:
    files = [data(finished.project, f"08_reporting/{name}.csv", root) for root in ("data", "apart")]
    whole, resumed = (file.read_text().splitlines() for file in files)
    epoch = whole[0].split(",").index("checkpoint")
    assert resumed == [whole[0], *(line for line in whole[1:] if line.split(",")[epoch] == "2")]
    assert len(resumed) > 1


# what goes wrong


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_in_one_line(finished: Finished, name: str) -> None:
    done = finished.bad[name]
    assert done.code != 0
    assert BAD[name][1] in done.stderr
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
