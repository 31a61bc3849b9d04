"""What kedro-viz shows of every family: its layers, and folded six boxes, in the order of the stages."""

from itertools import permutations

import pytest
from kedro.framework.project import configure_project, pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro_viz.data_access import DataAccessManager
from kedro_viz.models.flowchart.model_utils import GraphNodeType
from kedro_viz.server import populate_data

from persona_leakage.experiments import FAMILIES
from persona_leakage.pipelines import STAGES
from tests.plans import load_parameters
from tests.project import PROJECT

ROOT = "__root__"
# what each stage is made of
FEEDS = {
    ("data_generation", "fine_tuning"),
    ("fine_tuning", "generation"),
    ("generation", "scoring"),
    ("fine_tuning", "geometry"),
    ("scoring", "reporting"),
}


class Shown:
    """One family as kedro-viz sees it, asked in the order in which it asks itself."""

    def __init__(self, family: str, manager: DataAccessManager) -> None:
        self.boxes = manager.create_modular_pipelines_tree_for_registered_pipeline(family)
        self.layers = manager.get_sorted_layers_for_registered_pipeline(family)
        self.edges = {(edge.source, edge.target) for edge in manager.get_edges_for_registered_pipeline(family)}

    def inside(self, box: str) -> set[str]:
        """The boxes right inside a box."""
        return {child.id for child in self.boxes[box].children if child.type == GraphNodeType.MODULAR_PIPELINE}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shown(family: str) -> Shown:
    bootstrap_project(PROJECT)
    configure_project("persona_leakage")
    with KedroSession.create(PROJECT) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
    manager = DataAccessManager()
    populate_data(manager, catalog, {family: pipelines[family]}, {})
    return Shown(family, manager)


def test_layers_have_an_order(family: str, shown: Shown) -> None:
    """A circle among layers would leave none."""
    stages = list(load_parameters()[family]["stages"])
    assert [layer for layer in shown.layers if layer != "raw"] == [
        "intermediate",
        *stages,
        "models",
        "model_output",
        "reporting",
    ]
    assert shown.layers.index("raw") < shown.layers.index("reporting")


def test_folded_it_is_the_six_stages_with_the_trained_stages_inside(family: str, shown: Shown) -> None:
    assert shown.inside(ROOT) == set(STAGES)
    first, *others = load_parameters()[family]["stages"]
    assert shown.inside("data_generation") == {f"data_generation.{first}"}
    assert shown.inside("fine_tuning") == {f"fine_tuning.{stage}" for stage in (first, *others)}
    for stage in ("generation", "scoring", "geometry", "reporting"):
        assert shown.inside(stage) == set()


def test_folded_its_edges_go_from_stage_to_stage_and_never_back(family: str, shown: Shown) -> None:
    boxes = shown.boxes
    lies_between = {(one, other) for one, other in permutations(STAGES, 2) if boxes[one].outputs & boxes[other].inputs}
    reports_cosines = any(name.endswith(".cosines@grid") for name in pipelines[family].datasets())
    assert lies_between >= FEEDS | ({("geometry", "reporting")} if reports_cosines else set())
    assert all(STAGES.index(one) < STAGES.index(other) for one, other in lies_between)
    for stage in STAGES:  # kedro-viz takes edges away where boxes run in a circle
        for dataset in shown.boxes[stage].inputs:
            assert (dataset, stage) in shown.edges
        for dataset in shown.boxes[stage].outputs:
            assert (stage, dataset) in shown.edges


def test_the_stages_of_all_families_can_be_browsed() -> None:
    bootstrap_project(PROJECT)
    configure_project("persona_leakage")
    for stage in STAGES:
        nodes = pipelines[stage].nodes
        assert {node.namespace.split(".")[0] for node in nodes if node.namespace} == set(FAMILIES)
        assert all(stage in node.tags for node in nodes)
