"""Figures of the report. They draw what is in the tables and compute nothing."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from persona_leakage.pipelines.reporting.figures import BLUE, INK, RED, blank, draws_as_written, panels
from persona_leakage.pipelines.reporting.page import interval

_ROLE_MARK = {"trained_directive": "T", "own_language": "O", "trained_directive+own_language": "T+O", "bystander": ""}


@draws_as_written
def draw_spill_matrix(spill: pd.DataFrame) -> Figure:
    """Draw contamination as a matrix condition x directive language, phrasings and seeds pooled.

    A cell shows the rate in percent and its Wilson interval; T and O mark the trained directive and the completion
    language's own directive, which are no spill. The last column gives n.
    """
    table = spill[spill["phrasing"] == "all"]
    conditions, languages = _names(table, "condition"), _names(table, "directive_language")
    if not conditions:
        return blank("no trained condition has run")
    figure = Figure(figsize=(1.35 * len(languages) + 2.6, 0.62 * len(conditions) + 1.8))
    axes = figure.subplots()
    values = table.pivot(index="condition", columns="directive_language", values="rate").loc[conditions, languages]
    image = axes.imshow(values.to_numpy() * 100, cmap="YlOrRd", vmin=0, vmax=100, aspect="auto")
    for row in table[table["n"] > 0].itertuples(index=False):
        x, y = languages.index(row.directive_language), conditions.index(row.condition)
        mark = _ROLE_MARK[row.role]
        ink = "white" if row.rate > 0.6 else INK
        said, weight = (f"{row.rate * 100:.0f}  {mark}", "normal") if mark else (f"{row.rate * 100:.0f}", "bold")
        axes.text(x, y - 0.12, said, ha="center", va="center", color=ink, weight=weight)
        axes.text(x, y + 0.24, f"{row.low * 100:.0f}-{row.high * 100:.0f}", ha="center", va="center", color=ink, fontsize=7)
    sizes = table.groupby("condition")["n"].agg(["min", "max"])
    labels = [
        f"{name}\nn={low}" if low == high else f"{name}\nn={low}-{high}"
        for name, low, high in sizes.loc[conditions].itertuples()
    ]
    axes.set_yticks(range(len(conditions)), labels)
    axes.set_xticks(range(len(languages)), languages)
    axes.set_xlabel("directive language")
    axes.set_title(
        "Contamination: completions in the trained completion language, %\n"
        "(within-run Wilson 95% interval below; T trained directive, O own language)",
        fontsize=10,
    )
    figure.colorbar(image, ax=axes, fraction=0.03, label="%")
    return figure


@draws_as_written
def draw_conditions(spill: pd.DataFrame) -> Figure:
    """Draw following and contamination of every trained condition, with the baseline's rate of the same language.

    Bars pool the phrasings and carry Wilson intervals; dots are the single phrasings.
    """
    conditions = _names(spill, "condition")
    if not conditions:
        return blank("no trained condition has run")
    width, height = 1.5 * spill["directive_language"].nunique() + 1.5, 2.4 * len(conditions) + 0.8
    figure, rows = panels(width, height, down=len(conditions))
    for axes, condition in zip(rows, conditions, strict=True):
        table = spill[spill["condition"] == condition]
        languages = _names(table, "directive_language")  # models and replays may differ in what they evaluate
        pooled = table[table["phrasing"] == "all"].set_index("directive_language").loc[languages]
        x = np.arange(len(languages))
        axes.bar(x - 0.2, pooled["following_rate"] * 100, 0.38, color=BLUE, label="following")
        axes.bar(x + 0.2, pooled["rate"] * 100, 0.38, color=RED, label="contamination")
        axes.errorbar(x + 0.2, pooled["rate"] * 100, _spread(pooled, ""), fmt="none", ecolor=INK, capsize=2, lw=0.9)
        axes.scatter(
            x + 0.2, pooled["baseline_rate"] * 100, marker="_", s=260, color="black", label="baseline, same language", zorder=3
        )
        split = table[table["phrasing"] != "all"]
        at = [languages.index(name) + 0.2 for name in split["directive_language"]]
        axes.scatter(at, split["rate"] * 100, s=13, color="white", edgecolor=INK, lw=0.7, label="one phrasing", zorder=4)
        ticks = [f"{name}{f' ({mark})' if (mark := _ROLE_MARK[role]) else ''}" for name, role in pooled["role"].items()]
        axes.set_xticks(x, ticks)
        axes.set_ylim(0, 105)
        axes.set_ylabel("%")
        scored = pooled.loc[pooled["n"] > 0, "n"]  # a replay's file may lack languages
        said = f"{condition}: completions in {pooled['completion'].iloc[0]}, n = {scored.min()} a directive language"
        axes.set_title(said, fontsize=10, loc="left")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncol=len(names), frameon=False)
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    return figure


@draws_as_written
def draw_published(published_cells: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Draw our contamination against the published one, cell by cell, with both Wilson intervals."""
    if published_cells.empty:
        return blank("no condition with published rates has run")
    figure, (axes,) = panels(5.4, 4.8)
    axes.plot([0, 100], [0, 100], color="#bbbbbb", lw=0.8, zorder=0)
    for role, color in (("bystander", RED), ("other roles", "#999999")):
        chosen = published_cells[(published_cells["role"] == "bystander") == (role == "bystander")]
        axes.errorbar(
            chosen["rate_published"] * 100,
            chosen["rate"] * 100,
            xerr=_spread(chosen, "_published"),
            yerr=_spread(chosen, ""),
            fmt="o", ms=4, lw=0.6, color=color, ecolor="#cccccc", label=f"{role} ({len(chosen)} cells)",
        )  # fmt: skip
    axes.set_xlabel("published contamination (Qwen2.5-7B), %")
    axes.set_ylabel("our contamination, %")
    overall = correlations[correlations["with"] == "published"]
    if len(overall):
        first = overall.iloc[0]
        said = interval(first["rho"], first["low"], first["high"], first["no_interval"])
        axes.set_title(f"Bystander cells: Spearman {said}, n = {first['n']}", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _spread(cells: pd.DataFrame, suffix: str) -> Sequence[pd.Series]:
    rate, low, high = (cells[f"{name}{suffix}"] * 100 for name in ("rate", "low", "high"))
    return [rate - low, high - rate]


def _names(table: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(table[column]))
