"""The report of trajectories, as Markdown and as one self-contained page."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.personas import PersonaQuestions
from persona_leakage.domain.plan import Plan
from persona_leakage.pipelines.reporting.page import interval, number, origin, picture, render_page, said_rate, table
from persona_leakage.pipelines.reporting.seeds import means_of, seeds_note, several_seeds, write_seeds
from persona_leakage.pipelines.reporting.texts import said_outside
from persona_leakage.pipelines.reporting.trajectories import CHANGE_SINCE_START, pool_trajectory_seeds

FIGURES = ("trajectories.png", "peaks.png")


def write_trajectory_report(
    rates: pd.DataFrame,
    trajectories: pd.DataFrame,
    summaries: pd.DataFrame,
    peak_correlations: pd.DataFrame,
    by_seed: pd.DataFrame,
    over_seeds: pd.DataFrame,
    text_ranges: pd.DataFrame,
    plan: Plan,
) -> str:
    """Write the report over every current point; every number in it stands in one of the tables.

    Returns:
        Markdown; the figures are referred to by the names they are saved under, beside it.
    """
    prompts = expect(plan.evaluation.prompts, PersonaQuestions)
    stale = rates[rates["stale"].astype(bool)].groupby(["condition", "seed", "checkpoint"], sort=False).size()
    parts = [
        f"# {plan.family}: leakage while one persona is pulled towards another\n",
        f"{origin(plan)} {len(prompts.questions)} questions a persona. {len(trajectories)} points "
        "(condition x seed x epoch); every rate has a Wilson 95% interval.\n",
        *seeds_note(over_seeds, plan),
    ]
    if len(stale):
        parts.append(f"**{len(stale)} points left out as stale** (ran under other parameters, run them again).\n")
    if collapsed := said_outside(text_ranges.rename(columns={"checkpoint": "epoch"}), ["seed", "epoch"]):
        parts.append(
            f"**Texts left the range of epoch 0** (over its personas, same seed): {collapsed}. Look at the completions before "
            "trusting the rates.\n"
        )
    parts += [
        "## Trajectories\n",
        "![Trajectories](trajectories.png)\n",
        table(_by_epoch(trajectories, over_seeds, "pulled")),
        "## What became of each\n",
        "`increase`: the final rate exceeds the baseline and the Newcombe 95% interval of the difference excludes 0; "
        "`decline`: below, likewise; `transient`: only the peak exceeds it so. One best checkpoint is no increase.\n",
        table(_outcomes(summaries, plan)),
        _count(summaries),
        "## Does the cosine before pulling tell the peak?\n",
        "![Peaks](peaks.png)\n",
        table(_peaks(peak_correlations)),
        "## The sources themselves\n",
        "A source that no longer writes the marker says that the marker was not implanted, not that nothing leaks.\n",
        table(_by_epoch(trajectories, over_seeds, "source", "source_")),
        *write_seeds(_headline(over_seeds), by_seed),
        "## Texts\n",
        "Mean length in tokens, distinct-2 and share of empty completions, over all personas; seeds averaged. At epoch 0 the "
        "marker is trained and nothing pulled.\n",
        table(_texts(text_ranges)),
    ]
    return "\n".join(parts)


def render_trajectory_page(report: str, trajectories_figure: bytes, peaks_figure: bytes) -> str:
    """Render the report as one HTML page with its figures inside."""
    figures = (picture(trajectories_figure), picture(peaks_figure))
    return render_page(report, dict(zip(FIGURES, figures, strict=True)))


def _by_epoch(trajectories: pd.DataFrame, over_seeds: pd.DataFrame, quantity: str, prefix: str = "") -> pd.DataFrame:
    if trajectories.empty:
        return trajectories
    pooled = pool_trajectory_seeds(trajectories)
    said = said_rate(pooled, prefix=prefix)
    if several_seeds(over_seeds):
        means = means_of(over_seeds, quantity, pooled[["condition", "checkpoint"]])
        said = [f"{one}; mean over seeds {mean}" if mean else one for one, mean in zip(said, means, strict=True)]
    wide = pooled.assign(said=said).pivot(index="checkpoint", columns="condition", values="said")
    return wide[list(dict.fromkeys(pooled["condition"]))].fillna("not run").reset_index(names="epoch")


def _headline(over_seeds: pd.DataFrame) -> pd.DataFrame:
    """Choose what the report shows seed by seed: the pulled persona's rate, and how far it is from the start in the end."""
    last = over_seeds.groupby("condition")["checkpoint"].transform("max")
    ends = (over_seeds["quantity"] == CHANGE_SINCE_START) & (over_seeds["checkpoint"] == last) & (last > 0)
    return over_seeds[(over_seeds["quantity"] == "pulled") | ends]


def _texts(text_ranges: pd.DataFrame) -> pd.DataFrame:
    if text_ranges.empty:
        return text_ranges
    means = text_ranges.groupby(["condition", "checkpoint"], sort=False)[["tokens", "distinct_2", "empty"]].mean().reset_index()
    means["said"] = [f"{row.tokens:.0f}, {row.distinct_2:.2f}, {row.empty:.1%}" for row in means.itertuples()]
    wide = means.pivot(index="checkpoint", columns="condition", values="said")[list(dict.fromkeys(means["condition"]))]
    return wide.fillna("not run").reset_index(names="epoch")


def _outcomes(summaries: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    layer = plan.geometry.headline_layer
    name = f"cosine_l{layer}"
    rows = summaries.to_dict("records")
    return pd.DataFrame(
        {
            "condition": [row["condition"] for row in rows],
            "seed": [row["seed"] for row in rows],
            "baseline": [number(row["baseline"], ".1%") for row in rows],
            "peak": ["" if pd.isna(row["peak"]) else f"{row['peak']:.1%} at {row['peak_checkpoint']:.0f}" for row in rows],
            "final": ["" if pd.isna(row["final"]) else f"{row['final']:.1%} at {row['final_checkpoint']:.0f}" for row in rows],
            "of the peak early": [number(row["share_of_peak_early"], ".0%") for row in rows],
            "of the rise early": [number(row["share_of_rise_early"], ".0%") for row in rows],
            "final - baseline": [
                "" if pd.isna(row["change"]) else f"{row['change']:+.1%} [{row['change_low']:+.1%}, {row['change_high']:+.1%}]"
                for row in rows
            ],
            "verdict": [row["verdict"] for row in rows],
            f"cosine (layer {layer})": [_course(row, name) if name in row else "" for row in rows],
        }
    )


def _course(row: dict[Hashable, Any], name: str) -> str:
    first, last = row[name], row[f"{name}_final"]
    if pd.isna(first):
        return ""
    return f"{first:.2f} to unknown" if pd.isna(last) else f"{first:.2f} to {last:.2f}, {row[f'{name}_direction']}"


def _count(summaries: pd.DataFrame) -> str:
    pooled = summaries.drop_duplicates("condition")
    judged = pooled[pooled["verdict"] != "incomplete"]
    increased = judged[judged["verdict"] == "increase"]
    return f"{len(increased)} of {len(judged)} increase ({', '.join(increased['condition']) or 'none'}).\n"


def _peaks(correlations: pd.DataFrame) -> pd.DataFrame:
    rows = list(correlations.itertuples())
    return pd.DataFrame(
        {
            "layer": [row.layer for row in rows],
            "n": [row.n for row in rows],
            "Spearman": [interval(row.rho, row.low, row.high) for row in rows],
            "p": [number(row.p, ".2g") for row in rows],
            "permutation p": [number(row.permutation_p, ".2g") for row in rows],
        }
    )
