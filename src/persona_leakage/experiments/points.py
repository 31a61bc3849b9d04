"""Points (condition x seed [x checkpoint]) against the parameters: what a point should be, and which saved ones still are."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import REPLAYS, family_module

Tables = Mapping[str, Callable[[], pd.DataFrame]]


def plan_from_parameters(family: str, parameters: Mapping[str, Any], load: Callable[[str], Any], **point: str | int) -> Plan:
    """Resolve a point from a project's parameters.

    Args:
        family: name of the family, or of its replay.
        parameters: as Kedro loads them, raw or typed.
        load: returns a dataset of the catalog; called for the sources that the family resolves its plans from.
        **point: condition, seed and checkpoint, where they differ from the parameters.

    Raises:
        UserError: the parameters do not fit their types or the condition is unknown.
    """
    module = family_module(family)
    block = REPLAYS.get(family, family)
    settings = module.Settings.checked(parameters[block], block)
    given: dict[str, Any] = {name: parameters[name] for name in ("condition", "seed", "checkpoint")} | point
    given["base_model"] = BaseModel.checked(parameters["base_model"], "base_model")
    given |= {name: load(name) for name in module.SOURCES}
    plan: Plan
    if family in REPLAYS:
        plan = module.plan_replay(family=settings, replayed_file=parameters[module.REPLAYED], **given)
    else:
        plan = module.plan_point(family=settings, **given)
    return plan


def gather(
    partitions: Tables, plan_of: Callable[..., Plan], annotate: Callable[[pd.DataFrame, Plan | None], pd.DataFrame]
) -> pd.DataFrame:
    """Put the tables of all saved points together and compare each point with what it would be now.

    Args:
        partitions: point → loader of its table, which has the columns condition, seed, plan (fingerprint) and, in families that
            follow a stage over training, checkpoint.
        plan_of: resolves condition, seed and checkpoint; raises `UserError` when the condition is no longer known.
        annotate: adds a family's own columns, given a point's table and what it would be now (None if unknown).

    Returns:
        All rows with the further columns reference (condition to compare with, if any), stale (the point ran under other
        parameters than now) and those of `annotate`.
    """
    tables = []
    for _, load in sorted(partitions.items()):
        table = load()
        if not table.empty:
            first = table.iloc[0]
            point: dict[str, str | int] = {"condition": str(first["condition"]), "seed": int(first["seed"])}
            if "checkpoint" in table:
                point["checkpoint"] = int(first["checkpoint"])
            try:
                now = plan_of(**point)
            except UserError:
                now = None
            stale = now is None or now.fingerprint != first["plan"]
            table = annotate(table, now).assign(reference=now.reference if now else None, stale=stale)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def unannotated(table: pd.DataFrame, now: Plan | None) -> pd.DataFrame:
    """Add nothing."""
    return table


def conditions_in_order(table: pd.DataFrame, order: Iterable[str]) -> pd.DataFrame:
    """Sort rows by the parameters' order of conditions, then by seed and checkpoint; unknown conditions come last."""
    place = {name: index for index, name in enumerate(order)}
    keyed = table.assign(_place=table["condition"].map(place).fillna(len(place)))
    keys = ["_place", "seed", *(["checkpoint"] if "checkpoint" in table else [])]
    return keyed.sort_values(keys, kind="stable", ignore_index=True).drop(columns="_place")
