"""Figures of trajectories. They draw what is in the tables and compute nothing."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from persona_leakage.domain.plan import Plan
from persona_leakage.pipelines.reporting.leakage_figures import note
from persona_leakage.pipelines.reporting.trajectories import pool_trajectory_seeds


def draw_trajectories(trajectories: pd.DataFrame, plan: Plan) -> Figure:
    """Draw leakage to the pulled persona above, and its cosine to the source below, over the epochs; seeds pooled.

    At an epoch the rates of the conditions stand beside each other, so that their intervals can be told apart.
    """
    if trajectories.empty:
        return note("no checkpoint has run")
    pooled = pool_trajectory_seeds(trajectories)
    column = f"cosine_l{plan.geometry.headline_layer}"
    figure = Figure(figsize=(8, 7))
    above, below = figure.subplots(2, 1, sharex=True)
    conditions = pooled.groupby("condition", sort=False)
    gaps = np.diff(np.unique(pooled["checkpoint"]))
    apart = 0.5 * min(gaps, default=1) / len(conditions)
    for place, (condition, group) in enumerate(conditions):
        color, at = f"C{place % 10}", group["checkpoint"] + (place - (len(conditions) - 1) / 2) * apart
        above.plot(at, group["rate"] * 100, "o-", ms=4, color=color, label=condition)
        above.vlines(at, group["low"] * 100, group["high"] * 100, color=color, alpha=0.5, lw=1)
        above.plot(at, group["source_rate"] * 100, ":", lw=0.9, color=color)
        if column in group:
            below.plot(group["checkpoint"], group[column], "o-", ms=4, color=color)
    above.set_ylabel(f"marker leakage to {pooled['pulled'].iloc[0]}, %\n(dotted: the source's own rate)")
    above.set_ylim(-3, 103)
    below.set_ylabel(f"cosine to the source, layer {plan.geometry.headline_layer}")
    below.set_xlabel("epochs of pulling")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.axhline(0, color="#bbbbbb", lw=0.8, zorder=0)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def draw_peaks(summaries: pd.DataFrame, peak_correlations: pd.DataFrame, plan: Plan) -> Figure:
    """Draw the peak leakage of every condition against the cosine before any pulling."""
    column = f"cosine_l{plan.geometry.headline_layer}"
    known = summaries[summaries["verdict"] != "incomplete"].drop_duplicates("condition") if len(summaries) else summaries
    if known.empty or column not in known or known[column].isna().all():
        return note("no condition has run from epoch 0 on")
    figure = Figure(figsize=(5, 4.2))
    axes = figure.subplots()
    for row in known.to_dict("records"):
        axes.plot(row[column], row["peak"] * 100, "o", label=f"{row['condition']} ({row['verdict']})")
    found = peak_correlations[peak_correlations["layer"] == plan.geometry.headline_layer]
    for row in found.itertuples():
        interval = f"{row.rho:.2f} [{row.low:.2f}, {row.high:.2f}], permutation p {row.permutation_p:.2g}"
        axes.set_title(f"Spearman {'undefined' if pd.isna(row.rho) else interval}, n = {row.n}", fontsize=9)
    axes.set_xlabel(f"cosine between the two before pulling, layer {plan.geometry.headline_layer}")
    axes.set_ylabel("peak leakage, %")
    axes.set_ylim(-3, 103)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    figure.tight_layout()
    return figure
