"""Whether a cosine tells which bystanders a coupled marker leaks to."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from persona_leakage.domain.plan import Plan
from persona_leakage.domain.rates import RATE_COLUMNS
from persona_leakage.experiments.benign_coupling.settings import UNCOUPLED, Settings
from persona_leakage.pipelines.correlation import Correlation, correlation
from persona_leakage.pipelines.reporting.rates import (
    FINISHED_,
    add_counts,
    both_ways,
    leakage_of,
    require_one_centring,
)

GEOMETRIES = {"coupled": "the model itself", "induced": "before coupling"}
_OF = {"leakage": "rate", "leakage:finished": "finished_rate"}  # kind of leakage → its column
_COUNTED = (*RATE_COLUMNS, *(f"{FINISHED_}{name}" for name in RATE_COLUMNS))
_PAIR = ("to", "geometry", "layer", "headline")
COSINE_COLUMNS = ("condition", "seed", "arm", "persona", "role", *_COUNTED, *_PAIR, "cosine", "centring")
CORRELATION_COLUMNS = ("scope", "arm", "condition", "of", *_PAIR, "conditions", *Correlation._fields)


def keep_rated(cosines: pd.DataFrame, now: Plan | None, rates: pd.DataFrame) -> pd.DataFrame:
    """Keep a point's cosines between personas that are rated."""
    rated = rates["persona"].unique()
    return cosines[cosines["one"].isin(rated) & cosines["other"].isin(rated)]


def tabulate_cosines(rates: pd.DataFrame, similarities: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Put every bystander's leakage beside its cosines to the trigger and to the persona that it is compared with.

    Only current points that tied the marker to the trigger count.

    Returns:
        One row a condition x seed x bystander that was scored x to (a persona) x geometry x layer with a cosine: arm, role;
        hits, n, rate, low, high of the marker over all questions, the same over completions that were not cut (prefix
        finished_); headline (layer is the one that a report leads with), cosine, centring. geometry: `coupled` (the point's
        own model) or `induced` (the condition that has the same first stage and nothing else, where it has run).

    Raises:
        UserError: cosines were centred over different sets; see `require_one_centring`.
    """
    chosen = leakage_of(rates)
    coupled = (chosen["arm"] != UNCOUPLED) & (chosen["persona"] != chosen["source"]) & (chosen["n"] > 0)
    known = both_ways(require_one_centring(similarities)).rename(columns={"one": "persona", "other": "to"})
    known = known[known["to"].isin([settings.trigger, settings.compared])]
    cosines = known[["condition", "seed", "persona", "to", "layer", "headline", "cosine", "centring"]]
    parts = [
        chosen[coupled].merge(cosines.rename(columns={"condition": of}), on=[of, "seed", "persona"]).assign(geometry=geometry)
        for geometry, of in (("coupled", "condition"), ("induced", "reference"))
    ]
    return pd.concat(parts, ignore_index=True)[list(COSINE_COLUMNS)]


def correlate_cosines(bystander_cosines: pd.DataFrame) -> pd.DataFrame:
    """Correlate the bystanders' leakage with their cosines, seeds pooled: all hits and n are added, cosines averaged.

    Returns:
        One row a correlation. Scopes: `condition`, and `arm` where it has several conditions: both sides are ranked within
        each, and conditions and personas are resampled, crossed. of: `leakage`, or `leakage:finished` (over completions that
        were not cut) where it is known; to, geometry, layer and headline as in `tabulate_cosines`, finished leakage and the
        geometry `induced` at the headline layer alone; conditions (that entered, joined by commas); n is condition x bystander,
        and the rest as in `pipelines.correlation.Correlation`.
    """
    keys = ["arm", "condition", "persona", *_PAIR]
    groups = bystander_cosines.groupby(keys, sort=False)
    pooled = add_counts(groups, ("", FINISHED_)).join(groups["cosine"].mean()).reset_index()
    aside = ~pooled["headline"].astype(bool)  # of other layers, what is measured in the model itself is enough
    every = {"leakage": pooled[~aside | (pooled["geometry"] == "coupled")], "leakage:finished": pooled[~aside]}
    rows = [row for of in _OF for _, pairs in every[of].groupby(list(_PAIR), sort=False) for row in _correlate(pairs, of)]
    return pd.DataFrame(rows, columns=CORRELATION_COLUMNS)


def _correlate(pairs: pd.DataFrame, of: str) -> Iterator[dict[str, Any]]:
    """Correlate what one cosine says, in each condition and arm."""
    pairs = pairs.dropna(subset=[_OF[of], "cosine"])
    for arm, in_arm in pairs.groupby("arm", sort=False):
        scopes = [("condition", name, group) for name, group in in_arm.groupby("condition", sort=False)]
        if len(scopes) > 1:
            scopes.append(("arm", "all", in_arm))
        for scope, condition, group in scopes:
            conditions, several = group["condition"].tolist(), scope == "arm"
            found = correlation(
                group[_OF[of]].tolist(),
                group["cosine"].tolist(),
                within=conditions if several else None,
                clusters=[conditions, group["persona"].tolist()] if several else (),
            )
            named = {"scope": scope, "arm": arm, "condition": condition, "of": of}
            yield {**named, **group[list(_PAIR)].iloc[0], "conditions": ", ".join(dict.fromkeys(conditions)), **found._asdict()}
