"""How points are resolved, and in which order they run."""

import pytest

from persona_leakage.domain.points import Address
from persona_leakage.experiments import FAMILIES, family_of
from persona_leakage.experiments.family import read_variants
from persona_leakage.experiments.points import Designs
from persona_leakage.grid.points import Point, _first_stage, waves
from tests.plans import bundled_roster, load_parameters, make_plan


def designs(family: str) -> Designs:
    return Designs(read_variants(family_of(family), load_parameters("test")), bundled_roster(family))


def address(condition: str, seed: int = 42, checkpoint: int | None = None, model: str = "tiny") -> Address:
    return Address(model=model, condition=condition, seed=seed, checkpoint=checkpoint)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("model", ["tiny", "tiny_too"])
def test_one_design_tells_the_fingerprints_of_all_seeds(family: str, model: str) -> None:
    settings = read_variants(family_of(family), load_parameters("test")).of(model).settings
    known = designs(family)
    for condition in settings.conditions:
        for checkpoint in settings.epochs or (None,):
            design = known.of(address(condition, 7, checkpoint, model))
            for seed in (0, 7, 42, 123_456):
                plan = make_plan(family, condition, seed, env="test", checkpoint=checkpoint, model=model)
                assert design.fingerprint(seed) == plan.fingerprint


def test_every_part_of_an_address_makes_another_plan() -> None:
    known = designs("convergence")
    addresses = [
        address("villain", 42, 1),
        address("villain", 42, 2),
        address("villain", 7, 1),
        address("comedian", 42, 1),
        address("villain", 42, 1, "tiny_too"),
    ]
    assert len({known.of(one).fingerprint(one.seed) for one in addresses}) == len(addresses)


def point(
    condition: str,
    seed: int = 42,
    reference: str | None = "base",
    first: str | None = None,
    epoch: int | None = None,
    model: str = "tiny",
) -> Point:
    named = address(condition, seed, epoch, model)
    return Point("family", named, reference, first, str(named), "missing", None, None)


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
    known = designs("convergence")
    points = []
    for model in ("tiny", "tiny_too"):
        for source in ("villain", "comedian"):
            for epoch in (0, 1, 2):
                stage = _first_stage(known.of(address(source, 42, epoch, model)))
                points.append(point(source, reference=None, first=stage, epoch=epoch, model=model))

    first, rest = waves(points)

    sources = [(model, source) for model in ("tiny", "tiny_too") for source in ("villain", "comedian")]
    assert [(one.address.model, one.address.condition, one.address.checkpoint) for one in first] == [
        (*source, 1) for source in sources
    ]
    assert [(one.address.model, one.address.condition, one.address.checkpoint) for one in rest] == [
        (*source, epoch) for source in sources for epoch in (0, 2)
    ]


def test_nothing_waits_when_every_point_makes_its_own_stage() -> None:
    points = [point("a", first="one"), point("b", first="other")]
    assert list(waves(points)) == [points]
    assert list(waves([])) == []
