"""What a user opens after a run: the notebook, kedro-viz, the wheel."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

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
    assert unlayered == {"trainer", "generator", "extractor", "language_model"}


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


@pytest.mark.slow
def test_the_wheel_runs_from_an_empty_folder_with_the_packaged_configuration(project: Project, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(PROJECT)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", system_site_packages=False, with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    libraries = Path(sys.prefix) / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    environment = {**os.environ, "PYTHONPATH": str(libraries), "OMP_NUM_THREADS": "1"}
    command = [python, "-m", "persona_leakage", "--pipeline=lang_inversion", "--env=test", "--params=condition=baseline"]
    (project.folder / "src").rename(project.folder / "gone")
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert project.data("08_reporting/report.html").is_file()
