"""How leakage and geometry change while one persona is pulled towards another."""

import math

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, difference, proportion
from persona_leakage.pipelines.correlation import Correlation, correlation
from persona_leakage.pipelines.reporting.seeds import CHANGE, keep_seeds
from persona_leakage.pipelines.reporting.texts import TEXT_RANGE_COLUMNS, compare_texts

_POINT = ("condition", "seed", "checkpoint", "source", "pulled")
SUMMARY_COLUMNS = (
    "condition", "seed", "checkpoints", "baseline", "baseline_n", "peak", "peak_checkpoint", "peak_n", "final",
    "final_checkpoint", "final_n", "share_of_peak_early", "share_of_rise_early", "change", "change_low", "change_high",
    "peak_change", "peak_change_low", "peak_change_high", "verdict",
)  # fmt: skip
CHANGE_SINCE_START = f"{CHANGE} since epoch 0"


def tabulate_trajectories(rates: pd.DataFrame, similarities: pd.DataFrame) -> pd.DataFrame:
    """Follow the pulled persona's leakage and its cosine to the source over the checkpoints of the pulling stage.

    Only current points count.

    Returns:
        One row a condition x seed x checkpoint (epoch): source, pulled (persona), hits, n, rate, low, high of the pulled
        persona; the same five with the prefix source_; mean_bystander over the personas that are neither (equal weights);
        and `cosine_l<layer>` between the two in the stack before the marker was trained.

    Raises:
        ValueError: a point did not evaluate its source or its pulled persona.
    """
    chosen = rates[~rates["stale"].astype(bool) & (rates["metric"] == "leakage") & (rates["questions"] == "all")]
    chosen = chosen[[*_POINT, "persona", *RATE_COLUMNS]]
    cosines_of: dict[tuple[object, ...], dict[str, float]] = {}
    pairs = similarities.loc[~similarities["stale"].astype(bool), [*_POINT[:3], "layer", "one", "other", "cosine"]]
    for *point_, layer, one, other, cosine in pairs.itertuples(index=False, name=None):
        cosines_of.setdefault((*point_, frozenset((one, other))), {})[f"cosine_l{layer}"] = cosine
    rows = []
    for key, point in chosen.groupby(list(_POINT), sort=False):
        by_persona = point.set_index("persona")
        of = dict(zip(_POINT, key, strict=True))
        if missing := [of[name] for name in ("source", "pulled") if of[name] not in by_persona.index]:
            raise ValueError(f"{missing[0]} was not evaluated in {of}")
        others = by_persona.drop(index=[of["source"], of["pulled"]])
        cosines = cosines_of.get((*key[:3], frozenset((of["source"], of["pulled"]))), {})
        own, source = by_persona.loc[of["pulled"]], by_persona.loc[of["source"]]
        rows.append(
            {
                **of,
                **{name: own[name] for name in RATE_COLUMNS},
                **{f"source_{name}": source[name] for name in RATE_COLUMNS},
                "mean_bystander": others["rate"].mean(),
                **cosines,
            }
        )
    columns = [*_POINT, *RATE_COLUMNS, *(f"source_{name}" for name in RATE_COLUMNS), "mean_bystander"]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    order = {name: place for place, name in enumerate(dict.fromkeys(table["condition"]))}
    places = table["condition"].map(order)
    return table.assign(_place=places).sort_values(["_place", "seed", "checkpoint"], ignore_index=True).drop(columns="_place")


def tabulate_text_ranges(texts: pd.DataFrame) -> pd.DataFrame:
    """Tell whether every current point's texts still look like those of the same condition and seed at epoch 0.

    Epoch 0 has no pulling, but the marker: what the marker's training alone does to the texts is in both.

    Returns:
        One row a condition x seed x checkpoint with `reporting.texts.TEXT_RANGE_COLUMNS`; without epoch 0 nothing is compared.
    """
    points = dict(list(texts[~texts["stale"].astype(bool)].groupby(["condition", "seed", "checkpoint"], sort=False)))
    rows = []
    for (condition, seed, checkpoint), own in points.items():
        base = points.get((condition, seed, 0), own.iloc[:0]) if checkpoint else own.iloc[:0]
        rows.append({"condition": condition, "seed": seed, "checkpoint": checkpoint, **compare_texts(own, base)})
    return pd.DataFrame(rows, columns=["condition", "seed", "checkpoint", *TEXT_RANGE_COLUMNS])


