"""A mixed model of the counts by question: what conditions differ by, with the dependence of completions taken in."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from persona_leakage.pipelines.mixed_model import Fit, Random, fit
from persona_leakage.pipelines.reporting.page import number, table
from persona_leakage.pipelines.scoring.cut import FINISHED

COSINE = "cosine"
FEWEST_LEVELS = 5  # of a question or a persona, to estimate how much they differ
_FREE = 3.0  # standard deviation in log-odds of fewer: nearly none is ruled out
_MOST_EFFECTS = 4000  # the fit takes their square in memory, their cube in time
_LOGISTIC = math.pi**2 / 3  # variance of the logistic distribution, which completions have
_ESTIMATES = (
    "log_odds", "low", "high", "df", "odds_ratio", "odds_low", "odds_high", "sd", "sd_low", "sd_high", "icc", "levels",
)  # fmt: skip
MIXED_COLUMNS = ("scope", "of", "kind", "term", *_ESTIMATES, "hits", "n", "cells", "asked", "seeds", "reason")


class Layout(NamedTuple):
    """Which columns of counts by question are what.

    Attributes:
        compared: whose values are compared.
        runs: name → columns that tell training runs of one such value apart; those that others lie in come first.
        units: what is the same in all runs, the questions last.
        cell: columns that tell cells apart.
    """

    compared: str
    runs: Mapping[str, tuple[str, ...]]
    units: tuple[str, ...]
    cell: tuple[str, ...]


def fit_effects(counts: pd.DataFrame, layout: Layout, scope: str, of: str) -> pd.DataFrame:
    """Fit a logistic mixed model to hits of n, raw and over finished completions; see `pipelines.mixed_model`.

    Fixed are the effects of what is compared, and of the column `cosine`, where there is one, standardised within each of
    these. Random are training runs, units (questions, personas), and units within what is compared. A unit with fewer than
    `FEWEST_LEVELS` levels is left nearly free instead.

    Args:
        counts: one row a cell x question x run: the layout's columns, seed, hits, n, finished_hits and finished_n.
        layout: names its columns.
        scope: what the cells are called.
        of: what is counted.

    Returns:
        One row an effect: scope, of (also with the suffix `:finished`), kind, term. Kinds: `level` (log-odds of the first that
        is compared, at an average run, question and persona), `contrast` (`x v first`), `slope` (of a standard deviation of
        the cosine) and `random`. log_odds with its 95% interval (low, high; Student's t with df degrees of freedom), odds_ratio
        (of contrasts and slopes) with odds_low and odds_high; of random effects sd (of log-odds) with sd_low and sd_high, icc
        (their variance over all variance on the latent scale: that of all random effects and pi^2/3) and levels; hits, n
        (completions), cells, asked (questions) and seeds that tell of it; reason (why something is not estimated, or what its
        interval leaves out; blank otherwise).
    """
    kinds = {of: ("hits", "n"), f"{of}{FINISHED}": ("finished_hits", "finished_n")}
    rows = [
        {"scope": scope, "of": name, **row}
        for name, (hits, n) in kinds.items()
        for row in _fit(counts.assign(hits=counts[hits], n=counts[n]), layout)
    ]
    return pd.DataFrame(rows, columns=MIXED_COLUMNS).astype(
        dict.fromkeys(("levels", "hits", "n", "cells", "asked", "seeds"), "Int64")
    )


def _fit(counts: pd.DataFrame, layout: Layout) -> Iterator[dict[str, Any]]:
    told = counts[counts["n"] > 0]
    if told.empty:
        if len(counts):
            yield {"kind": "level", "term": "all", **_number(counts, layout), "reason": "not known of any completion"}
        return
    cosine = COSINE if COSINE in told and told[COSINE].notna().any() else None
    known = told if cosine is None else _standardise(told, layout)
    sums = known.groupby(layout.compared, sort=False)[["hits", "n"]].sum()
    names = [name for name, hits, n in sums.itertuples(name=None) if 0 < hits < n]
    for name in dict.fromkeys(counts[layout.compared]):
        if name not in names:
            own = counts[counts[layout.compared] == name]
            why = _why_left_out(own, sums.index, name)
            yield {"kind": "contrast", "term": name, **_number(own, layout), "reason": why}
    if not names:
        return
    chosen = known[known[layout.compared].isin(names)]
    random, held = _choose_random(chosen, layout)
    keys = dict.fromkeys([layout.compared, *chain(*random.values()), *filter(None, [cosine])])
    grouped = chosen.groupby(list(keys), sort=False)[["hits", "n"]].sum().reset_index()
    fixed = [np.ones(len(grouped)), *((grouped[layout.compared] == name).to_numpy(float) for name in names[1:])]
    fixed += [] if cosine is None else [grouped[cosine].to_numpy(float)]
    terms = [_indicate(grouped, columns, name in held) for name, columns in random.items()]
    try:
        if (size := len(fixed) + sum(term.columns.shape[1] for term in terms)) > _MOST_EFFECTS:
            raise ArithmeticError(f"{size} effects are too many to fit at once")
        found = fit(grouped["hits"].to_numpy(float), grouped["n"].to_numpy(float), np.stack(fixed, axis=1), terms)
        why = ""
    except ArithmeticError as error:
        found, why = None, str(error)
    single = [name for name, columns in layout.runs.items() if len(columns) == 1 and name not in random]
    notes = [f"no {name} is repeated: of these training runs alone" for name in single]
    if without := told.groupby(list(layout.cell)).ngroups - known.groupby(list(layout.cell)).ngroups:
        notes.append(f"{without} cells without a cosine are left out")
    yield from _fixed_rows(found, why or "; ".join(notes), names, chosen, layout, cosine)
    yield from _random_rows(found, why, random, held, chosen, layout)


def _standardise(told: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Standardise cosines within each of what is compared; rows without one, or where they do not vary, drop out."""
    of = told.groupby(layout.compared, sort=False)[COSINE]
    spread = of.transform("std")
    standard = (told[COSINE] - of.transform("mean")) / spread.where(spread > 1e-9)
    return told.assign(**{COSINE: standard})[standard.notna()]


def _why_left_out(own: pd.DataFrame, with_cosine: pd.Index, name: str) -> str:
    hits, n = int(own["hits"].sum()), int(own["n"].sum())
    if not n:
        return "no completion of which this is known"
    if hits in (0, n):
        return f"{hits} of {n}: no finite odds (separation)"
    return "no hit, or no miss, among those with a cosine" if name in with_cosine else "no cosine that varies"


def _choose_random(chosen: pd.DataFrame, layout: Layout) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """Choose the terms that are fitted: name → columns, and those of few levels.

    What a term tells beyond those that it contains is its levels less their degrees of freedom, and one.
    """
    random, held, within = {}, set(), layout.compared
    freedom = {frozenset([within]): chosen[within].nunique() - 1}
    listed = [(name, (within, *columns), 1) for name, columns in layout.runs.items()]
    for unit in layout.units:
        listed += [(unit, (unit,), FEWEST_LEVELS - 1), (f"{unit} in {within}", (within, unit), FEWEST_LEVELS - 1)]
    for name, columns, fewest in listed:
        own = frozenset(columns)
        free = len(chosen[list(columns)].drop_duplicates()) - 1 - sum(of for term, of in freedom.items() if term < own)
        freedom[own] = max(0, free)
        if free >= fewest:
            random[name] = columns
        elif name in layout.units and free:
            random[name] = columns
            held.add(name)
    return random, held


def _indicate(grouped: pd.DataFrame, columns: Sequence[str], held: bool) -> Random:
    codes = grouped.groupby(list(columns), sort=False).ngroup().to_numpy()
    ones = sparse.csr_array((np.ones(len(codes)), (np.arange(len(codes)), codes)))
    # the level is that of the mean of levels which are no sample of many
    return Random(sparse.csr_array(ones.toarray() - 1 / ones.shape[1]), _FREE) if held else Random(ones)


def _fixed_rows(
    found: Fit | None, reason: str, names: Sequence[str], chosen: pd.DataFrame, layout: Layout, cosine: str | None
) -> Iterator[dict[str, Any]]:
    first, *others = names
    told = {name: chosen[chosen[layout.compared] == name] for name in names}
    listed = [("level", first, told[first]), *(("contrast", f"{name} v {first}", told[name]) for name in others)]
    if cosine is not None:
        listed.append(("slope", cosine, chosen))
    for place, (kind, term, rows) in enumerate(listed):
        estimate = _estimate(found, place, kind != "level")
        yield {"kind": kind, "term": term, **_number(rows, layout), "reason": reason, **estimate}
    if cosine is None and COSINE in chosen:
        yield {"kind": "slope", "term": COSINE, **_number(chosen, layout), "reason": "no cosine is known"}


def _estimate(found: Fit | None, place: int, ratio: bool) -> dict[str, float]:
    from scipy.stats import t

    if found is None:
        return {}
    value, df = float(found.fixed[place]), float(found.df[place])
    half = float(t.isf(0.025, df)) * float(found.error[place])
    ends = {"log_odds": value, "low": value - half, "high": value + half}
    odds = dict(zip(("odds_ratio", "odds_low", "odds_high"), map(_odds, ends.values()), strict=True)) if ratio else {}
    return {**ends, "df": df, **odds}


def _odds(log_odds: float) -> float:
    return math.exp(log_odds) if log_odds < 700 else math.inf


def _random_rows(
    found: Fit | None, why: str, random: Mapping[str, tuple[str, ...]], held: set[str], chosen: pd.DataFrame, layout: Layout
) -> Iterator[dict[str, Any]]:
    every = {name: (layout.compared, *columns) for name, columns in layout.runs.items()}
    for unit in layout.units:
        every[unit] = (unit,)
        if chosen[layout.compared].nunique() > 1:
            every[f"{unit} in {layout.compared}"] = (layout.compared, unit)
    places, numbers = {name: place for place, name in enumerate(random)}, _number(chosen, layout)
    whole = _LOGISTIC if found is None else _LOGISTIC + sum(found.sd[places[name]] ** 2 for name in places if name not in held)
    for name, columns in every.items():
        levels, told, reason = len(chosen[list(columns)].drop_duplicates()), {}, why
        if name not in random or name in held:
            reason = _why_no_spread(name, levels, layout)
        elif found is not None:
            sd, factor = float(found.sd[places[name]]), math.exp(1.96 * float(found.sd_error[places[name]]))
            told = {"sd": sd, "sd_low": sd / factor, "sd_high": sd * factor, "icc": sd**2 / whole}
        yield {"kind": "random", "term": name, "levels": levels, **numbers, "reason": reason, **told}


def _why_no_spread(name: str, levels: int, layout: Layout) -> str:
    if name in layout.runs:
        return "nothing repeats it: how far training runs differ is in no interval"
    return f"too few ({levels}): intervals are of these alone"


def _number(told: pd.DataFrame, layout: Layout) -> dict[str, int]:
    seen = told[told["n"] > 0]
    return {
        "hits": int(seen["hits"].sum()),
        "n": int(seen["n"].sum()),
        "cells": seen.groupby(list(layout.cell)).ngroups,
        "asked": seen[layout.units[-1]].nunique(),
        "seeds": seen["seed"].nunique(),
    }


def write_mixed(mixed_effects: pd.DataFrame) -> list[str]:
    """Write the section of a report that has the mixed model; nothing without counts by question."""
    if mixed_effects.empty:
        return []
    fixed, random = (mixed_effects[(mixed_effects["kind"] == "random") == of] for of in (False, True))
    return [
        "## Mixed model\n",
        "Logistic, of every completion: completions of one training run, question or persona are alike, and the intervals know "
        "it. An odds ratio is that of one question and persona, so it lies further from 1 than one of pooled rates. `level` is "
        "in log-odds, of an average run, question and persona; a slope is that of one standard deviation of the cosine within "
        "its condition.\n",
        table(_shown_fixed(fixed)),
        "How far the log-odds of training runs, questions and personas differ; ICC is their share of the variance on the "
        "latent scale.\n",
        table(_shown_random(random)),
    ]


def _shown_fixed(fixed: pd.DataFrame) -> pd.DataFrame:
    rows = list(fixed.itertuples())
    return fixed[["scope", "of", "kind", "term"]].assign(
        **{
            "log-odds": [_say(row.log_odds, row.low, row.high, "+.2f") for row in rows],
            "odds ratio": [_say(row.odds_ratio, row.odds_low, row.odds_high, ".2f") for row in rows],
            "df": [number(row.df, ".0f") for row in rows],
            "hits/n": [f"{row.hits}/{row.n}" for row in rows],
            "cells": fixed["cells"],
            "questions": fixed["asked"],
            "seeds": fixed["seeds"],
            "reason": fixed["reason"].fillna(""),
        }
    )


def _shown_random(random: pd.DataFrame) -> pd.DataFrame:
    rows = list(random.itertuples())
    return random[["scope", "of", "term", "levels"]].assign(
        SD=[_say(row.sd, row.sd_low, row.sd_high, ".2f") for row in rows],
        ICC=[number(row.icc, ".3f") for row in rows],
        reason=random["reason"].fillna(""),
    )


def _say(value: float, low: float, high: float, form: str) -> str:
    return "" if pd.isna(value) else f"{value:{form}} [{low:{form}}, {high:{form}}]"
