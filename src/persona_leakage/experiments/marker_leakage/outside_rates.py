"""Rates and cosines that were made elsewhere, as a replay takes them."""

import math
import re

import pandas as pd

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.rates import proportion
from persona_leakage.pipelines.scoring.by_question import COUNTS, FIRING_KEYS
from persona_leakage.pipelines.scoring.markers import TEXT_COLUMNS

NO_SEED = "-"  # an empty one would be lost in a CSV file
_ELSEWHERE = "elsewhere"
_LARGEST_COUNT = 2**53  # beyond, one number stands for several
_ROUNDING = 1e-6  # of cosines that were computed in float32


def adopt_rates(outside: pd.DataFrame, plan: Plan) -> tuple[pd.DataFrame, ...]:
    """Bring rates and cosines from elsewhere into the form of a grid's tables.

    Args:
        outside: columns source, bystander, category, related_to, found, total and any number of `cosine_l<layer>`, as text or
            numbers; a row whose bystander is the source holds the source's own rate and needs no cosine. The index has the
            line of the file. A column `centring` may name the set that cosines were centred over.
        plan: of the replay; names the file.

    Returns:
        Rates, similarities, tables of texts and of counts by question without rows, and points. Every source is a
        condition, and so a point, with `-` as its seed. The headline layer is the parameters', or the last of a file that lacks
        it.

    Raises:
        UserError: a column, a name or a cosine is missing, a count is no count, found exceeds total, a pair appears twice, or
            cosines were centred over different sets.
    """
    here = plan.replayed_file
    cosines = [name for name in outside if name.lower().startswith("cos")]  # one that is misspelt is not left out in silence
    needed = ("source", "bystander", "category", "related_to", "found", "total")
    if missing := [name for name in needed if name not in outside]:
        raise UserError(f"{here}: column {missing[0]} is missing; a rates file has {', '.join(needed)} and cosine_l<layer>")
    if strange := [name for name in cosines if not re.fullmatch(r"cosine_l[0-9]+", name)]:
        raise UserError(f"{here}: column {strange[0]} does not name its layer; call it cosine_l<layer>, such as cosine_l20")
    layers = [int(name.removeprefix("cosine_l")) for name in cosines]
    if twice := [layer for layer in layers if layers.count(layer) > 1]:
        raise UserError(f"{here}: two columns have the cosines at layer {twice[0]}; keep one")
    if outside.empty or not cosines:
        raise UserError(f"{here} has no {'rates' if cosines else 'column cosine_l<layer> to correlate with'}; add them")
    centring = _one_centring(outside, f"{here}")
    rates: list[dict[str, object]] = []
    similarities: list[dict[str, object]] = []
    for line, row in zip(outside.index, outside.to_dict("records"), strict=True):
        source, persona, category = (_name(row[name], f"{here}, line {line}: {name}") for name in needed[:3])
        found, total = (_count(row[name], f"{here}, line {line}: {name}") for name in ("found", "total"))
        if found > total:
            raise UserError(f"{here}, line {line}: found {found} is more than total {total}; correct the counts")
        for name, layer in zip(cosines, layers, strict=True):
            value = _cosine(row[name], f"{here}, line {line}: {name} of {persona}", needed=source != persona)
            similarities.append({"layer": layer, "one": source, "other": persona, "cosine": value, "centring": centring})
        rates.append(
            {
                "condition": source,
                "persona": persona,
                "category": category,
                "related_to": "" if pd.isna(row["related_to"]) else "|".join(map(str.strip, row["related_to"].split("|"))),
                "role": "source" if source == persona else "bystander",
                "source": source,
                **proportion(found, total)._asdict(),
            }
        )
    table = pd.DataFrame(rates)
    if len(twice := table[table.duplicated(["source", "persona"])]):
        source, persona = twice[["source", "persona"]].iloc[0]
        first, second = outside.index[(table["source"] == source) & (table["persona"] == persona)][:2]
        raise UserError(
            f"{here}, line {second}: {persona} under source {source} appears twice; keep one row (the first is line {first})"
        )
    headline = plan.geometry.headline_layer if plan.geometry.headline_layer in layers else max(layers)
    cosines_ = pd.DataFrame(similarities)
    shared = {"seed": NO_SEED, "plan": plan.fingerprint, "reference": _ELSEWHERE, "stale": False}
    points = table[["condition"]].drop_duplicates(ignore_index=True)
    adopted = (
        table.assign(questions="all", metric="leakage", **shared),
        cosines_.assign(headline=cosines_["layer"] == headline, **{**shared, "condition": _ELSEWHERE}),
        pd.DataFrame(columns=["condition", "seed", "plan", *TEXT_COLUMNS, "reference", "stale"]),
        pd.DataFrame(columns=["condition", "seed", "plan", *FIRING_KEYS, *COUNTS, "reference", "stale"]),
        points.assign(**shared, headline_layer=headline, replayed_file=here, centring=centring),
    )
    for one in adopted:
        one.insert(0, "model", plan.address.model)
    return adopted


def _one_centring(outside: pd.DataFrame, here: str) -> str | None:
    """Read which set cosines were centred over, the same in every row that has one; None where the file does not say."""
    if "centring" not in outside:
        return None
    named = outside.loc[outside["source"] != outside["bystander"], "centring"].fillna("(blank)").astype(str)
    if len(others := named[named != named.iloc[0]]):
        raise UserError(
            f"{here}, line {others.index[0]}: centring is {others.iloc[0]}, and {named.iloc[0]} in line {named.index[0]}; "
            "cosines of different sets do not compare, so give a file of one"
        )
    return named.iloc[0] if len(named) else None


def _name(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name} is {'blank' if pd.isna(value) else value}, which is no name; give one")
    return value


def _count(value: object, name: str) -> int:
    number = pd.to_numeric(value, errors="coerce")
    if pd.isna(number) or number < 0 or number % 1 or number > _LARGEST_COUNT:
        raise UserError(f"{name} is {value}, which is no count; give a whole number")
    return int(number)


def _cosine(value: object, name: str, *, needed: bool) -> float:
    """Read a cosine, which rounding may have put a little outside of [-1, 1]; a comma in it can only be a decimal one."""
    text = value.replace(",", ".") if isinstance(value, str) else value
    number = float(pd.to_numeric(text, errors="coerce"))
    if math.isnan(number):
        if needed:
            raise UserError(f"{name} is missing or no number; add it or remove the row")
        return number
    if abs(number) > 1 + _ROUNDING:
        raise UserError(f"{name} is {value}, which is no cosine; correct it")
    return min(max(number, -1.0), 1.0)
