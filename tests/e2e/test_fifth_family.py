"""A family of existing kinds is a wing and a block of parameters, and nothing else."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.commands import run_all
from tests.project import PROJECT, Project

pytestmark = pytest.mark.slow

WING = PROJECT / "tests/e2e/echo"
COMMANDS = {
    "registry": ["registry", "list"],
    "dry": ["grid", "echo", "--dry-run"],
    "preflight": ["preflight", "echo"],
    "run": ["run", "--pipeline=echo"],
    "dry after": ["grid", "echo", "--dry-run"],
    "grid": ["grid", "echo", "--axes", "seed=7", "--keep-engines"],
    "doses": ["grid", "echo", "--axes", "dose=matched", "--dry-run"],
    "stage": ["run", "--pipeline=scoring", "--params", "family=echo"],
    "report": ["run", "--pipeline=reporting", "--params", "family=echo"],
    "unknown": ["run", "--pipeline=echo", "--params", "condition=heroo"],
    "replay": ["run", "--pipeline=echo_replay"],
}


class Echo:
    """A project with a fifth family, in which all that can be done with a family is done with it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        wing = project.folder / "src/persona_leakage/experiments/echo"
        shutil.copytree(WING, wing, ignore=shutil.ignore_patterns("parameters.yml", "__pycache__"))
        parameters = project.folder / "conf/base/parameters.yml"
        parameters.write_text(parameters.read_text() + (WING / "parameters.yml").read_text())
        self.done = dict(zip(COMMANDS, run_all(project, list(COMMANDS.values())), strict=True))

    def states(self, command: str) -> list[list[str]]:
        lines = [line for line in self.done[command].stdout.splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in line.split("│")[1:5]] for line in lines]

    def file(self, path: str) -> Path:
        layer, _, rest = path.partition("/")
        return self.project.folder / "data" / layer / "test/echo" / rest


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Echo:
    return Echo(Project(tmp_path_factory.mktemp("echo") / "project", tiny_model_folder))


def test_every_command_knows_it(echo: Echo) -> None:
    wrong = {name: done.stderr for name, done in echo.done.items() if done.code}
    assert set(wrong) == {"unknown", "replay"}, wrong
    assert wrong["unknown"] == "Error: echo has no condition 'heroo'; known: silence, hero"
    assert wrong["replay"].startswith("Error: there is no pipeline 'echo_replay'; known: ")


def test_it_is_registered_without_a_replay(echo: Echo) -> None:
    registered = echo.done["registry"].stdout.split()
    assert "echo" in registered
    assert "echo_replay" not in registered


def test_its_points_are_planned_and_run(echo: Echo) -> None:
    assert echo.states("dry") == [["tiny", "silence", "42", "missing"], ["tiny", "hero", "42", "missing"]]
    assert echo.states("dry after") == [["tiny", "silence", "42", "done"], ["tiny", "hero", "42", "done"]]
    doses = [line.split("│")[4].strip() for line in echo.done["doses"].stdout.splitlines() if line.startswith("│")]
    assert doses == ["final", "matched"]
    for point in ("tiny/silence/seed_42", "tiny/hero/seed_42", "tiny/hero/seed_7"):
        record = json.loads(echo.file(f"08_reporting/{point}/run_record.json").read_text())[0]
        assert record["status"] == "completed"
        assert {name.split(".")[0] for name in record["nodes"]} >= {"data_generation", "fine_tuning", "generation", "scoring"}
    (adapter,) = json.loads(echo.file("06_models/tiny/hero/seed_42/stack.json").read_text())["adapters"]
    assert adapter["fingerprint"]


def test_its_tables_and_figures_lie_in_its_folder(echo: Echo) -> None:
    table = pd.read_csv(echo.file("08_reporting/echo.csv"))
    assert set(zip(table["condition"], table["seed"], strict=True)) == {
        ("silence", 42),
        ("hero", 42),
        ("silence", 7),
        ("hero", 7),
    }
    assert table.groupby(["condition", "seed"])["persona"].apply(set).tolist() == [{"hero", "villain", "assistant"}] * 4
    assert (table["n"] == 2 * 2).all()
    assert table.loc[table["condition"] == "hero", "role"].value_counts()["source"] == 2
    assert echo.file("08_reporting/echo.png").read_bytes()[:4] == b"\x89PNG"
    page = echo.file("08_reporting/report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 1
    seeds = pd.read_csv(echo.file("08_reporting/over_seeds.csv"))
    assert (seeds["seeds"] == 2).all()
