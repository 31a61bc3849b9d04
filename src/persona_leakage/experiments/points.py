"""Points against the parameters: what a point should be, and which saved ones still are."""

import logging
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, NamedTuple, get_args

import pandas as pd

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Plan, seeded
from persona_leakage.domain.points import MATCHED, Address, DoseName, dose_of, model_of, series_of
from persona_leakage.domain.variants import Variants
from persona_leakage.pipelines.fine_tuning.gauge import GAUGE_COLUMNS, JUDGED_COLUMNS
from persona_leakage.pipelines.reporting.rates import current

logger = logging.getLogger(__name__)

Tables = Mapping[str, Callable[[], pd.DataFrame]]
Keep = Callable[[pd.DataFrame, Plan | None, pd.DataFrame], pd.DataFrame]


class Design(NamedTuple):
    """What the points of one model, condition and checkpoint are, whatever their seed.

    Attributes:
        plan: at some seed.
        identity: see `domain.plan.Plan.design`.
    """

    plan: Plan
    identity: str

    def fingerprint(self, seed: int) -> str:
        """Identify the plan at a seed."""
        return seeded(self.identity, seed)


class Designs:
    """Resolves designs and remembers them: resolving takes milliseconds, and a grid may have 100,000 points."""

    def __init__(self, variants: Variants[Any], roster: Roster | None) -> None:
        """Take what plans are resolved from."""
        self._variants = variants
        self._roster = roster
        self._known: dict[Address, Design] = {}

    def of(self, address: Address) -> Design:
        """Resolve the design of a point.

        Raises:
            UserError: something that the address names is unknown.
        """
        key = address.model_copy(update={"seed": 0})
        if key not in self._known:
            variant = self._variants.of(address.model)
            plan = variant.settings.plan(key, variant.base_model, self._roster)
            self._known[key] = Design(plan, plan.design)
        return self._known[key]


def gather(
    partitions: Tables, designs: Designs, keep: Callable[[pd.DataFrame, Plan | None], pd.DataFrame], *, replay: bool = False
) -> pd.DataFrame:
    """Put the tables of all saved points together and compare each point with what it would be now.

    Args:
        partitions: point → loader of its table, which begins with `domain.plan.Plan.columns`.
        designs: what the points would be now.
        keep: chooses a point's rows, given its plan (None if something in its name is no longer known).
        replay: no parameters made the points, so they are stale only when something in their name is no longer known.

    Returns:
        All rows, `model` naming the series (see `Address.series`), with the further columns reference (condition to compare
        with, if any) and stale (the point ran under other parameters than now).
    """
    tables = []
    for place, load in sorted(partitions.items()):
        table = load()
        if "model" not in table:
            logger.warning("%s is left out: it is older than the model in a point's name; run the point again", place)
            continue
        now, stale = None, True
        if not table.empty:
            address = _address(table.iloc[0].to_dict())
            table = table.assign(model=address.series).drop(columns="dose", errors="ignore")
            try:
                design = designs.of(address)
            except UserError:
                pass
            else:
                now = design.plan
                stale = not replay and design.fingerprint(address.seed) != table["plan"].iloc[0]
        tables.append(keep(table, now).assign(reference=now.reference if now else None, stale=stale))
    if not tables:
        raise UserError("no point has run; a report is over points that have")
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def gather_tables(
    partitions: Mapping[str, Tables], designs: Designs, keep: Mapping[str, Keep], *, replay: bool = False
) -> list[pd.DataFrame]:
    """Gather several tables of all points, the rates first.

    Args:
        partitions: name of the table → its points.
        designs: what the points would be now.
        keep: name of a table → which of a point's rows are kept, given the point's plan and, of all rates, every source and
            persona once.
        replay: see `gather`.

    Raises:
        UserError: a current point lacks one of the tables, since it ran before there was such a table.
    """
    first, *others = partitions
    rates = gather(partitions[first], designs, lambda table, now: table, replay=replay)
    tables = [_with_references(rates, rates)]
    rated = rates[rates.columns.intersection(["source", "persona"])].drop_duplicates()
    for name in others:
        lacking = {place: load for place, load in partitions[first].items() if place not in partitions[name]}
        if lacking and not gather(lacking, designs, lambda table, now: table, replay=replay)["stale"].all():
            again = (
                "--tags=scoring,geometry with its model, condition, seed and, where it has one, checkpoint and dose in --params"
            )
            remedy = "replay their files again" if replay else f"make it for each: {again} (nothing is trained or sampled)"
            raise UserError(
                f"{len(lacking)} saved points, {min(lacking)} among them, have no {name}.csv, which is newer than they are; "
                f"{remedy}"
            )
        if not partitions[name]:  # and every point is stale
            tables.append(rates.iloc[:0])
            continue
        chosen = partial(keep.get(name, lambda table, now, rates: table), rates=rated)
        tables.append(_with_references(gather(partitions[name], designs, chosen, replay=replay), rates))
    return tables


