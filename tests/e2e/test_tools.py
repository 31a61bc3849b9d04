"""What a user opens after a run: the notebook, kedro-viz."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from tests.project import PROJECT, Project


def test_the_notebook_shows_a_finished_run(planted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**planted.environment, "KEDRO_ENV": "test"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(PROJECT / "notebooks/explore_a_run.ipynb", as_version=4)
    (planted.folder / "notebooks").mkdir(exist_ok=True)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(planted.folder / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 2
    shown = "".join(output["data"]["text/plain"] for output in outputs if "data" in output)
    assert "control_floor" in shown
    assert "0.666667" in shown


def test_kedro_viz_builds_with_layers_and_previews(planted: Project) -> None:
    done = planted.kedro("viz", "build", "--include-previews")
    assert done.returncode == 0, done.stderr
    api = planted.folder / "build/api"
    graph = json.loads((api / "main").read_text())
    assert {"raw", "intermediate", "tune", "models", "model_output", "reporting"} <= set(graph["layers"])
    by_name = {
        node["name"]: json.loads((api / "nodes" / node["id"]).read_text()) for node in graph["nodes"] if node["type"] == "data"
    }
    assert by_name["lang_inversion.spill"]["preview_type"] == "TablePreview"
    assert by_name["lang_inversion.spill_matrix_figure"]["preview_type"] == "ImagePreview"
    unlayered = {node["name"] for node in graph["nodes"] if node["type"] == "data" and not node.get("layer")}
    assert unlayered == {"trainer", "generator", "extractor", "tokenizer", "language_model"}


@pytest.mark.slow
def test_the_cards_command_works_without_naming_an_environment(project: Project) -> None:
    """Only the model and the sizes of the default environment are replaced; its name is not given."""
    default = project.folder / "conf/embedded"
    for name in ("parameters.yml", "catalog.yml", "models.yml"):
        (default / name).write_text((project.folder / "conf/test" / name).read_text())
    (default / "globals.yml").write_text("scale: embedded\nmodel: tiny\n")
    done = project.kedro("run", "--pipeline=lang_inversion", "--params", "condition=fr_it", env=None)
    assert done.returncode == 0, done.stderr
    assert (project.folder / "data/08_reporting/embedded/lang_inversion/report.html").is_file()
