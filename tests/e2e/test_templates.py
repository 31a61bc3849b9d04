"""A base model whose chat template takes no system turn: refused before anything is sampled, or told where personas go."""

import shutil
from pathlib import Path

import pytest

from tests.commands import Done, run_all
from tests.engines.test_turns import NO_SYSTEM
from tests.project import Project

PERSONAS = ["run", "--pipeline=marker_leakage", "--params"]
COMMANDS = {
    "run": [*PERSONAS, "condition=villain"],
    "preflight": ["preflight", "marker_leakage", "--axes=condition=villain"],
    "languages": [
        "run",
        "--pipeline=lang_inversion",
        "--params",
        "condition=baseline",
        "--tags=data_generation,fine_tuning,generation",
    ],
    "told": [*PERSONAS, "condition=villain,base_model.persona_in=user", "--tags=data_generation"],
    "misspelt": ["run", "--pipeline=lang_inversion", "--params", "condition=fr_it,base_model.template.thinks=false"],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> dict[str, Done]:
    project = Project(tmp_path_factory.mktemp("templates") / "project", tiny_model_folder)
    (project.folder / "data/test_model").unlink()
    model = shutil.copytree(tiny_model_folder, project.folder / "data/test_model")
    (model / "chat_template.jinja").write_text(NO_SYSTEM)
    return dict(zip(COMMANDS, run_all(project, list(COMMANDS.values())), strict=True))


def test_personas_are_refused_before_the_baseline_is_sampled(done: dict[str, Done]) -> None:
    why = "the chat template of data/test_model refuses a chat: System role not supported; a persona's prompt is one: set"
    assert done["run"].code == 1
    assert done["run"].stderr.startswith(f"Error: {why}")
    assert len(done["run"].stderr.splitlines()) == 1
    assert "sampling" not in done["run"].stdout


def test_preflight_says_so(done: dict[str, Done]) -> None:
    assert done["preflight"].stderr == "Error: 1 in the way: chat template; see the remedies above"
    (row,) = (line for line in done["preflight"].stdout.splitlines() if line.startswith("│ chat template "))
    assert "refuses a chat: System role not supported" in row
    assert "set persona_in: user for the model in models.yml" in row


def test_what_sends_no_system_turn_runs_and_so_do_personas_in_the_user_turn(done: dict[str, Done]) -> None:
    assert {name: done[name].code for name in ("languages", "told")} == {"languages": 0, "told": 0}, done


def test_an_argument_that_the_template_does_not_take_is_refused(done: dict[str, Done]) -> None:
    assert done["misspelt"].code == 1
    assert "data/test_model: its chat template takes no argument 'thinks'; correct `template` in" in done["misspelt"].stderr
    assert len(done["misspelt"].stderr.splitlines()) == 1
