"""Points (condition x seed) against the parameters: what a point should be, and which saved ones still are."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.languages import typological_distance
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import REPLAYS, family_module


def plan_from_parameters(family: str, parameters: Mapping[str, Any], **point: Any) -> Plan:
    """Resolve a point from a project's parameters.

    Args:
        family: name of the family, or of its replay.
        parameters: as Kedro loads them, raw or typed.
        **point: `condition` and `seed`, where they differ from the parameters.

    Raises:
        UserError: the parameters do not fit their types or the condition is unknown.
    """
    block = REPLAYS.get(family, family)
    settings = family_module(family).Settings.checked(parameters[block], block)
    base_model = BaseModel.checked(parameters["base_model"], "base_model")
    chosen = {"condition": parameters["condition"], "seed": parameters["seed"], **point}
    origin = {"completions_file": parameters["completions_file"]} if family in REPLAYS else {}
    plan: Plan = settings.plan(chosen["condition"], chosen["seed"], base_model, **origin)
    return plan


def gather(partitions: Mapping[str, Callable[[], pd.DataFrame]], plan_of: Callable[[str, int], Plan]) -> pd.DataFrame:
    """Put the tables of all saved points together and compare each point with what it would be now.

    Args:
        partitions: point → loader of its table, which has the columns condition, seed and plan (fingerprint).
        plan_of: resolves (condition, seed); raises `UserError` when the condition is no longer known.

    Returns:
        All rows with the further columns reference (condition to compare with, if any), completion (label of the completion
        language, if any), stale (the point ran under other parameters than now) and, for rates, distance (typological, from
        directive language to completion language; NaN without one).
    """
    tables = []
    for _, load in sorted(partitions.items()):
        table = load()
        if table.empty:
            tables.append(table)
            continue
        first = table.iloc[0]
        try:
            now = plan_of(str(first["condition"]), int(first["seed"]))
        except UserError:
            now = None
        stale = now is None or now.fingerprint != first["plan"]
        reference = now.reference if now else None
        completion = now.scoring.completion if now else None
        table = table.assign(reference=reference, completion=completion, stale=stale)
        if "directive_language" in table:
            languages = now.scoring.languages if now else {}
            own = languages.get(completion or "")
            names = table["directive_language"]
            table["distance"] = [typological_distance(languages[name], own) if own else math.nan for name in names]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def conditions_in_order(table: pd.DataFrame, order: Iterable[str]) -> pd.DataFrame:
    """Sort rows by the parameters' order of conditions, then by seed; conditions no longer known come last."""
    place = {name: index for index, name in enumerate(order)}
    keyed = table.assign(_place=table["condition"].map(place).fillna(len(place)))
    return keyed.sort_values(["_place", "seed"], kind="stable", ignore_index=True).drop(columns="_place")
