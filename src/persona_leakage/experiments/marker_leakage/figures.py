"""Figures of marker leakage. They draw what is in the tables and compute nothing."""

import io
import re

import pandas as pd
from matplotlib.figure import Figure

from persona_leakage.experiments.marker_leakage.tables import GEOMETRIES
from persona_leakage.pipelines.reporting.figures import BLUE, INK, RED, blank, draws_as_written, heat_map, in_legend, panels
from persona_leakage.pipelines.reporting.page import interval

_HOVER = "hover:"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")


@draws_as_written
def draw_scatter(pooled_leakage: pd.DataFrame, correlations: pd.DataFrame) -> tuple[Figure, str]:
    """Draw bystanders' leakage against their cosine to the source at the headline layer, a panel a condition, seeds pooled.

    Returns:
        The figure, and the same as SVG in which a point names its persona under the pointer.
    """
    figure = _scatter(pooled_leakage, correlations)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # a name with double quotes stands in single ones
    return figure, re.sub(rf"<g id=([\"']){_HOVER}(.*?)\1>", r"<g><title>\2</title>", svg, flags=re.DOTALL)


def _scatter(pooled: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    layers = pooled.groupby("condition", sort=False)["headline_layer"].first().map("{:.0f}".format)
    columns = {f"cosine_l{layer}" for layer in layers}.intersection(pooled)
    if not any(pooled[column].notna().any() for column in columns):
        return blank("no cosine at the headline layer: the condition that others are compared with has not run")
    categories, conditions = list(dict.fromkeys(pooled["category"])), list(layers.index)
    across = min(3, len(conditions))
    down = -(-len(conditions) // across)
    figure, places = panels(4.2 * across + 1.6, 3.6 * down + 0.4, down, across)
    of_source = (correlations["scope"] == "source") & (correlations["geometry"] == "cosine") & (correlations["of"] == "leakage")
    headline = correlations[of_source & correlations["headline"].astype(bool)].set_index("condition")
    for condition, axes in zip(conditions, places, strict=False):
        chosen, column = pooled[pooled["condition"] == condition], f"cosine_l{layers[condition]}"
        for row in chosen[chosen["role"] != "source"].to_dict("records"):
            if pd.isna(row["rate"]) or pd.isna(row.get(column)):
                continue
            said = (
                f"{row['persona']} ({row['category']}): {row['hits']}/{row['n']} = {row['rate']:.1%}, cosine {row[column]:.2f}"
            )
            place = categories.index(row["category"])
            axes.plot(
                row[column], row["rate"] * 100, _MARKERS[place % len(_MARKERS)], ms=5, mew=0.5,
                color=f"C{place % 10}", mec="white", gid=_HOVER + said, zorder=3,
            )  # fmt: skip
        own = chosen[chosen["role"] == "source"]
        for rate in own["rate"]:
            axes.axhline(rate * 100, color=INK, lw=0.8, ls="--")
            end = ("axes fraction", "data")
            axes.annotate(f"source {rate:.0%}", (1, rate * 100), xycoords=end, ha="right", va="bottom", fontsize=7)
        axes.set_title(f"{condition}\n{_say(headline, condition)}", fontsize=9)
        axes.set_ylim(-4, 104)
        axes.set_xlabel(f"cosine to the source, base model, layer {layers[condition]}", fontsize=8)
        axes.set_ylabel("marker leakage, %", fontsize=8)
    for axes in places[len(conditions) :]:
        axes.axis("off")
    handles = [
        figure.axes[0].plot([], [], _MARKERS[place % len(_MARKERS)], color=f"C{place % 10}", ls="", label=in_legend(name))[0]
        for place, name in enumerate(categories)
    ]
    figure.legend(handles=handles, loc="center right", frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1 - 1.6 / figure.get_figwidth(), 1))
    return figure


@draws_as_written
def draw_categories(pooled_leakage: pd.DataFrame, categories: pd.DataFrame) -> Figure:
    """Draw bystanders' leakage by category, a panel a condition: a dot a persona, a bar their mean; seeds pooled."""
    if categories.empty:
        return blank("no trained condition has run")
    bystanders = pooled_leakage[pooled_leakage["role"] != "source"]
    conditions, names = list(dict.fromkeys(categories["condition"])), list(dict.fromkeys(categories["category"]))
    figure, places = panels(2.6 * len(conditions) + 2.2, 0.32 * len(names) + 1.6, across=len(conditions), sharey=True)
    for axes, condition in zip(places, conditions, strict=True):
        for row in categories[categories["condition"] == condition].itertuples():
            of = (bystanders["condition"] == condition) & (bystanders["category"] == row.category)
            rates, place = bystanders.loc[of, "rate"] * 100, names.index(row.category)
            axes.barh(place, row.mean * 100, color="#d9d9d9", zorder=1)
            axes.plot(rates, [place] * len(rates), "o", ms=3.5, color=RED, alpha=0.6, zorder=2)
        sizes = categories.groupby("category")["personas"].unique()  # one number, or one a base model
        axes.set_yticks(range(len(names)), [f"{name} ({'/'.join(map(str, sizes[name]))})" for name in names])
        axes.set_xlim(-3, 103)
        axes.set_title(condition, fontsize=9)
        axes.set_xlabel("marker leakage, %", fontsize=8)
    figure.axes[0].invert_yaxis()
    figure.tight_layout()
    return figure


@draws_as_written
def draw_layers(correlations: pd.DataFrame) -> Figure:
    """Draw rho by layer with its bootstrap interval, a panel a condition and one for all; base and fine-tuned geometry."""
    drawn = correlations["scope"].isin(["source", "pooled_ranks"]) & (correlations["of"] == "leakage")
    shown = correlations[drawn & correlations["rho"].notna()]
    if shown.empty:
        return blank("no correlation is defined")
    conditions = shown["condition"].unique()
    figure, places = panels(2.4 * len(conditions) + 0.8, 2.9, across=len(conditions), sharey=True)
    for axes, condition in zip(places, conditions, strict=True):
        for geometry, color, shift in (("cosine", BLUE, -0.25), ("tuned", RED, 0.25)):
            chosen = shown[(shown["condition"] == condition) & (shown["geometry"] == geometry)].sort_values("layer")
            if chosen.empty:
                continue
            spread = [(chosen["rho"] - chosen["low"]).clip(0), (chosen["high"] - chosen["rho"]).clip(0)]  # rounding, at rho 1
            axes.errorbar(
                chosen["layer"] + shift, chosen["rho"], spread, fmt="o-", ms=4, lw=1, capsize=2, color=color,
                label=GEOMETRIES[geometry],
            )  # fmt: skip
        axes.axhline(0, color="#bbbbbb", lw=0.8, zorder=0)
        ranked = shown.loc[shown["condition"] == condition, "scope"].iloc[0] == "pooled_ranks"
        axes.set_title(f"{condition}, ranked within source" if ranked else condition, fontsize=9)
        axes.set_xticks(sorted(shown["layer"].unique()))
        axes.set_xlabel("layer", fontsize=8)
        axes.set_ylim(-1.05, 1.05)
    figure.axes[0].set_ylabel("Spearman's rho with leakage", fontsize=8)
    figure.axes[0].legend(frameon=False, fontsize=7, loc="lower right")
    figure.tight_layout()
    return figure


@draws_as_written
def draw_most_affected(most_affected: pd.DataFrame) -> Figure:
    """Draw the bystanders with the highest leakage under any source as a matrix persona x condition, seeds pooled."""
    if most_affected.empty:
        return blank("no trained condition has run")
    top = most_affected.sort_values("place", kind="stable")["persona"].unique()
    rates = most_affected.pivot(index="persona", columns="condition", values="rate")
    rates = rates.loc[top, most_affected["condition"].unique()]  # the source's own cell is empty
    title = f"Marker leakage, %: the {len(top)} most affected bystanders"
    return heat_map(rates, (rates * 100).map("{:.0f}".format), title, 1.1 * rates.shape[1] + 3, 0.24 * len(top) + 1.6)


def _say(headline: pd.DataFrame, condition: str) -> str:
    if condition not in headline.index:
        return "no correlation"
    row = headline.loc[condition]
    if pd.isna(row["rho"]):
        return f"correlation undefined (n = {row['n']}; a side does not vary)"
    return f"rho {interval(row['rho'], row['low'], row['high'])}, n = {row['n']}, {row['at_zero']} at zero"