def _with_references(table: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Give points at matched dose what they are compared with, which trains nothing that has a dose."""
    matched = rates[rates["model"].map(dose_of) == MATCHED].dropna(subset="reference")
    compared = matched[["model", "reference"]].drop_duplicates().itertuples(index=False)
    copies = [
        table[(table["model"] == model_of(series)) & (table["condition"] == condition)].assign(model=series)
        for series, condition in compared
    ]
    return pd.concat([table, *(copy for copy in copies if len(copy))], ignore_index=True)


def gather_gauges(gauges: Tables, designs: Designs) -> pd.DataFrame:
    """Gather the gauges of current points at matched dose, also of those that never reach it, which have no other table.

    Returns:
        The rows of `fine_tuning.gauge.measure_gauge`; `model` is the model alone.
    """
    if not gauges:
        return pd.DataFrame(columns=["model", "condition", "seed", "plan", *GAUGE_COLUMNS, *JUDGED_COLUMNS])
    now = current(gather(gauges, designs, lambda table, now: table))
    return now.assign(model=now["model"].map(model_of)).drop(columns=["reference", "stale"]).reset_index(drop=True)


def in_order(table: pd.DataFrame, variants: Variants[Any]) -> pd.DataFrame:
    """Sort rows by the parameters' order of models and of conditions, then by seed and checkpoint; unknown ones come last."""
    models = [series_of(name, dose) for name in variants.models for dose in get_args(DoseName)]
    conditions = list(dict.fromkeys(name for one in variants.models.values() for name in one.settings.conditions))
    places = {"_model": ("model", models), "_condition": ("condition", conditions)}
    keyed = table.assign(
        **{
            key: table[name].map({one: place for place, one in enumerate(order)}).fillna(len(order))
            for key, (name, order) in places.items()
        }
    )
    keys = [*places, "seed", *(["checkpoint"] if "checkpoint" in table else [])]
    return keyed.sort_values(keys, kind="stable", ignore_index=True).drop(columns=list(places))


def describe_points(rates: pd.DataFrame, designs: Designs | None, trainings: Tables | None = None) -> pd.DataFrame:
    """Say of every point in a table of rates what its numbers were made with.

    Args:
        rates: of all points.
        designs: what the points would be now; None of a replay.
        trainings: point → loader of its table, see `pipelines.fine_tuning.nodes.describe_training`.

    Returns:
        One row a point: its name, plan, reference, stale, again (it stands here once more, beside points at matched dose) and
        trained (`stage: so many rows, so many parameters; …`, missing where nothing was trained); of current points also shared
        (by all seeds, see `domain.plan.Plan`), base_model, revision and dtype, samples (a prompt), temperature, top_p,
        max_tokens, prompts (evaluated), evaluated_groups (their personas or directive languages), prompts_a_group, groups and
        centroid_prompts (of the centroids), unevaluated_groups (that have a centroid only) and headline_layer.
        Without designs (a replay) all of the latter are missing.
    """
    name = [column for column in ("model", "condition", "seed", "checkpoint") if column in rates]
    points = rates[[*name, "plan", "reference", "stale"]].drop_duplicates(name, ignore_index=True)
    points["again"] = (points["reference"] == points["condition"]) & (points["model"].map(dose_of) == MATCHED)
    points["trained"] = points["plan"].map(_say_trained(trainings or {})).astype(object)
    told: list[dict[str, object]] = []
    made: dict[str, dict[str, object]] = {}  # by design: a grid has many seeds of each
    for row in points.to_dict("records"):
        if row["stale"] or designs is None:
            told.append({})
            continue
        design = designs.of(_address({**row, "dose": "final"} if row["again"] else row))
        if design.identity not in made:
            made[design.identity] = _made_with(design.plan)
        told.append(made[design.identity])
    return points.join(pd.DataFrame(told, index=points.index, columns=list(_COLUMNS)))


def _address(row: Mapping[Hashable, Any]) -> Address:
    """Name the point of a row: of its own table, with a dose, or of a gathered one, whose model is a series."""
    epoch, series = int(row["checkpoint"]) if "checkpoint" in row else None, str(row["model"])
    return Address(
        model=model_of(series),
        condition=str(row["condition"]),
        seed=int(row["seed"]),
        checkpoint=epoch,
        dose=row.get("dose", dose_of(series)),
    )


_COLUMNS = (
    "shared", "base_model", "revision", "dtype", "samples", "temperature", "top_p", "max_tokens", "prompts", "evaluated_groups",
    "prompts_a_group", "groups", "centroid_prompts", "unevaluated_groups", "headline_layer",
)  # fmt: skip


def _made_with(plan: Plan) -> dict[str, object]:
    model, evaluation, geometry = plan.base_model, plan.evaluation, plan.geometry
    asked, averaged = evaluation.prompts.prompts(), geometry.prompts.prompts()
    evaluated = {row[evaluation.prompts.group_key] for row in asked}  # type: ignore[literal-required]
    groups = {row[geometry.prompts.group_key] for row in averaged}  # type: ignore[literal-required]
    values = (
        plan.shared, model.name, model.revision, model.dtype, evaluation.samples, evaluation.sampling.temperature,
        evaluation.sampling.top_p, evaluation.sampling.max_tokens, len(asked), len(evaluated),
        len(asked) // len(evaluated), len(groups), len(averaged), len(groups - evaluated), geometry.headline_layer,
    )  # fmt: skip
    return dict(zip(_COLUMNS, values, strict=True))


def _say_trained(trainings: Tables) -> dict[str, str]:
    said: dict[str, str] = {}
    for load in trainings.values():
        for plan, stages in load().groupby("plan"):
            told = (f"{row.stage}: {row.rows:,} rows, {row.parameters:,} parameters" for row in stages.itertuples())
            said[str(plan)] = "; ".join(told)
    return said
