"""Grids on a Ray cluster of several nodes, of which some are killed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from tests.grid.clusters import running_cluster
from tests.project import Project

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

CONDITIONS, SEEDS = ("baseline", "fr_it", "fr_fr"), (42, 137)
GRID = ["grid", "lang_inversion", "--axes", f"condition={','.join(CONDITIONS)},fr_de", f"seed={','.join(map(str, SEEDS))}"]
POINTS = [f"tiny/{condition}/seed_{seed}" for condition in CONDITIONS for seed in SEEDS]
TABLES = ("cell_rates.csv", "cosines.csv", "labels.jsonl")
# every point asks for half of a GPU that is none
GPU = "\ngrid: {cpus: 1, gpus: 0.5}\n"


def records(project: Project, point: str) -> list[dict[str, Any]]:
    """The runs of a point, but for those that only wrote the report."""
    file = project.data(f"08_reporting/{point}/run_record.json")
    runs = json.loads(file.read_text()) if file.is_file() else []
    return [run for run in runs if "data_generation.plan_point" in run["nodes"]]


def completed(project: Project, points: list[str]) -> list[str]:
    return [point for point in points if any(run["status"] == "completed" for run in records(project, point))]


def written(project: Project, point: str) -> dict[str, int]:
    """What a point has written → when."""
    files = [file for file in project.folder.glob(f"data/0[2-7]*/test/lang_inversion/{point}/**/*") if file.is_file()]
    return {str(file.relative_to(project.folder)): file.stat().st_mtime_ns for file in files}


def until(happens: Callable[[], object], process: subprocess.Popen[str], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not happens() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert happens(), "it did not happen"


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kedro", *arguments]
    environment = project.environment | {"KEDRO_ENV": "test"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=project.folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def computing(raylet: psutil.Process) -> list[psutil.Process]:
    """The processes of points on a node."""
    found = []
    for process in raylet.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "persona_leakage.grid.compute" in process.cmdline():
                found.append(process)
    return found


def build(folder: Path, model: Path) -> Project:
    """A project in which no text has a German version."""
    project = Project(folder, model)
    texts = project.folder / "data/01_raw/parallel_texts.jsonl"
    texts.write_text(texts.read_text().replace('"de": ', '"xx": '))
    parameters = project.folder / "conf/test/parameters.yml"
    parameters.write_text(parameters.read_text() + GPU)
    return project


class NodeKilled:
    """One grid on this machine, and the same on a cluster in which a node is killed and another joins."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.here = build(folder / "here", model)
        self.local = self.here.kedro(*GRID, "--keep-engines", timeout=900)
        self.there = build(folder / "there", model)
        with running_cluster(self.there.environment) as cluster:
            node = {"num_cpus": 1, "num_gpus": 1}
            doomed = cluster.add_node(**node, node_ip_address="127.0.0.2")
            cluster.add_node(**node, node_ip_address="127.0.0.3")
            grid = start(self.there, *GRID, "--launcher", "ray", "--address", cluster.address)
            until(lambda: len(completed(self.there, POINTS)) >= 3, grid)
            raylet = psutil.Process(doomed.all_processes["raylet"][0].process.pid)
            until(lambda: computing(raylet), grid)
            self.before = {point: written(self.there, point) for point in completed(self.there, POINTS)}
            cluster.remove_node(doomed, allow_graceful=False)  # kill -9 of all that the node runs
            cluster.add_node(**node, node_ip_address="127.0.0.4")
            self.stdout, self.stderr = grid.communicate(timeout=900)
            self.code = grid.returncode


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> NodeKilled:
    return NodeKilled(tmp_path_factory.mktemp("killed"), tiny_model_folder)


def test_the_grid_completes_though_a_node_is_killed(killed: NodeKilled) -> None:
    assert completed(killed.there, POINTS) == POINTS, killed.stderr
    assert re.search(r"its worker was lost \(\w+\); trying again, 2 of 3", killed.stderr), killed.stderr


@pytest.mark.parametrize("table", TABLES)
def test_every_points_tables_are_those_of_this_machine(killed: NodeKilled, table: str) -> None:
    for point in POINTS:
        here, there = (project.data(f"07_model_output/{point}/{table}") for project in (killed.here, killed.there))
        assert there.read_text() == here.read_text(), point
        assert len(here.read_text().splitlines()) > 1


@pytest.mark.parametrize("table", ["rates.csv", "spill.csv", "verdicts.csv"])
def test_the_reports_tables_are_those_of_this_machine(killed: NodeKilled, table: str) -> None:
    here, there = (project.data(f"08_reporting/{table}").read_text() for project in (killed.here, killed.there))
    assert there == here


