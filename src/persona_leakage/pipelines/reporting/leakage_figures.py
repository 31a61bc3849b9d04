"""Figures of marker leakage. They draw what is in the tables and compute nothing."""

import io
import re

import pandas as pd
from matplotlib.figure import Figure

from persona_leakage.domain.plan import Plan
from persona_leakage.pipelines.reporting.leakage import GEOMETRIES, categories_in_order, pool_seeds

_INK, _BASE, _TUNED = "#333333", "#3b6ea8", "#c8553d"
_MOST_AFFECTED = 30
_HOVER = "hover:"


def draw_scatter(leakage: pd.DataFrame, correlations: pd.DataFrame, plan: Plan) -> tuple[Figure, str]:
    """Draw bystanders' leakage against their cosine to the source, a panel a condition, seeds pooled.

    Returns:
        The figure, and the same as SVG in which a point names its persona under the pointer.
    """
    column = f"cosine_l{plan.geometry.headline_layer}"
    figure = _scatter(leakage, correlations, column)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    return figure, re.sub(rf'<g id="{_HOVER}([^"]*)">', r"<g><title>\1</title>", svg)


def _scatter(leakage: pd.DataFrame, correlations: pd.DataFrame, column: str) -> Figure:
    if column not in leakage or leakage[column].isna().all():
        return note("no cosine at the headline layer: the condition that others are compared with has not run")
    pooled = pool_seeds(leakage)
    categories = categories_in_order(pooled)
    conditions = list(dict.fromkeys(pooled["condition"]))
    across = min(3, len(conditions))
    down = -(-len(conditions) // across)
    figure = Figure(figsize=(4.2 * across + 1.6, 3.6 * down + 0.4))
    panels = figure.subplots(down, across, squeeze=False).flat
    layer = int(column.split("_l")[1])
    headline = correlations[
        (correlations["scope"] == "source") & (correlations["geometry"] == "cosine") & (correlations["layer"] == layer)
    ].set_index("condition")
    for condition, axes in zip(conditions, panels, strict=False):  # in this order no panel is lost
        chosen = pooled[pooled["condition"] == condition]
        for row in chosen[chosen["role"] != "source"].to_dict("records"):
            if pd.isna(row["rate"]) or pd.isna(row[column]):
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
            axes.axhline(rate * 100, color=_INK, lw=0.8, ls="--")
            end = ("axes fraction", "data")
            axes.annotate(f"source {rate:.0%}", (1, rate * 100), xycoords=end, ha="right", va="bottom", fontsize=7)
        axes.set_title(f"{condition}\n{_said(headline, condition)}", fontsize=9)
        axes.set_ylim(-4, 104)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(f"cosine to the source, base model, layer {layer}", fontsize=8)
        axes.set_ylabel("marker leakage, %", fontsize=8)
    for axes in list(panels):
        axes.axis("off")
    handles = [
        figure.axes[0].plot([], [], _MARKERS[place % len(_MARKERS)], color=f"C{place % 10}", ls="", label=name)[0]
        for place, name in enumerate(categories)
    ]
    figure.legend(handles=handles, loc="center right", frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1 - 1.6 / figure.get_figwidth(), 1))
    return figure


_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")


