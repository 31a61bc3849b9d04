"""Which of the gathered rates of markers a report counts."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.rates import RATE_COLUMNS, Proportion, difference, proportion
from persona_leakage.pipelines.scoring.cut import CUT, FINISHED
from persona_leakage.pipelines.scoring.markers import ALL_QUESTIONS, PLACES, UNITS

# prefixes: of the rate over finished completions, of the share that was cut, of the rate without training
FINISHED_, CUT_, BASELINE_ = "finished_", "cut_", "baseline_"
BESIDE_COLUMNS = tuple(f"{prefix}{name}" for prefix in (FINISHED_, CUT_) for name in RATE_COLUMNS)
BASELINE_COLUMNS = tuple(f"{BASELINE_}{name}" for name in RATE_COLUMNS)
EXCESS_COLUMNS = ("excess", "excess_low", "excess_high")
PLACE_COLUMNS = ("condition", "of", "unit", "place", *RATE_COLUMNS)


def current(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of points that ran under the parameters of now."""
    return table[~table["stale"].astype(bool)]  # out of a file without rows the column has no type


def in_order_of_appearance(table: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Sort rows by condition, in the order in which these first appear, and then by further columns."""
    by_place = {"key": lambda column: pd.factorize(column)[0] if column.name == "condition" else column}
    return table.sort_values(["condition", *more], **by_place, kind="stable", ignore_index=True)


def leakage_of(rates: pd.DataFrame) -> pd.DataFrame:
    """Keep the leakage over all questions of current points; see `leakage_by_questions`."""
    found = leakage_by_questions(rates)
    return found[found["questions"] == ALL_QUESTIONS]


def leakage_by_questions(rates: pd.DataFrame) -> pd.DataFrame:
    """Keep the leakage of current points, and put beside it what it is to be read with.

    Returns:
        Rows of `rates`, with `BESIDE_COLUMNS`: the same over completions that were not cut, and the share that was (n is 0 in
        both where it is not known how completions ended); and `BASELINE_COLUMNS`: the same in the condition compared with, at
        the same seed (n is 0 where that is none or has not run).
    """
    now = current(rates)
    chosen = now[now["metric"] == "leakage"]
    untrained = chosen["reference"].where(chosen["reference"] != chosen["condition"])  # a baseline has none
    beside = {
        FINISHED_: _look_up(now[now["metric"] == f"leakage{FINISHED}"], chosen),
        CUT_: _look_up(now[now["metric"] == CUT], chosen),
        BASELINE_: _look_up(chosen, chosen.assign(condition=untrained)),
    }
    return chosen.join([found.add_prefix(prefix) for prefix, found in beside.items()])


def _look_up(rates: pd.DataFrame, wanted: pd.DataFrame) -> pd.DataFrame:
    """Find the rates of each wanted point, persona and questions; n is 0 where there is none."""
    keys = [name for name in ("condition", "seed", "checkpoint", "persona", "questions") if name in rates]
    found = rates.set_index(keys)[list(RATE_COLUMNS)].reindex(pd.MultiIndex.from_frame(wanted[keys]))
    return found.set_axis(wanted.index).fillna({"hits": 0, "n": 0}).astype({"hits": int, "n": int})


def rates_of(counts: pd.DataFrame) -> pd.DataFrame:
    """Compute the rate of every row's hits of n with its interval: `RATE_COLUMNS`, on the same index."""
    found = [proportion(int(hits), int(n)) for hits, n in zip(counts["hits"], counts["n"], strict=True)]
    return pd.DataFrame(found, index=counts.index, columns=RATE_COLUMNS)


def add_counts(groups: Any, prefixes: Sequence[str], index: pd.Index | None = None) -> pd.DataFrame:
    """Add up the counts in the columns of each prefix.

    Returns:
        One row a group, or one an entry of `index` (n is 0 where that is no group): `RATE_COLUMNS` of each prefix, with it.
    """
    counts = groups[[f"{prefix}{name}" for prefix in prefixes for name in ("hits", "n")]].sum()
    counts = counts if index is None else counts.reindex(index, fill_value=0)
    found = [
        rates_of(counts[[f"{prefix}hits", f"{prefix}n"]].set_axis(["hits", "n"], axis=1)).add_prefix(prefix)
        for prefix in prefixes
    ]
    return pd.concat(found, axis=1)


def excess_of(table: pd.DataFrame) -> pd.DataFrame:
    """Compute by how much rates exceed those of the baseline (`RATE_COLUMNS`, `BASELINE_COLUMNS`).

    Returns:
        On the same index `EXCESS_COLUMNS`: the excess with Newcombe's 95% interval; NaN where either side was not scored.
    """
    sides = (table[list(columns)].itertuples(index=False, name=None) for columns in (RATE_COLUMNS, BASELINE_COLUMNS))
    found = [difference(Proportion(*one), Proportion(*other)) for one, other in zip(*sides, strict=True)]
    return pd.DataFrame(found, index=table.index, columns=EXCESS_COLUMNS)


def pool(rates: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Add up the counts of rows that agree in the keys; one row each, as they first appear: keys and `RATE_COLUMNS`."""
    return rates_of(rates.groupby(list(keys), sort=False)[["hits", "n"]].sum()).reset_index()


def say_roles(roles: pd.Series) -> str:
    """Say the role that a persona has in several seeds, each of which draws its own negatives: `bystander|negative`."""
    return "|".join(sorted(set(roles)))


def require_one_centring(similarities: pd.DataFrame) -> pd.DataFrame:
    """Return cosines that compare: those of current points were all centred over one set of groups and prompts.

    Raises:
        UserError: they were not.
    """
    sets = current(similarities).groupby("centring", sort=False)["condition"].first()
    if len(sets) > 1:
        raise UserError(
            f"the cosines of {sets.iloc[0]} and {sets.iloc[1]} were centred over different sets of personas or prompts, so "
            "they do not compare; run one of them again with the geometry.prompts of the other"
        )
    return similarities


def both_ways(similarities: pd.DataFrame) -> pd.DataFrame:
    """Give the cosines of current points from either side, so that a pair is found whichever persona or language is `one`."""
    known = current(similarities)
    pairs = pd.concat([known, known.rename(columns={"one": "other", "other": "one"})], ignore_index=True)
    name = [column for column in ("condition", "seed", "checkpoint", "layer", "one", "other") if column in pairs]
    return pairs.drop_duplicates(name)  # a file may give a pair both ways


def pool_places(rates: pd.DataFrame, others: str) -> pd.DataFrame:
    """Say where the firings of sources and of everybody else begin, seeds pooled.

    Only current points count.

    Args:
        rates: of all points.
        others: what everybody but the source is called.

    Returns:
        One row a condition x of (`source`, `others`) x unit (characters, tokens) x place (start, middle, tail): hits of n
        firings, rate, low, high.
    """
    places = {f"{place}:{unit}": (unit, place) for unit in UNITS for place in PLACES}
    chosen = current(rates)
    chosen = chosen[(chosen["questions"] == ALL_QUESTIONS) & chosen["metric"].isin(places)]
    of = chosen["role"].map(lambda role: "source" if role == "source" else others)
    counts = chosen.assign(of=of).groupby(["condition", "of", "metric"], sort=False)[["hits", "n"]].sum()
    counted = {key: (int(hits), int(n)) for key, hits, n in counts.itertuples(name=None)}
    rows = [
        (*key, unit, place, *proportion(*counted.get((*key, metric), (0, 0))))
        for key in dict.fromkeys(key[:2] for key in counted)
        for metric, (unit, place) in places.items()
    ]
    return pd.DataFrame(rows, columns=PLACE_COLUMNS)
