"""How leakage and geometry change while one persona is pulled towards another."""

import math
from typing import Any

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, Difference, difference, proportion
from persona_leakage.experiments.convergence.settings import Settings
from persona_leakage.pipelines.bounds import LEVEL, Runs, Spread, at_least, difference_tails, holm, spread_of, trend_p
from persona_leakage.pipelines.correlation import Correlation, correlation
from persona_leakage.pipelines.reporting.claims import judge_all
from persona_leakage.pipelines.reporting.cut import find_cut_gaps
from persona_leakage.pipelines.reporting.mixed import COSINE, Layout, fit_effects
from persona_leakage.pipelines.reporting.rates import (
    BESIDE_COLUMNS,
    CUT_,
    FINISHED_,
    add_counts,
    both_ways,
    current,
    in_order_of_appearance,
    leakage_of,
    require_one_centring,
)
from persona_leakage.pipelines.reporting.seeds import CHANGE, keep_seeds
from persona_leakage.pipelines.reporting.texts import TEXT_RANGE_COLUMNS, compare_texts

_POINT = ("condition", "seed", "checkpoint", "source", "pulled")
_COUNTED = (*RATE_COLUMNS, *BESIDE_COLUMNS)
_PREFIXES = tuple(f"{of}{prefix}" for of in ("", "source_") for prefix in ("", FINISHED_, CUT_))
SUMMARY_COLUMNS = (
    "condition", "seed", "checkpoints", "baseline", "baseline_n", "peak", "peak_checkpoint", "peak_n", "final",
    "final_checkpoint", "final_n", "share_of_peak_early", "share_of_rise_early", "change", "change_low", "change_high",
    "peak_change", "peak_change_low", "peak_change_high", "verdict", "change_p", "change_p_adjusted", "peak_p", "trend_p",
    "scatter", "scatter_df", "headline_layer",
)  # fmt: skip
VERDICTS = ("increase", "decline", "transient", "no change")
CHANGE_SINCE_START = f"{CHANGE} since epoch 0"


def tabulate_trajectories(rates: pd.DataFrame, similarities: pd.DataFrame) -> pd.DataFrame:
    """Follow the pulled persona's leakage and its cosine to the source over the checkpoints of the pulling stage.

    Only current points count.

    Returns:
        One row a condition x seed x checkpoint (epoch): source, pulled (persona), hits, n, rate, low, high of the pulled
        persona, with the prefix finished_ over completions that were not cut, with cut_ of the share that was; all of these
        with the prefix source_; mean_bystander over the personas that are neither (equal weights), and mean_finished;
        headline_layer (missing where no cosine is known); and `cosine_l<layer>` between the two in the stack before the marker
        was trained.

    Raises:
        ValueError: a point did not evaluate its source or its pulled persona.
    """
    keys = list(_POINT)
    rows = []
    for key, point in leakage_of(rates).groupby(keys, sort=False):
        of, rated = dict(zip(_POINT, key, strict=True)), point.set_index("persona")[list(_COUNTED)]
        pair = [of["source"], of["pulled"]]
        if missing := [name for name in pair if name not in rated.index]:
            raise ValueError(f"{missing[0]} was not evaluated in {of}")
        source, pulled = (rated.to_dict("index")[name] for name in pair)
        source = {f"source_{name}": value for name, value in source.items()}
        others = rated.drop(pair)
        means = {"mean_bystander": others["rate"].mean(), "mean_finished": others["finished_rate"].mean()}
        rows.append({**of, **pulled, **source, **means})
    columns = [*_POINT, *_COUNTED, *(f"source_{name}" for name in _COUNTED), "mean_bystander", "mean_finished"]
    table = pd.DataFrame(rows, columns=columns)
    known = both_ways(require_one_centring(similarities)).rename(columns={"one": "source", "other": "pulled"})
    cosines = known.merge(table[keys], on=keys)
    headline = cosines[cosines["headline"].astype(bool)].groupby(keys)["layer"].first().rename("headline_layer")
    by_layer = cosines.pivot(index=keys, columns="layer", values="cosine").add_prefix("cosine_l")
    table = table.join(headline, on=keys).join(by_layer, on=keys).astype({"headline_layer": "Int64"})
    return in_order_of_appearance(table, "seed", "checkpoint")


def tabulate_text_ranges(texts: pd.DataFrame) -> pd.DataFrame:
    """Tell whether every current point's texts still look like those of the same condition and seed at epoch 0.

    Epoch 0 has no pulling, but the marker: what the marker's training alone does to the texts is in both.

    Returns:
        One row a condition x seed x checkpoint with `reporting.texts.TEXT_RANGE_COLUMNS`; without epoch 0 nothing is compared.
    """
    points = dict(list(current(texts).groupby(["condition", "seed", "checkpoint"], sort=False)))
    rows = []
    for (condition, seed, checkpoint), own in points.items():
        base = points.get((condition, seed, 0), own.iloc[:0]) if checkpoint else own.iloc[:0]
        rows.append({"condition": condition, "seed": seed, "checkpoint": checkpoint, **compare_texts(own, base)})
    return pd.DataFrame(rows, columns=["condition", "seed", "checkpoint", *TEXT_RANGE_COLUMNS])


def pool_trajectory_seeds(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Pool the seeds of every condition and checkpoint: counts are added, cosines averaged.

    Returns:
        One row a condition x checkpoint, with the columns of `tabulate_trajectories`; `seed` is `all` where the condition has
        several, though at a checkpoint there may be one.
    """
    cosines = [name for name in trajectories if name.startswith("cosine_l")]
    points = trajectories.groupby(["condition", "checkpoint"], sort=False)
    parts = [
        points[["source", "pulled", "headline_layer"]].first(),
        add_counts(points, _PREFIXES),
        points[["mean_bystander", "mean_finished", *cosines]].mean(),
    ]
    pooled = pd.concat(parts, axis=1).reset_index()
    seeds = trajectories.groupby("condition")["seed"].agg(lambda of: of.iloc[0] if of.nunique() == 1 else "all")
    return pooled.assign(seed=pooled["condition"].map(seeds))[list(trajectories.columns)]


def tabulate_trajectory_seeds(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Keep every rate, and how far it is from the same seed's at epoch 0, apart by seed; see `reporting.seeds.keep_seeds`.

    The keys are condition and checkpoint.
    """
    point = ["condition", "seed"]
    before = {"rate": "before", "finished_rate": "finished_before"}
    baseline = trajectories.loc[trajectories["checkpoint"] == 0, [*point, *before]].rename(columns=before)
    merged = trajectories.merge(baseline, on=point, how="left")
    merged["change"] = merged["rate"] - merged["before"]
    merged["finished_change"] = merged["finished_rate"] - merged["finished_before"]
    values = {
        "mean of bystanders": "mean_bystander", "mean of bystanders, finished": "mean_finished",
        CHANGE_SINCE_START: "change", f"{CHANGE_SINCE_START}, finished": "finished_change",
    }  # fmt: skip
    rates = {
        f"{of}{said}": f"{prefix}{beside}"
        for of, prefix in (("pulled", ""), ("source", "source_"))
        for said, beside in (("", ""), (", finished", FINISHED_), (", cut", CUT_))
    }
    return keep_seeds(merged, ["condition", "checkpoint"], rates, values)


def summarise_trajectories(trajectories: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Say for every condition how the pulled persona's leakage went, by comparing proportions and not single best points.

    `increase`: the final rate exceeds the baseline (epoch 0) and the Newcombe 95% interval of the difference excludes 0;
    `decline`: it falls below by the same test; `transient`: neither, but `peak_p` is at most 0.05; else `no change`. Without
    the baseline or a later checkpoint the verdict is `incomplete`.

    The p values count every checkpoint as a training of its own, which scatters by more than sampling (see `pipelines.bounds`).
    How far is estimated between seeds, or with one seed between neighbouring checkpoints, over all conditions together.

    Args:
        trajectories: see `tabulate_trajectories`.
        settings: early_checkpoint is the epoch whose share of the peak and of the rise is told.

    Returns:
        One row a condition, those of its seeds pooled that have run at both ends, and one a seed where there are several:
        baseline, peak and final rate with their n and epochs, share_of_peak_early (the rate at the early epoch over the peak),
        share_of_rise_early (of the way from baseline to peak), change (final - baseline) and peak_change with their intervals
        (of sampling alone), verdict; change_p (two-sided), change_p_adjusted (Holm over conditions; not of single seeds),
        peak_p (that any checkpoint exceeds the baseline; one-sided, Bonferroni over checkpoints), trend_p (of a trend over all
        checkpoints, two-sided); scatter (variance between trainings over that of sampling, at least 1) and scatter_df (its
        degrees of freedom); headline_layer, and for every layer `cosine_l<layer>` at the baseline, `_final` and `_direction`
        (rises, falls, unchanged).
    """
    labels = pool_trajectory_seeds(trajectories).drop_duplicates("condition").set_index("condition")["seed"]
    pooled = pool_trajectory_seeds(_choose_whole_courses(trajectories))
    pooled = pooled.assign(seed=pooled["condition"].map(labels))
    groups = [group for _, group in pooled.groupby("condition", sort=False)]
    for _, of_condition in trajectories.groupby("condition", sort=False):
        by_seed = [group for _, group in of_condition.groupby("seed", sort=False)]
        groups += by_seed if len(by_seed) > 1 else []
    cosines = [name for name in trajectories if name.startswith("cosine_l")]
    scatter = spread_of([_steps(course) for _, course in trajectories.groupby("condition", sort=False)])
    rows = [_summary(group.sort_values("checkpoint"), settings.early_checkpoint, cosines, scatter) for group in groups]
    more = [name + suffix for name in cosines for suffix in ("", "_final", "_direction")]
    table = pd.DataFrame(rows, columns=[*SUMMARY_COLUMNS, *more]).astype({"headline_layer": "Int64"})
    return table.assign(change_p_adjusted=holm(_pooled(table, settings)["change_p"]))


def count_verdicts(summaries: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Count the conditions of every verdict, seeds pooled; incomplete ones are not judged, follow-ups not counted.

    Returns:
        One row a verdict: verdict, count, of (judged conditions), conditions (joined by commas); none where no condition has
        run.
    """
    pooled = _pooled(summaries, settings)
    judged = pooled[pooled["verdict"] != "incomplete"]
    names = {verdict: judged.loc[judged["verdict"] == verdict, "condition"] for verdict in VERDICTS if len(pooled)}
    rows = [(verdict, len(of), len(judged), ", ".join(of)) for verdict, of in names.items()]
    return pd.DataFrame(rows, columns=["verdict", "count", "of", "conditions"])


def correlate_peaks(trajectories: pd.DataFrame, summaries: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Correlate the cosine before any pulling with the peak leakage, over conditions with seeds pooled, without follow-ups.

    Returns:
        One row a layer that any trajectory has a cosine of: layer, headline (a report leads with it), conditions (that entered,
        joined by commas), and `pipelines.correlation.Correlation` of peak with cosine; n is conditions.
    """
    pooled = _pooled(summaries, settings)
    pooled = pooled[pooled["verdict"] != "incomplete"]
    rows = []
    for name in [name for name in trajectories if name.startswith("cosine_l") and trajectories[name].notna().any()]:
        layer, known = int(name.removeprefix("cosine_l")), pooled[pooled[name].notna()]
        headline = bool((summaries["headline_layer"] == layer).any())
        found = correlation(known["peak"].tolist(), known[name].tolist())
        rows.append((layer, headline, ", ".join(known["condition"]), *found))
    return pd.DataFrame(rows, columns=["layer", "headline", "conditions", *Correlation._fields])


def average_texts(text_ranges: pd.DataFrame) -> pd.DataFrame:
    """Take the mean over seeds of what the texts of every condition and checkpoint look like.

    Returns:
        One row a condition x checkpoint: seeds, and the means of tokens, distinct_2, empty and cut; see `tabulate_text_ranges`.
    """
    groups = text_ranges.groupby(["condition", "checkpoint"], sort=False)
    means = {name: (name, "mean") for name in ("tokens", "distinct_2", "empty", "cut")}
    return groups.agg(seeds=("seed", "nunique"), **means).reset_index()


def compare_cut(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Find epochs of a condition at which the pulled persona or the source is cut to different extents.

    See `reporting.cut.find_cut_gaps`.
    """
    parts = [
        pd.DataFrame(
            {
                "scope": trajectories["condition"] + f", {of}",
                "name": "epoch " + trajectories["checkpoint"].astype(str),
                "hits": trajectories[f"{prefix}cut_hits"],
                "n": trajectories[f"{prefix}cut_n"],
            }
        )
        for of, prefix in (("pulled", ""), ("source", "source_"))
    ]
    return find_cut_gaps(pd.concat(parts, ignore_index=True))


def judge_claims(rates: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Evaluate every claim by its rule; see `reporting.claims.judge_all`.

    A cell is a persona at a checkpoint; the role of the pulled persona is `pulled`. At a checkpoint of the settings that has
    not run nothing is scored, which keeps a claim about every one from holding.
    """
    now = current(rates)
    ran = now[["condition", "checkpoint"]].drop_duplicates()
    unscored = now.drop_duplicates(["condition", "persona", "metric", "questions"]).assign(hits=0, n=0)
    for checkpoint in settings.epochs:
        without = unscored[~unscored["condition"].isin(ran.loc[ran["checkpoint"] == checkpoint, "condition"])]
        now = pd.concat([now, without.assign(checkpoint=checkpoint)], ignore_index=True)
    named = now.rename(columns={"questions": "part"}).assign(
        cell=now["persona"] + " at epoch " + now["checkpoint"].astype(str),
        role=now["role"].mask(now["persona"] == now["pulled"], "pulled"),
    )
    return judge_all(settings.claims, named)


def choose_headline(table: pd.DataFrame, suffix: str = "") -> list[Any]:
    """Choose every row's cosine at its own headline layer; NaN in a row without one."""
    return [
        math.nan if pd.isna(row["headline_layer"]) else row[f"cosine_l{row['headline_layer']:.0f}{suffix}"]
        for row in table.to_dict("records")
    ]


def _pooled(summaries: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    pooled = summaries.drop_duplicates("condition")  # a condition's first row pools its seeds
    return pooled[~pooled["condition"].isin(settings.follow_ups)]


def _choose_whole_courses(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Leave out seeds that lack an end which another of their condition has: its rate is not theirs to compare with."""
    scored = trajectories[trajectories["n"] > 0]
    last = scored.groupby("condition")["checkpoint"].transform("max")
    ends = scored[(scored["checkpoint"] == 0) | (scored["checkpoint"] == last)].groupby(["condition", "seed"])["n"].size()
    whole = set(ends[ends > 1].index)
    conditions = {condition for condition, _ in whole}
    points = zip(trajectories["condition"], trajectories["seed"], strict=True)
    kept = [point in whole or point[0] not in conditions for point in points]
    return trajectories[pd.Series(kept, trajectories.index, dtype=bool)]


def _steps(course: pd.DataFrame) -> list[Runs]:
    """Take the runs of every checkpoint that was scored, in order."""
    scored = course[course["n"] > 0]
    return [Runs(tuple(step["hits"]), tuple(step["n"])) for _, step in scored.groupby("checkpoint")]


def _summary(group: pd.DataFrame, early: int, cosines: list[str], scatter: Spread) -> dict[str, object]:
    known = group[group["n"] > 0]
    row: dict[str, object] = {
        "condition": group["condition"].iloc[0],
        "seed": group["seed"].iloc[0],
        "checkpoints": len(known),
        "verdict": "incomplete",
        "headline_layer": next(iter(group["headline_layer"].dropna()), None),
    }
    if len(known) < 2 or known["checkpoint"].iloc[0] != 0:
        return row
    first, last, peak = known.iloc[0], known.iloc[-1], known.loc[known["rate"].idxmax()]
    before, after, highest = (proportion(int(one["hits"]), int(one["n"])) for one in (first, last, peak))
    change, risen = difference(after, before), difference(highest, before)
    start, *later = _steps(known)
    peak_p = at_least([difference_tails(step, start, 0, scatter).above for step in later], 1)
    course = Runs(tuple(known["hits"]), tuple(known["n"]))
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
        **dict(zip(("change", "change_low", "change_high"), change, strict=True)),
        **dict(zip(("peak_change", "peak_change_low", "peak_change_high"), risen, strict=True)),
        "verdict": _verdict(change, peak_p),
        "change_p": min(1.0, 2 * min(difference_tails(later[-1], start, 0, scatter))),
        "peak_p": peak_p,
        "trend_p": trend_p(course, known["checkpoint"].tolist(), scatter),
        "scatter": scatter.factor,
        "scatter_df": scatter.df,
    }
    for name in cosines:
        begins, ends = first[name], last[name]
        unknown = pd.isna(begins) or pd.isna(ends)
        direction = "" if unknown else "rises" if ends > begins else "falls" if ends < begins else "unchanged"
        row |= {name: begins, f"{name}_final": ends, f"{name}_direction": direction}
    return row


def _verdict(change: Difference, peak_p: float) -> str:
    if change.low > 0:
        return "increase"
    if change.high < 0:
        return "decline"
    return "transient" if peak_p <= LEVEL else "no change"


def fit_courses(by_question: pd.DataFrame, trajectories: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare conditions by how much the pulled persona leaks, and by how much more when it lies nearer to the source.

    See `reporting.mixed.fit_effects`. Follow-ups are left out. A checkpoint of a seed is a training of its own; the cosine of
    the two personas at it is standardised within each condition.
    """
    now = current(by_question)
    pulled = now[(now["persona"] == now["pulled"]) & ~now["condition"].isin(settings.follow_ups)]
    keys = ["condition", "seed", "checkpoint"]
    cosines = trajectories[keys].assign(**{COSINE: pd.Series(choose_headline(trajectories), trajectories.index, dtype=float)})
    runs = {"seed": ("seed",), "checkpoint": ("seed", "checkpoint")}
    layout = Layout("condition", runs, ("question",), ("condition", "checkpoint"))
    return fit_effects(pulled.merge(cosines, on=keys, how="left"), layout, "pulled persona", "leakage")
