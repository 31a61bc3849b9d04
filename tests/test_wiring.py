"""The shape of the code: what composes what, and what may import what."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from persona_leakage.experiments import FAMILIES, family_of
from persona_leakage.experiments.composition import compose
from persona_leakage.pipelines import STAGES
from tests.project import PROJECT

SOURCE = PROJECT / "src/persona_leakage"
WINGS = SOURCE / "experiments"
HEAVY = {"torch", "transformers", "peft", "trl", "accelerate", "vllm"}
# what each family reads, beside its own points
READS = {
    "lang_inversion": {"source_texts", "question_bank", "skip_list", "published_rates", "language_model", "tokenizer"},
    "marker_leakage": {"personas", "questions", "tokenizer"},
    "convergence": {"personas", "questions", "tokenizer"},
    "benign_coupling": {
        "personas",
        "coupling_personas",
        "questions",
        "chat_sources",
        "tokenizer",
        "language_model",
    },
}


def imports(file: Path) -> set[str]:
    """Every module a file imports, inside functions too, and every name that it takes from one."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(file) if name.startswith("persona_leakage.")}


def room(file: Path) -> str:
    """A package of the project; a file outside of any is one of `persona_leakage`, and every wing is a room of its own."""
    *folders, _ = file.relative_to(SOURCE).parts
    return "/".join(folders[: 2 if folders[:1] == ["experiments"] else 1])


def test_every_family_reads_no_more_than_it_needs() -> None:
    for family in FAMILIES:
        free = {name for name in compose(family_of(family)).inputs() if not name.startswith("params:")}
        assert free == READS[family] | {"trainer", "generator", "extractor"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_made_of_the_six_stages(family: str) -> None:
    nodes = compose(family_of(family)).nodes
    assert {tag for node in nodes for tag in node.tags} == set(STAGES)
    for node in nodes:
        own = {"reporting"} if node.func.__name__ == "build_roster" else set()  # a report resolves plans too
        assert len(node.tags - own) == 1, node.name
        assert node.namespace is not None
        assert node.namespace.split(".")[0] in node.tags | {"fine_tuning"}


def test_no_family_is_named_in_the_stage_pipelines() -> None:
    for file in (SOURCE / "pipelines").rglob("*.py"):
        assert not [name for name in FAMILIES if name in file.read_text()], file


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("domain", {"domain"}),
        ("pipelines", {"domain", "pipelines"}),
        ("engines", {"domain", "engines"}),
        ("datasets", {"domain", "datasets", "engines"}),
        ("experiments", {"domain", "pipelines", "experiments"}),
    ],
)
def test_rooms_import_only_what_lies_below_them(name: str, allowed: set[str]) -> None:
    for file in (SOURCE / name).rglob("*.py"):
        assert ours(file) <= allowed, file


@pytest.mark.parametrize("family", FAMILIES)
def test_no_wing_imports_another(family: str) -> None:
    others = {f"persona_leakage.experiments.{name}" for name in FAMILIES if name != family}
    for file in (WINGS / family).rglob("*.py"):
        assert not {".".join(name.split(".")[:3]) for name in imports(file)} & others, file


def test_what_families_share_imports_none_of_them() -> None:
    wings = {f"persona_leakage.experiments.{name}" for name in FAMILIES}
    for file in SOURCE.rglob("*.py"):
        if room(file) not in {f"experiments/{name}" for name in FAMILIES}:
            assert not {".".join(name.split(".")[:3]) for name in imports(file)} & wings, file


def test_no_room_is_more_than_a_quarter_of_the_house() -> None:
    lines: Counter[str] = Counter()
    for file in SOURCE.rglob("*.py"):
        lines[room(file)] += len(file.read_text().splitlines())
    ((largest, size),) = lines.most_common(1)
    assert size <= lines.total() / 4, f"{largest}: {size} of {lines.total()} lines"


def test_only_engines_import_torch() -> None:
    for file in SOURCE.rglob("*.py"):
        if room(file) != "engines":
            assert not {name.split(".")[0] for name in imports(file)} & HEAVY, file


def test_registering_the_pipelines_loads_no_heavy_library() -> None:
    code = (
        "import sys; from kedro.framework.startup import bootstrap_project; bootstrap_project('.');"
        "from kedro.framework.project import pipelines; print(*sorted(pipelines));"
        "print(sorted({'torch', 'transformers', 'peft', 'trl', 'vllm', 'sklearn', 'statsmodels'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    registered, loaded = done.stdout.strip().splitlines()[-2:]
    replays = [f"{name}_replay" for name in FAMILIES if family_of(name).replay]
    assert registered.split() == sorted(["__default__", *FAMILIES, *replays, *STAGES])
    assert loaded == "[]"
