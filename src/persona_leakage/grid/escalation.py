"""Further seeds where a family's last report calls for them."""

from collections.abc import Iterator, Sequence

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.points import Address, dose_of, model_of
from persona_leakage.experiments.family import FamilySettings
from persona_leakage.grid.points import Point, Study

_TABLE = "replicates"  # of a family with an escalation


def escalate(study: Study, points: Sequence[Point]) -> tuple[list[Point], str]:
    """Add to points the further seeds of their conditions that the last report calls for.

    A condition is called for by a row of the table `replicates` (columns model, conditions, mean, escalate) whose mean lies in
    the band. The parameters name the further seeds, so that it ends; what has run already is not computed again.

    Returns:
        The points, those that are added and those that they are compared with; and a line that says what is added and why.

    Raises:
        UserError: the family has no escalation, or there is no report yet.
    """
    family, settings = study.family.name, study.variants.of(study.model).settings
    if settings.escalates is None:
        raise UserError(f"{family} has no escalation: nothing in its report calls for more seeds; leave out --escalate")
    table, catalog = f"{family}.{_TABLE}", study.context.catalog
    if not catalog.exists(table):
        raise UserError(f"{family} has no report yet that could call for more seeds; run kedro grid {family} first")
    called = catalog.load(table)
    called = called[called["escalate"].astype(bool)]
    named = {(point.address.series, point.address.condition) for point in points}
    known = {point.address for point in points}
    added, said = [], []
    for row in called.itertuples():
        conditions = [name for name in row.conditions.split(", ") if (row.model, name) in named]
        every = _addresses(row.model, conditions, study.variants.of(model_of(row.model)).settings) if conditions else ()
        new = [one for one in every if one not in known]
        known.update(new)
        added += new
        if new:
            said.append(f"{', '.join(dict.fromkeys(one.condition for one in new))} ({row.model}; mean {row.mean:.1%})")
    band = f"within {settings.escalates.low:.0%} to {settings.escalates.high:.0%}"
    if not added:
        return list(points), f"--escalate adds nothing: no further seed of what is named is called for by a mean {band}"
    seeds = ", ".join(map(str, dict.fromkeys(one.seed for one in added)))
    line = f"--escalate adds seeds {seeds}, {len(added)} points, for a mean {band}: {'; '.join(said)}"
    return study.with_references([*points, *study.find(added)]), line


def _addresses(series: str, conditions: Sequence[str], settings: FamilySettings) -> Iterator[Address]:
    for seed in settings.escalates.seeds if settings.escalates else ():
        for condition in conditions:
            yield Address(model=model_of(series), condition=condition, seed=seed, dose=dose_of(series))