def test_nothing_is_left_half_written_and_what_is_done_is_not_done_again(killed: NodeKilled) -> None:
    for point in POINTS:
        assert [run["status"] for run in records(killed.there, point)] == ["completed"], point
        for name in ("completions.jsonl", "centroids.safetensors"):
            versions = killed.there.data(f"07_model_output/{point}/{name}").glob(f"*/{name}")
            written_out = [one.read_bytes() for one in versions]
            # a run that was killed may have saved them already; the next one has the very same
            assert len(written_out) == 1 or (point not in killed.before and len(set(written_out)) == 1), point
    for point, files in killed.before.items():
        assert written(killed.there, point) == files
    assert not list(killed.there.folder.glob("data/0[2-8]*/**/*.partial"))


def test_a_program_error_is_tried_once_and_stops_no_other(killed: NodeKilled) -> None:
    assert (killed.local.returncode, killed.code) == (1, 1)
    for seed in SEEDS:
        (run,) = records(killed.there, f"tiny/fr_de/seed_{seed}")
        assert run["status"] == "failed"
        assert f"fr_de seed {seed} (tiny): Error: 12 of 12 source texts have no German version" in killed.stderr
        assert f"fr_de seed {seed} (tiny): 12 of 12 source texts have no German version" in killed.local.stderr
        log = killed.there.data(f"08_reporting/tiny/fr_de/seed_{seed}/grid.log").read_text()
        assert "12 of 12 source texts have no German version" in log
    assert "2 of 8 points failed" in killed.stderr


def test_all_runs_are_in_one_table(killed: NodeKilled) -> None:
    runs = pd.read_csv(killed.there.data("08_reporting/runs.csv"))
    assert len(runs) == 8
    assert runs["status"].value_counts().to_dict() == {"completed": 6, "failed": 2}
    whole = runs[runs["status"] == "completed"]
    assert (whole["tokens"] > 0).all()
    assert (whole["peak_rss_gib"] > 0).all()
    assert set(map(tuple, whole[["condition", "seed"]].to_numpy())) == {(one, seed) for one in CONDITIONS for seed in SEEDS}


# the head


SMALL = ["grid", "lang_inversion", "--axes", "condition=baseline,fr_it", "seed=1,2", "--launcher", "ray", "--keep-engines"]
SMALL_POINTS = [f"tiny/{condition}/seed_{seed}" for condition in ("baseline", "fr_it") for seed in (1, 2)]


class HeadKilled:
    """A grid whose cluster's head is killed, a second one at the same time, and the same command once more."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.project = build(folder / "project", model)
        with running_cluster(self.project.environment) as cluster:
            cluster.add_node(num_cpus=1, num_gpus=1, node_ip_address="127.0.0.2")
            grid = start(self.project, *SMALL, "--address", cluster.address)
            until(lambda: completed(self.project, SMALL_POINTS), grid)
            self.second = self.project.kedro(*SMALL, "--address", cluster.address)
            cluster.head_node.kill_gcs_server()
            cluster.head_node.kill_raylet()
            self.stdout, self.stderr = grid.communicate(timeout=120)
            self.code = grid.returncode
            self.done = completed(self.project, SMALL_POINTS)
            self.before = {point: (written(self.project, point), records(self.project, point)) for point in self.done}
        with running_cluster(self.project.environment) as cluster:
            cluster.add_node(num_cpus=2, num_gpus=1, node_ip_address="127.0.0.2")
            self.again = self.project.kedro(*SMALL, "--address", cluster.address, timeout=240)


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> HeadKilled:
    return HeadKilled(tmp_path_factory.mktemp("headless"), tiny_model_folder)


def test_a_second_grid_on_the_same_data_is_refused(headless: HeadKilled) -> None:
    assert headless.second.returncode == 1
    folder = headless.project.data("08_reporting").as_posix().rstrip("/")
    assert headless.second.stderr.strip() == f"Error: another grid is running on {folder}; start this one when it has ended"


def test_a_grid_whose_head_is_killed_ends_and_the_next_redoes_only_what_is_missing(headless: HeadKilled) -> None:
    assert headless.code != 0
    assert 1 <= len(headless.done) < len(SMALL_POINTS)
    assert headless.again.returncode == 0, headless.again.stderr
    assert completed(headless.project, SMALL_POINTS) == SMALL_POINTS
    for point in headless.done:
        assert (written(headless.project, point), records(headless.project, point)) == headless.before[point]
    for point in SMALL_POINTS:
        assert [run["status"] for run in records(headless.project, point)] == ["completed"], point


# Ctrl-C


def test_ctrl_c_stops_everything_and_says_how_to_go_on(tmp_path: Path, tiny_model_folder: Path) -> None:
    project = build(tmp_path / "project", tiny_model_folder)
    with running_cluster(project.environment) as cluster:
        cluster.add_node(num_cpus=1, num_gpus=1, node_ip_address="127.0.0.2")
        grid = start(project, *SMALL[:-1], "--address", cluster.address)
        until(lambda: list(project.folder.glob("data/08_reporting/**/grid.log")), grid)
        os.kill(grid.pid, signal.SIGINT)
        _, stderr = grid.communicate(timeout=60)
        time.sleep(2)
        left = [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(project.folder)]
    assert grid.returncode == 130
    assert "stopped with 0 of 4 points done; the same command goes on" in stderr
    assert left == []
