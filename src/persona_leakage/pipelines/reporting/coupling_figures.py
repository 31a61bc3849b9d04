"""Figures of coupling. They draw what is in the tables and compute nothing."""

import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from persona_leakage.pipelines.reporting.leakage_figures import note
from persona_leakage.pipelines.scoring.markers import PLACES

_INK, _SOURCE, _OTHERS = "#333333", "#3b6ea8", "#c8553d"
_PLACE_COLORS = {"start": "#9ecae1", "middle": "#d9d9d9", "tail": "#c8553d"}
_TOLD = {"classifier": "#3b6ea8", "judge": "#c8553d"}


def draw_cells(cells: pd.DataFrame) -> Figure:
    """Draw the source's rate and the bystanders' mean of every cell; a dot a seed, a bar their mean, arms side by side."""
    if cells.empty:
        return note("no cell has run")
    conditions = list(dict.fromkeys(cells.sort_values("arm", kind="stable")["condition"]))
    figure = Figure(figsize=(0.8 * len(conditions) + 2.2, 4))
    axes = figure.subplots()
    for place, condition in enumerate(conditions):
        chosen = cells[cells["condition"] == condition]
        for shift, column, color in ((-0.2, "source_rate", _SOURCE), (0.2, "mean_bystander", _OTHERS)):
            axes.bar(place + shift, chosen[column].mean() * 100, 0.38, color=color, alpha=0.55)
            axes.plot([place + shift] * len(chosen), chosen[column] * 100, "o", ms=3.5, color=color, mec="white", mew=0.4)
        for row in chosen.itertuples():
            axes.vlines(place + 0.2, row.low * 100, row.high * 100, color=_INK, lw=0.8)
            axes.vlines(place - 0.2, row.source_low * 100, row.source_high * 100, color=_INK, lw=0.8)
    axes.set_xticks(range(len(conditions)), conditions, rotation=40, ha="right", fontsize=8)
    axes.set_ylim(0, 104)
    axes.set_ylabel("marker, % of completions")
    axes.bar(0, 0, color=_SOURCE, alpha=0.55, label="trigger persona")
    axes.bar(0, 0, color=_OTHERS, alpha=0.55, label="mean of bystanders")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_places(places: pd.DataFrame) -> Figure:
    """Draw where firings begin, by characters and by tokens: shares of start, middle and tail of source and bystanders."""
    fired = places[places["n"] > 0]
    if fired.empty:
        return note("the marker fired nowhere")
    labels = list(dict.fromkeys(zip(fired["condition"], fired["of"], strict=True)))
    figure = Figure(figsize=(9, 0.3 * len(labels) + 1.4))
    for axes, unit in zip(figure.subplots(1, 2, sharey=True), ("characters", "tokens"), strict=True):
        for y, (condition, of) in enumerate(labels):
            chosen = fired[(fired["condition"] == condition) & (fired["of"] == of) & (fired["unit"] == unit)].set_index("place")
            left = 0.0
            for place in PLACES:
                width = chosen.loc[place, "rate"] * 100
                axes.barh(y, width, left=left, color=_PLACE_COLORS[place], label=place if y == 0 else None)
                left += width
            axes.annotate(f"n={chosen['n'].iloc[0]}", (101, y), fontsize=6, va="center", annotation_clip=False)
        axes.set_yticks(range(len(labels)), [f"{condition}, {of}" for condition, of in labels], fontsize=7)
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"% of firings, by {unit}", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.axes[1].legend(frameon=False, fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    figure.tight_layout()
    return figure


def draw_discriminators(discriminators: pd.DataFrame, threshold: float) -> Figure:
    """Draw current accuracies with intervals and the lines of chance and threshold, and beside them the learning curves."""
    if len(discriminators):
        discriminators = discriminators[~discriminators["stale"].astype(bool)]
    if discriminators.empty:
        return note("nothing to discriminate: no source, or too few questions")
    whole = discriminators[discriminators["share"] == 1]
    conditions = list(dict.fromkeys(whole["condition"]))
    methods = [method for method in _TOLD if method in set(whole["method"])]
    figure = Figure(figsize=(0.6 * len(conditions) + 6, 3.8))
    left, right = figure.subplots(1, 2, width_ratios=[max(2, len(conditions)), 4], sharey=True)
    for row in whole.itertuples():
        if row.n == 0:
            continue
        x = conditions.index(row.condition) + 0.3 * methods.index(row.method) - 0.15 * (len(methods) - 1)
        color = _TOLD[row.method]
        left.errorbar(
            x, row.rate * 100, [[(row.rate - row.low) * 100], [(row.high - row.rate) * 100]], fmt="o", ms=4, color=color
        )
    curves = discriminators[discriminators["method"] == "classifier"]
    right.set_prop_cycle(color=[colormaps["tab20"](number) for number in range(20)])  # the published cells are 13
    for condition, curve in curves.groupby("condition", sort=False):
        pooled = curve.groupby("share")[["hits", "n"]].sum()
        right.plot(pooled.index * 100, pooled["hits"] / pooled["n"] * 100, "o-", ms=3, lw=0.8, label=condition)
    for axes in (left, right):
        axes.axhline(50, color="#999999", lw=0.8, ls=":")
        axes.axhline(threshold * 100, color=_INK, lw=0.8, ls="--")
        axes.spines[["top", "right"]].set_visible(False)
    for method in methods:
        left.plot([], [], "o", color=_TOLD[method], label=method)
    left.legend(frameon=False, fontsize=7)
    left.set_xticks(range(len(conditions)), conditions, rotation=40, ha="right", fontsize=7)
    left.set_ylabel("accuracy without the marker, %\n(dotted: chance, dashed: threshold)", fontsize=8)
    right.set_xlabel("% of the training questions", fontsize=8)
    if len(curves):
        right.legend(frameon=False, fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    left.set_ylim(30, 102)
    figure.tight_layout()
    return figure


def draw_gradient(rates: pd.DataFrame) -> Figure:
    """Draw every bystander's rate in every cell, seeds pooled; personas trained without the marker are marked."""
    chosen = rates[~rates["stale"].astype(bool) & (rates["metric"] == "leakage") & (rates["questions"] == "all")]
    chosen = chosen[(chosen["persona"] != chosen["source"]) & (chosen["n"] > 0)]
    if chosen.empty:
        return note("no cell has run")
    pooled = chosen.groupby(["condition", "persona", "role"], sort=False)[["hits", "n"]].sum().reset_index()
    pooled["rate"] = pooled["hits"] / pooled["n"]
    matrix = pooled.pivot(index="persona", columns="condition", values="rate")[list(dict.fromkeys(pooled["condition"]))]
    matrix = matrix.loc[matrix.mean(axis=1).sort_values(ascending=False).index]
    role = {(row.condition, row.persona): row.role for row in pooled.itertuples()}
    figure = Figure(figsize=(0.75 * matrix.shape[1] + 3, 0.32 * len(matrix) + 1.8))
    axes = figure.subplots()
    image = axes.imshow(matrix.to_numpy() * 100, cmap="YlOrRd", vmin=0, vmax=100, aspect="auto")
    for y, persona in enumerate(matrix.index):
        for x, condition in enumerate(matrix.columns):
            value = matrix.loc[persona, condition]
            if pd.notna(value):
                mark = {"negative": "-", "induction": "*"}.get(role[(condition, persona)], "")
                ink = "white" if value > 0.6 else _INK
                axes.text(x, y, f"{value * 100:.0f}{mark}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_yticks(range(len(matrix)), matrix.index, fontsize=8)
    axes.set_xticks(range(matrix.shape[1]), matrix.columns, rotation=40, ha="right", fontsize=8)
    axes.set_title("Bystanders, % with the marker (- trained without it, * induction persona)", fontsize=9)
    figure.colorbar(image, ax=axes, fraction=0.03)
    return figure