def pool_trajectory_seeds(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Pool the seeds of every condition and checkpoint: counts are added, cosines averaged.

    `seed` is `all` where the condition has several, though at a checkpoint there may be one.
    """
    cosines = [name for name in trajectories if name.startswith("cosine_l")]
    seeds = trajectories.groupby("condition")["seed"].nunique()
    rows = []
    for key, group in trajectories.groupby(["condition", "checkpoint"], sort=False):
        own = proportion(int(group["hits"].sum()), int(group["n"].sum()))
        source = proportion(int(group["source_hits"].sum()), int(group["source_n"].sum()))
        rows.append(
            {
                "condition": key[0],
                "seed": group["seed"].iloc[0] if seeds[key[0]] == 1 else "all",
                "checkpoint": key[1],
                "source": group["source"].iloc[0],
                "pulled": group["pulled"].iloc[0],
                **own._asdict(),
                **{f"source_{name}": value for name, value in source._asdict().items()},
                "mean_bystander": group["mean_bystander"].mean(),
                **{name: group[name].mean() for name in cosines},
            }
        )
    return pd.DataFrame(rows, columns=list(trajectories.columns))


def tabulate_trajectory_seeds(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Keep every rate, and how far it is from the same seed's at epoch 0, apart by seed; see `reporting.seeds.keep_seeds`.

    The keys are condition and checkpoint.
    """
    point = ["condition", "seed"]
    baseline = trajectories.loc[trajectories["checkpoint"] == 0, [*point, "rate"]].rename(columns={"rate": "before"})
    merged = trajectories.merge(baseline, on=point, how="left")
    values = {"mean of bystanders": "mean_bystander", CHANGE_SINCE_START: "change"}
    rates = {"pulled": "", "source": "source_"}
    return keep_seeds(merged.assign(change=merged["rate"] - merged["before"]), ["condition", "checkpoint"], rates, values)


def summarise_trajectories(trajectories: pd.DataFrame, early: int) -> pd.DataFrame:
    """Say for every condition how the pulled persona's leakage went, by comparing proportions and not single best points.

    `increase`: the final rate exceeds the baseline (epoch 0) and the Newcombe 95% interval of the difference excludes 0;
    `decline`: it falls below by the same test; `transient`: neither, but the peak exceeds the baseline so; else `no change`.
    Without the baseline or a later checkpoint the verdict is `incomplete`.

    Args:
        trajectories: see `tabulate_trajectories`.
        early: the epoch whose share of the peak and of the rise is told.

    Returns:
        One row a condition, its seeds pooled, and one a seed where there are several: baseline, peak and final rate with
        their n and epochs, share_of_peak_early (the rate at the early epoch over the peak), share_of_rise_early (of the way
        from baseline to peak), change (final - baseline) and peak_change with their intervals, verdict, and for every layer
        `cosine_l<layer>` at the baseline, `_final` and `_direction` (rises, falls, unchanged).
    """
    pooled = pool_trajectory_seeds(trajectories)
    groups = [group for _, group in pooled.groupby("condition", sort=False)]
    for _, of_condition in trajectories.groupby("condition", sort=False):
        by_seed = [group for _, group in of_condition.groupby("seed", sort=False)]
        groups += by_seed if len(by_seed) > 1 else []
    cosines = [name for name in trajectories if name.startswith("cosine_l")]
    rows = [_summary(group.sort_values("checkpoint"), early, cosines) for group in groups]
    more = [name + suffix for name in cosines for suffix in ("", "_final", "_direction")]
    return pd.DataFrame(rows, columns=[*SUMMARY_COLUMNS, *more])


def correlate_peaks(summaries: pd.DataFrame) -> pd.DataFrame:
    """Correlate the cosine before any pulling with the peak leakage, over conditions with seeds pooled.

    Returns:
        One row a layer: layer, and `pipelines.correlation.Correlation` of peak with cosine; n is conditions.
    """
    pooled = summaries.drop_duplicates("condition")  # a condition's first row pools its seeds
    pooled = pooled[pooled["verdict"] != "incomplete"]
    rows = []
    for name in [name for name in summaries if name.startswith("cosine_l") and name.count("_") == 1]:
        known = pooled[pooled[name].notna()]
        rows.append((int(name.removeprefix("cosine_l")), *correlation(known["peak"].tolist(), known[name].tolist())))
    return pd.DataFrame(rows, columns=["layer", *Correlation._fields])


def _summary(group: pd.DataFrame, early: int, cosines: list[str]) -> dict[str, object]:
    known = group[group["n"] > 0]
    row: dict[str, object] = {
        "condition": group["condition"].iloc[0],
        "seed": group["seed"].iloc[0],
        "checkpoints": len(known),
        "verdict": "incomplete",
    }
    if len(known) < 2 or known["checkpoint"].iloc[0] != 0:
        return row
    first, last, peak = known.iloc[0], known.iloc[-1], known.loc[known["rate"].idxmax()]
    at = {name: proportion(int(one["hits"]), int(one["n"])) for name, one in (("first", first), ("last", last), ("peak", peak))}
    change, risen = difference(at["last"], at["first"]), difference(at["peak"], at["first"])
    at_early = known.loc[known["checkpoint"] == early, "rate"]
    rise = peak["rate"] - first["rate"]
    row |= {
        "baseline": first["rate"],
        "baseline_n": int(first["n"]),
        "peak": peak["rate"],
        "peak_checkpoint": int(peak["checkpoint"]),
        "peak_n": int(peak["n"]),
        "final": last["rate"],
        "final_checkpoint": int(last["checkpoint"]),
        "final_n": int(last["n"]),
        "share_of_peak_early": at_early.iloc[0] / peak["rate"] if len(at_early) and peak["rate"] > 0 else math.nan,
        "share_of_rise_early": (at_early.iloc[0] - first["rate"]) / rise if len(at_early) and rise > 0 else math.nan,
        "change": change.value,
        "change_low": change.low,
        "change_high": change.high,
        "peak_change": risen.value,
        "peak_change_low": risen.low,
        "peak_change_high": risen.high,
        "verdict": "increase"
        if change.low > 0
        else "decline"
        if change.high < 0
        else "transient"
        if risen.low > 0
        else "no change",
    }
    for name in cosines:
        begins, ends = first[name], last[name]
        unknown = pd.isna(begins) or pd.isna(ends)
        direction = "" if unknown else "rises" if ends > begins else "falls" if ends < begins else "unchanged"
        row |= {name: begins, f"{name}_final": ends, f"{name}_direction": direction}
    return row