def draw_categories(leakage: pd.DataFrame) -> Figure:
    """Draw bystanders' leakage by category, a panel a condition: a dot a persona, a bar their mean; seeds pooled."""
    pooled = pool_seeds(leakage) if len(leakage) else leakage
    pooled = pooled[(pooled["role"] != "source") & pooled["rate"].notna()]
    if pooled.empty:
        return note("no trained condition has run")
    conditions, categories = list(dict.fromkeys(pooled["condition"])), categories_in_order(pooled)
    sizes = pooled.groupby("category")["persona"].nunique()
    figure = Figure(figsize=(2.6 * len(conditions) + 2.2, 0.32 * len(categories) + 1.6))
    for axes, condition in zip(figure.subplots(1, len(conditions), squeeze=False, sharey=True)[0], conditions, strict=True):
        chosen = pooled[pooled["condition"] == condition]
        for place, category in enumerate(categories):
            rates = chosen.loc[chosen["category"] == category, "rate"] * 100
            if rates.empty:
                continue
            axes.barh(place, rates.mean(), color="#d9d9d9", zorder=1)
            axes.plot(rates, [place] * len(rates), "o", ms=3.5, color=_TUNED, alpha=0.6, zorder=2)
        axes.set_yticks(range(len(categories)), [f"{name} ({sizes[name]})" for name in categories])
        axes.set_xlim(-3, 103)
        axes.set_title(condition, fontsize=9)
        axes.set_xlabel("marker leakage, %", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.tight_layout()
    return figure


def draw_layers(correlations: pd.DataFrame) -> Figure:
    """Draw rho by layer with its bootstrap interval, a panel a condition and one for all; base and fine-tuned geometry."""
    shown = correlations[correlations["scope"].isin(["source", "pooled_ranks"]) & correlations["rho"].notna()]
    panels = [*dict.fromkeys(shown["condition"])]
    if not panels:
        return note("no correlation is defined")
    figure = Figure(figsize=(2.4 * len(panels) + 0.8, 2.9))
    for axes, condition in zip(figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True):
        for geometry, color, shift in (("cosine", _BASE, -0.25), ("tuned", _TUNED, 0.25)):
            chosen = shown[(shown["condition"] == condition) & (shown["geometry"] == geometry)].sort_values("layer")
            if chosen.empty:
                continue
            spread = [(chosen["rho"] - chosen["low"]).clip(0), (chosen["high"] - chosen["rho"]).clip(0)]  # rounding, at rho 1
            axes.errorbar(
                chosen["layer"] + shift, chosen["rho"], spread, fmt="o-", ms=4, lw=1, capsize=2, color=color,
                label=GEOMETRIES[geometry],
            )  # fmt: skip
        axes.axhline(0, color="#bbbbbb", lw=0.8, zorder=0)
        axes.set_title("all, ranked within source" if condition == "all" else condition, fontsize=9)
        axes.set_xticks(sorted(shown["layer"].unique()))
        axes.set_xlabel("layer", fontsize=8)
        axes.set_ylim(-1.05, 1.05)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("Spearman's rho with leakage", fontsize=8)
    figure.axes[0].legend(frameon=False, fontsize=7, loc="lower right")
    figure.tight_layout()
    return figure


def draw_most_affected(leakage: pd.DataFrame) -> Figure:
    """Draw the bystanders with the highest leakage under any source as a matrix persona x condition, seeds pooled."""
    pooled = pool_seeds(leakage) if len(leakage) else leakage
    pooled = pooled[(pooled["role"] != "source") & pooled["rate"].notna()]
    if pooled.empty:
        return note("no trained condition has run")
    conditions = list(dict.fromkeys(pooled["condition"]))
    matrix = pooled.pivot(index="persona", columns="condition", values="rate")[conditions]
    top = matrix.max(axis=1).sort_values(ascending=False, kind="stable").head(_MOST_AFFECTED).index
    values = matrix.loc[top].to_numpy() * 100
    figure = Figure(figsize=(1.1 * len(conditions) + 3, 0.24 * len(top) + 1.6))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="YlOrRd", vmin=0, vmax=100, aspect="auto")
    for y in range(len(top)):
        for x in range(len(conditions)):
            value = values[y, x]
            if value == value:  # the source's own cell is empty
                axes.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=7, color="white" if value > 60 else _INK)
    axes.set_yticks(range(len(top)), top, fontsize=7)
    axes.set_xticks(range(len(conditions)), conditions, rotation=30, ha="right", fontsize=8)
    axes.set_title(f"Marker leakage, %: the {len(top)} most affected bystanders", fontsize=9)
    figure.colorbar(image, ax=axes, fraction=0.04)
    return figure


def _said(headline: pd.DataFrame, condition: str) -> str:
    if condition not in headline.index:
        return "no correlation"
    row = headline.loc[condition]
    if pd.isna(row["rho"]):
        return f"correlation undefined (n = {row['n']}; a side does not vary)"
    return f"rho {row['rho']:.2f} [{row['low']:.2f}, {row['high']:.2f}], n = {row['n']}, {row['at_zero']} at zero"


def note(text: str) -> Figure:
    """Say in a figure why there is nothing to draw."""
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure
