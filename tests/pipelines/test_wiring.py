"""The shape of the code: what composes what, and what may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from persona_leakage.experiments import FAMILIES, family_module
from tests.project import PROJECT

SOURCE = PROJECT / "src/persona_leakage"
ENGINES = {"trainer", "generator", "extractor", "language_model"}
STAGES = {"data_generation", "fine_tuning", "generation", "scoring", "geometry", "reporting"}


def imports(file: Path) -> set[str]:
    """Every module a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def ours(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(file) if name.startswith("persona_leakage.")}


def test_lang_inversion_needs_only_texts_skip_list_published_rates_and_engines() -> None:
    free = {name for name in family_module("lang_inversion").create_pipeline().inputs() if not name.startswith("params:")}
    grid = {"lang_inversion.cell_rates@grid", "lang_inversion.cosines@grid"}
    assert free - grid == {"source_texts", "skip_list", "published_rates", *ENGINES}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_made_of_the_six_stages(family: str) -> None:
    nodes = family_module(family).create_pipeline().nodes
    assert {tag for node in nodes for tag in node.tags} == STAGES
    assert all(len(node.tags) == 1 for node in nodes)


def test_no_family_is_named_in_the_stage_pipelines() -> None:
    for file in (SOURCE / "pipelines").rglob("*.py"):
        assert not [name for name in FAMILIES if name in file.read_text()], file


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("domain", {"domain"}),
        ("pipelines", {"domain", "pipelines"}),
        ("engines", {"domain", "engines"}),
        ("datasets", {"domain", "datasets", "engines"}),
        ("experiments", {"domain", "pipelines", "experiments"}),
    ],
)
def test_rooms_import_only_what_lies_below_them(room: str, allowed: set[str]) -> None:
    for file in (SOURCE / room).rglob("*.py"):
        assert ours(file) <= allowed, file


def test_only_engines_import_torch() -> None:
    heavy = {"torch", "transformers", "peft", "trl"}
    for file in SOURCE.rglob("*.py"):
        if file.parent.name != "engines":
            assert not {name.split(".")[0] for name in imports(file)} & heavy, file


def test_registering_the_pipelines_loads_no_heavy_library() -> None:
    code = (
        "import sys; from kedro.framework.startup import bootstrap_project; bootstrap_project('.');"
        "from kedro.framework.project import pipelines; from persona_leakage.experiments import FAMILIES, REPLAYS;"
        "assert len(pipelines) == 1 + len(FAMILIES) + len(REPLAYS);"
        "print([name for name in ('torch', 'transformers', 'peft', 'trl', 'sklearn', 'statsmodels') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
