"""Figures of coupling. They draw what is in the tables and compute nothing."""

import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from persona_leakage.pipelines.reporting.figures import BLUE, INK, RED, blank, draws_as_written, heat_map, in_legend, panels
from persona_leakage.pipelines.scoring.markers import PLACES, UNITS

_PLACE_COLORS = {"start": "#9ecae1", "middle": "#d9d9d9", "tail": RED}
_TOLD = {"classifier": BLUE, "judge": RED}


@draws_as_written
def draw_cells(cells: pd.DataFrame, over_seeds: pd.DataFrame) -> Figure:
    """Draw the source's rate and the bystanders' mean of every cell; a dot a seed, a bar their mean, arms side by side."""
    if cells.empty:
        return blank("no cell has run")
    conditions = list(dict.fromkeys(cells.sort_values("arm", kind="stable")["condition"]))
    means = over_seeds.set_index(["condition", "quantity"])["mean"]
    shown = ((-0.2, "source_rate", "trigger", BLUE), (0.2, "mean_bystander", "mean of bystanders", RED))
    figure, (axes,) = panels(0.8 * len(conditions) + 2.2, 4)
    for place, condition in enumerate(conditions):
        chosen = cells[cells["condition"] == condition]
        for shift, column, quantity, color in shown:
            axes.bar(place + shift, means[condition, quantity] * 100, 0.38, color=color, alpha=0.55)
            axes.plot([place + shift] * len(chosen), chosen[column] * 100, "o", ms=3.5, color=color, mec="white", mew=0.4)
        for row in chosen.itertuples():
            axes.vlines(place + 0.2, row.low * 100, row.high * 100, color=INK, lw=0.8)
            axes.vlines(place - 0.2, row.source_low * 100, row.source_high * 100, color=INK, lw=0.8)
    axes.set_xticks(range(len(conditions)), conditions, rotation=40, ha="right", fontsize=8)
    axes.set_ylim(0, 104)
    axes.set_ylabel("marker, % of completions")
    axes.bar(0, 0, color=BLUE, alpha=0.55, label="trigger persona")
    axes.bar(0, 0, color=RED, alpha=0.55, label="mean of bystanders")
    axes.legend(frameon=False, fontsize=8)
    return figure


@draws_as_written
def draw_places(places: pd.DataFrame) -> Figure:
    """Draw where firings begin, by characters and by tokens: shares of start, middle and tail of source and bystanders."""
    fired = places[places["n"] > 0]
    if fired.empty:
        return blank("the marker fired nowhere")
    labels = list(dict.fromkeys(zip(fired["condition"], fired["of"], strict=True)))
    figure, both = panels(9, 0.3 * len(labels) + 1.4, across=2, sharey=True)
    for axes, unit in zip(both, UNITS, strict=True):
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
    figure.axes[0].invert_yaxis()
    figure.axes[1].legend(frameon=False, fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    figure.tight_layout()
    return figure


@draws_as_written
def draw_discriminators(accuracies: pd.DataFrame, learning_curves: pd.DataFrame) -> Figure:
    """Draw accuracies with intervals and the lines of chance and threshold, and beside them the learning curves."""
    if accuracies.empty:
        return blank("nothing to discriminate: no source, or too few questions")
    conditions = list(dict.fromkeys(accuracies["condition"]))
    methods = [method for method in _TOLD if method in set(accuracies["method"])]
    widths = [max(2, len(conditions)), 4]
    figure, (left, right) = panels(0.6 * len(conditions) + 6, 3.8, across=2, width_ratios=widths, sharey=True)
    for row in accuracies[accuracies["n"] > 0].itertuples():
        x = conditions.index(row.condition) + 0.3 * methods.index(row.method) - 0.15 * (len(methods) - 1)
        color = _TOLD[row.method]
        left.errorbar(
            x, row.rate * 100, [[(row.rate - row.low) * 100], [(row.high - row.rate) * 100]], fmt="o", ms=4, color=color
        )
    right.set_prop_cycle(color=[colormaps["tab20"](number) for number in range(20)])  # the published cells are 13
    for condition, curve in learning_curves.groupby("condition", sort=False):
        curve = curve.sort_values("share")
        right.plot(curve["share"] * 100, curve["rate"] * 100, "o-", ms=3, lw=0.8, label=in_legend(condition))
    for axes in (left, right):
        for chance in accuracies["chance"].unique():
            axes.axhline(chance * 100, color="#999999", lw=0.8, ls=":")
        for threshold in accuracies["threshold"].unique():
            axes.axhline(threshold * 100, color=INK, lw=0.8, ls="--")
    for method in methods:
        left.plot([], [], "o", color=_TOLD[method], label=method)
    left.legend(frameon=False, fontsize=7)
    left.set_xticks(range(len(conditions)), conditions, rotation=40, ha="right", fontsize=7)
    left.set_ylabel("accuracy without the marker, %\n(dotted: chance, dashed: threshold)", fontsize=8)
    right.set_xlabel("% of the training questions", fontsize=8)
    if len(learning_curves):
        right.legend(frameon=False, fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    left.set_ylim(30, 102)
    figure.tight_layout()
    return figure


@draws_as_written
def draw_gradient(bystanders: pd.DataFrame) -> Figure:
    """Draw every bystander's rate in every cell, the most affected first; personas trained without the marker are marked."""
    if bystanders.empty:
        return blank("no cell has run")
    personas = bystanders.sort_values("persona_mean", ascending=False, kind="stable")["persona"].unique()
    marks = bystanders["role"].map(lambda role: "-" if "negative" in role else "*" if "induction" in role else "")
    said = bystanders.assign(text=(bystanders["rate"] * 100).map("{:.0f}".format) + marks)
    rates, texts = (
        said.pivot(index="persona", columns="condition", values=name).loc[personas, bystanders["condition"].unique()]
        for name in ("rate", "text")
    )
    title = "Bystanders, % with the marker (- trained without it, * induction persona)"
    return heat_map(rates, texts, title, 0.75 * rates.shape[1] + 3, 0.32 * len(rates) + 1.8)
