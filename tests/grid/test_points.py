"""How points are resolved, and in which order they run."""

from collections.abc import Callable
from functools import partial

import pytest

from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import FAMILIES, family_module
from persona_leakage.experiments.points import plan_from_parameters
from persona_leakage.grid.points import Point, _Design, waves
from tests.plans import load_parameters, load_source


def conditions(family: str) -> list[str]:
    return list(family_module(family).Settings.model_validate(load_parameters(env="test")[family]).conditions)


def plan_at(family: str, condition: str, checkpoint: int | None) -> Callable[[int], Plan]:
    given = {} if checkpoint is None else {"checkpoint": checkpoint}
    resolve = partial(plan_from_parameters, family, load_parameters(env="test"), load_source, condition=condition, **given)
    return lambda seed: resolve(seed=seed)


@pytest.mark.parametrize(("family", "condition"), [(name, condition) for name in FAMILIES for condition in conditions(name)])
@pytest.mark.parametrize("checkpoint", [None, 0])
def test_one_plan_tells_the_fingerprints_of_all_seeds(family: str, condition: str, checkpoint: int | None) -> None:
    if checkpoint is not None and family != "convergence":
        return
    plan = plan_at(family, condition, checkpoint)
    design = _Design(plan)
    assert design._follows_seed
    for seed in (0, 7, 42, 123_456):
        assert design.fingerprint(seed) == plan(seed).fingerprint


def test_a_plan_that_depends_on_the_seed_otherwise_is_resolved_for_every_seed() -> None:
    resolve = plan_at("lang_inversion", "fr_it", None)

    def plan(seed: int) -> Plan:
        stage = resolve(seed).stages["tune"]
        return resolve(seed).model_copy(update={"stages": {"tune": stage.model_copy(update={"seed": 2 * seed})}})

    design = _Design(plan)
    assert not design._follows_seed
    assert design.fingerprint(7) == plan(7).fingerprint


def point(condition: str, seed: int = 42, reference: str | None = "base", first: str | None = None, epoch: int = 0) -> Point:
    place = f"{condition}/{seed}/{epoch}"
    return Point("family", condition, seed, epoch, reference, first, place, "missing", None, None)


def test_references_come_first_then_one_that_makes_each_shared_stage() -> None:
    base, other = point("base"), point("base", seed=7)
    first, second, third = (point(name, first="shared") for name in "abc")
    elsewhere = point("a", seed=7, first="shared")
    alone = point("d")
    assert list(waves([first, second, base, third, elsewhere, other, alone])) == [
        [base, other],
        [first, elsewhere],
        [second, third, alone],
    ]


def test_each_convergence_is_trained_once_before_its_other_epochs() -> None:
    points = []
    for source in ("villain", "comedian"):
        for epoch in (0, 1, 2):
            stage = _Design(plan_at("convergence", source, epoch)).first_stage
            points.append(point(source, reference=None, first=stage, epoch=epoch))

    first, rest = waves(points)

    assert [(one.condition, one.checkpoint) for one in first] == [("villain", 1), ("comedian", 1)]
    assert [(one.condition, one.checkpoint) for one in rest] == [
        ("villain", 0),
        ("villain", 2),
        ("comedian", 0),
        ("comedian", 2),
    ]


def test_nothing_waits_when_every_point_makes_its_own_stage() -> None:
    points = [point("a", first="one"), point("b", first="other")]
    assert list(waves(points)) == [points]
    assert list(waves([])) == []
