"""Figures of trajectories. They draw what is in the tables and compute nothing."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from persona_leakage.experiments.convergence.tables import choose_headline
from persona_leakage.pipelines.reporting.figures import blank, draws_as_written, in_legend, panels, set_legend_beside
from persona_leakage.pipelines.reporting.page import interval


@draws_as_written
def draw_trajectories(pooled_trajectories: pd.DataFrame) -> Figure:
    """Draw leakage to the pulled persona above, and its cosine to the source below, over the epochs; seeds pooled.

    At an epoch the rates of the conditions stand beside each other, so that their intervals can be told apart.
    """
    if pooled_trajectories.empty:
        return blank("no checkpoint has run")
    pooled = pooled_trajectories.assign(cosine=choose_headline(pooled_trajectories))
    figure, (above, below) = panels(8, 7, down=2, sharex=True)
    conditions = pooled.groupby("condition", sort=False)
    gaps = np.diff(np.unique(pooled["checkpoint"]))
    apart = 0.5 * min(gaps, default=1) / len(conditions)
    for place, (condition, group) in enumerate(conditions):
        color, at = f"C{place % 10}", group["checkpoint"] + (place - (len(conditions) - 1) / 2) * apart
        above.plot(at, group["rate"] * 100, "o-", ms=4, color=color, label=in_legend(condition))
        above.vlines(at, group["low"] * 100, group["high"] * 100, color=color, alpha=0.5, lw=1)
        above.plot(at, group["source_rate"] * 100, ":", lw=0.9, color=color)
        if group["cosine"].notna().any():
            below.plot(group["checkpoint"], group["cosine"], "o-", ms=4, color=color)
    pulled = ", ".join(dict.fromkeys(pooled["pulled"]))
    above.set_ylabel(f"marker leakage to {pulled}, %\n(dotted: the source's own rate)")
    above.set_ylim(-3, 103)
    below.set_ylabel(f"cosine to the source{_layers(pooled)}")
    below.set_xlabel("epochs of pulling")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.axhline(0, color="#bbbbbb", lw=0.8, zorder=0)
    set_legend_beside(figure)
    return figure


@draws_as_written
def draw_peaks(summaries: pd.DataFrame, peak_correlations: pd.DataFrame) -> Figure:
    """Draw the peak leakage of every condition against the cosine before any pulling."""
    pooled = summaries.drop_duplicates("condition")  # a condition's first row pools its seeds
    complete = pooled[pooled["verdict"] != "incomplete"]
    known = complete.assign(cosine=choose_headline(complete)).dropna(subset="cosine")
    if known.empty:
        return blank("no condition has run from epoch 0 on")
    figure, (axes,) = panels(5, 4.2)
    for row in known.itertuples():
        axes.plot(row.cosine, row.peak * 100, "o", label=in_legend(f"{row.condition} ({row.verdict})"))
    found = peak_correlations[peak_correlations["headline"].astype(bool)]
    axes.set_title("\n".join(_say(row) for row in found.to_dict("records")), fontsize=9)
    axes.set_xlabel(f"cosine between the two before pulling{_layers(known)}")
    axes.set_ylabel("peak leakage, %")
    axes.set_ylim(-3, 103)
    set_legend_beside(figure)
    return figure


def _layers(table: pd.DataFrame) -> str:
    layers = [f"{layer:.0f}" for layer in table["headline_layer"].dropna().unique()]
    return f", layer {' or '.join(layers)}" if layers else ""


def _say(row: dict[Hashable, Any]) -> str:
    model = f"{row['model']}: " if "model" in row else ""
    p = "" if pd.isna(row["rho"]) else f", p {row['p']:.2g}"
    return f"{model}Spearman {interval(row['rho'], row['low'], row['high'], row['no_interval'])}{p}, n = {row['n']}"
