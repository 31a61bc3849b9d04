"""How every report begins: what its points are, what made them, and what its intervals cover."""

import pandas as pd

from persona_leakage.pipelines.reporting.page import as_code, as_written
from persona_leakage.pipelines.reporting.rates import current
from persona_leakage.pipelines.reporting.seeds import several_seeds

_SHOWN = 4  # different training sets


def opening(title: str, points: pd.DataFrame, over_seeds: pd.DataFrame, said: str) -> list[str]:
    """Begin a report: title, what its points are and were made with, what holds for all rates, what intervals cover."""
    return [
        f"# {title}\n",
        origin(points),
        scope(points, said),
        *seeds_note(over_seeds, points),
        *stale_note(points),
    ]


def origin(points: pd.DataFrame) -> str:
    """Say what the numbers of the current points were made with."""
    if is_replay(points):
        return f"Completions made elsewhere, last from {as_code(points['replayed_file'].dropna().iloc[-1])}."
    said = [
        f"Base model {as_code(row.base_model)} ({as_written(row.revision)}, {row.dtype}), {row.samples:.0f} completions a "
        f"prompt at temperature {row.temperature}, top_p {row.top_p}, at most {row.max_tokens:.0f} tokens."
        for row in current(points).itertuples()
    ]
    return " ".join([*dict.fromkeys(said), *_trained(points)])


def _trained(points: pd.DataFrame) -> list[str]:
    """Say on how many rows how many parameters were trained."""
    said = list(dict.fromkeys(current(points)["trained"].dropna()))
    more = f", or others (`trained` in `points.csv` has all {len(said)})" if len(said) > _SHOWN else ""
    return [f"Trained: {', or '.join(said[:_SHOWN])}{more}."] if said else []


def scope(points: pd.DataFrame, *more: str) -> str:
    """Say how many current points there are, which, and what holds for all their rates."""
    now = current(points)
    if "again" in now:
        now = now[~now["again"].astype(bool)]
    return " ".join([f"{len(now)} {'point' if len(now) == 1 else 'points'}: {listing(now)}.", *more]) + "\n"


def is_replay(points: pd.DataFrame) -> bool:
    """Tell whether the results were made elsewhere."""
    return bool(points["replayed_file"].notna().any())


def seeds_note(over_seeds: pd.DataFrame, points: pd.DataFrame) -> list[str]:
    """Say what the intervals of a report cover; nothing for results from elsewhere, whose seeds are not known."""
    if several_seeds(over_seeds):
        most = over_seeds.groupby("condition", sort=False)["seeds"].max()
        single = ", ".join(map(as_written, most[most == 1].index))
        return [
            "Seeds are the unit of replication: a mean over seeds has a t 95% interval across them, each seed weighing the "
            "same (`no spread`: all seeds have the very same value, so that interval is undefined). The Wilson interval of "
            "pooled counts is within runs: it knows sampling, and nothing of how far training runs differ."
            + (f" One seed only, hence no interval across seeds: {single}." if single else "")
            + f" {_common(points)}".rstrip()
            + "\n"
        ]
    if is_replay(points):
        return []
    return [
        "One seed a condition: the interval of a rate is within one run. It covers the sampling of completions, not how far "
        "another training run would differ.\n"
    ]


def _common(points: pd.DataFrame) -> str:
    """Say what the seeds of the trained conditions have in common."""
    trained = current(points).dropna(subset=["shared"])
    conditions = trained.groupby("shared", sort=False)["condition"].unique()
    if conditions.empty:
        return ""
    if list(conditions.index) == ["nothing"]:
        return "Seeds have nothing in common: each draws its own training rows, their order, initial weights and completions."
    said = "; ".join(
        f"{shared}" + (f" ({', '.join(map(as_written, names))})" if len(conditions) > 1 else "")
        for shared, names in conditions.items()
    )
    return (
        f"What all seeds have in common, so that no interval covers how far it might differ: {said}. Everything else is drawn "
        "anew by each: further training rows, the order of all, initial weights and completions."
    )


def listing(points: pd.DataFrame) -> str:
    """List points as `condition (seed …)`."""
    seeds = points.groupby("condition", sort=False)["seed"].apply(lambda values: ", ".join(map(str, dict.fromkeys(values))))
    return "; ".join(f"{as_written(condition)} (seed {listed})" for condition, listed in seeds.items())


def stale_note(points: pd.DataFrame) -> list[str]:
    """Say which points are left out because other parameters made them; nothing if none is."""
    stale = points[points["stale"].astype(bool)]
    said = f"**Left out as stale** (ran under other parameters, run them again): {listing(stale)}.\n"
    return [said] if len(stale) else []
