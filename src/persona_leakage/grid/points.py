"""The state of points, read from their run records."""

import json
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


class Address(NamedTuple):
    """Names a point; None means what the parameters say."""

    condition: str | None = None
    seed: int | None = None
    checkpoint: int | None = None


def find_points(family: str, addresses: Sequence[Address], env: str | None, params: dict[str, object]) -> list[Point]:
    """Resolve points and look up their state.

    Args:
        family: name of the family.
        addresses: which points.
        env: Kedro environment.
        params: parameters given at run time.

    Raises:
        UserError: a condition is unknown or the parameters do not fit.
    """
    context = _context(env, params)
    parameters = context.config_loader["parameters"]
    # the catalog only after our own checks: making it validates the parameters Kedro's way, which ends in a traceback
    load = cache(lambda name: context.catalog.load(name))
    found = []
    for address in addresses:
        given = {name: value for name, value in address._asdict().items() if value is not None}
        plan = plan_from_parameters(family, parameters, load, **given)
        folder = _record_folder(family, env, plan)
        found.append(Point(plan, _state(folder / "run_record.json", family, plan), folder))
    return found


def all_addresses(
    family: str,
    env: str | None,
    params: dict[str, object],
    conditions: Sequence[str],
    seeds: Sequence[int],
    checkpoints: Sequence[int],
) -> list[Address]:
    """List the points of a grid; an empty axis takes what the parameters name: all conditions, the seed, all checkpoints."""
    parameters = _context(env, params).config_loader["parameters"]
    settings = family_module(family).Settings.checked(parameters[family], family)
    epochs = checkpoints or own_checkpoints(family, env, params)
    return [
        Address(condition, seed, epoch)
        for condition in conditions or settings.conditions
        for seed in seeds or [int(parameters["seed"])]
        for epoch in epochs
    ]


def own_checkpoints(family: str, env: str | None, params: dict[str, object]) -> list[int | None]:
    """List the checkpoints that parameters without one mean: all of the family; None stands for a family that has none."""
    parameters = _context(env, params).config_loader["parameters"]
    if parameters["checkpoint"] is not None:
        return [int(parameters["checkpoint"])]
    return list(getattr(family_module(family).Settings.checked(parameters[family], family), "checkpoints", [None]))


@cache
def _point_nodes(family: str) -> frozenset[str]:
    pipeline = family_module(family).create_pipeline().only_nodes_with_tags(*point_stages(family))
    return frozenset(node.name for node in pipeline.nodes)


def _context(env: str | None, params: dict[str, object]) -> Any:
    with KedroSession.create(env=env, runtime_params=params) as session:
        return session.load_context()  # type: ignore[attr-defined]


# stand-ins that occur in no path; making a catalog takes a third of a second, and a grid may have thousands of points
_CONDITION, _SEED, _CHECKPOINT = "__condition__", 987654321, 98765


@cache
def _record_template(family: str, env: str | None, *, checkpoint: bool) -> str:
    point: dict[str, object] = {"condition": _CONDITION, "seed": _SEED} | ({"checkpoint": _CHECKPOINT} if checkpoint else {})
    return str(Path(_context(env, point).catalog[f"{family}.run_record"]._filepath).parent)


def _record_folder(family: str, env: str | None, plan: Plan) -> Path:
    folder = _record_template(family, env, checkpoint=plan.checkpoint is not None)
    folder = folder.replace(_CONDITION, plan.condition).replace(str(_SEED), str(plan.seed))
    return Path(folder.replace(str(_CHECKPOINT), f"{plan.checkpoint or 0:02d}"))


def _state(record: Path, family: str, plan: Plan) -> State:
    runs = json.loads(record.read_text()) if record.is_file() else []
    whole = [run for run in runs if run["status"] == "completed" and _point_nodes(family) <= set(run["nodes"])]
    if not whole:
        return "missing"
    return "done" if whole[-1]["plan"] == plan.fingerprint else "stale"
