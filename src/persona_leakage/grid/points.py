"""The state of points, read from their run records."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kedro.framework.session import KedroSession

from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import family_module
from persona_leakage.experiments.points import plan_from_parameters

State = Literal["done", "stale", "missing"]


class Point(NamedTuple):
    """One point.

    Attributes:
        plan: what the parameters say it is.
        state: whether that has been computed.
        folder: where its run record lies.
    """

    plan: Plan
    state: State
    folder: Path


def point_stages(family: str) -> tuple[str, ...]:
    """Name the stage tags that compute a point; reporting is over all points and not one of them."""
    tags = {tag for node in family_module(family).create_pipeline().nodes for tag in node.tags}
    return tuple(sorted(tags - {"reporting"}))


def find_points(
    family: str, points: Sequence[tuple[str | None, int | None]], env: str | None, params: dict[str, object]
) -> list[Point]:
    """Resolve points and look up their state.

    Args:
        family: name of the family.
        points: (condition, seed) pairs; None takes the parameters' own.
        env: Kedro environment.
        params: parameters given at run time.

    Raises:
        UserError: a condition is unknown or the parameters do not fit.
    """
    found = []
    for condition, seed in points:
        given = {key: value for key, value in (("condition", condition), ("seed", seed)) if value is not None}
        context = _context(env, {**params, **given})
        plan = plan_from_parameters(family, context.config_loader["parameters"])
        record = context.catalog[f"{family}.run_record"]
        found.append(Point(plan, _state(record, family, plan), Path(record._filepath).parent))
    return found


def all_conditions(family: str, env: str | None, params: dict[str, object]) -> list[str]:
    """List the conditions that the parameters name."""
    parameters = _context(env, params).config_loader["parameters"]
    return list(family_module(family).Settings.checked(parameters[family], family).conditions)


@cache
def _point_nodes(family: str) -> frozenset[str]:
    pipeline = family_module(family).create_pipeline().only_nodes_with_tags(*point_stages(family))
    return frozenset(node.name for node in pipeline.nodes)


def _context(env: str | None, params: dict[str, object]) -> Any:
    with KedroSession.create(env=env, runtime_params=params) as session:
        return session.load_context()  # type: ignore[attr-defined]


def _state(record: Any, family: str, plan: Plan) -> State:
    runs = record.load() if record.exists() else []
    nodes = {node.name for node in family_module(family).create_pipeline().only_nodes_with_tags(*point_stages(family)).nodes}
    whole = [run for run in runs if run["status"] == "completed" and nodes <= set(run["nodes"])]
    if not whole:
        return "missing"
    return "done" if whole[-1]["plan"] == plan.fingerprint else "stale"
