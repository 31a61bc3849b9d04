"""The report of trajectories, as Markdown and as one self-contained page."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS
from persona_leakage.experiments.convergence.tables import CHANGE_SINCE_START, choose_headline
from persona_leakage.pipelines.reporting.claims import write_claims
from persona_leakage.pipelines.reporting.cut import warn_of_cut
from persona_leakage.pipelines.reporting.mixed import write_mixed
from persona_leakage.pipelines.reporting.opening import origin, seeds_note
from persona_leakage.pipelines.reporting.page import as_written, interval, say_rates, table, write_numbers
from persona_leakage.pipelines.reporting.rates import current
from persona_leakage.pipelines.reporting.seeds import means_of, several_seeds, write_seeds
from persona_leakage.pipelines.reporting.texts import say_outside


def write_report(
    points: pd.DataFrame, pooled_trajectories: pd.DataFrame, summaries: pd.DataFrame, verdict_counts: pd.DataFrame,
    peak_correlations: pd.DataFrame, by_seed: pd.DataFrame, over_seeds: pd.DataFrame, text_ranges: pd.DataFrame,
    text_means: pd.DataFrame, cut_gaps: pd.DataFrame, verdicts: pd.DataFrame, mixed_effects: pd.DataFrame,
    *, family: str,
) -> str:  # fmt: skip
    """Write the report over every current point, as Markdown; every number in it stands in one of the tables."""
    now = current(points)
    stale = len(points) - len(now)
    parts = [
        f"# {family}: leakage while one persona is pulled towards another\n",
        f"{origin(points)}{_say_questions(now)} {len(now)} points (condition x seed x epoch); every rate has a Wilson 95% "
        "interval.\n",
        *seeds_note(over_seeds, points),
    ]
    if stale:
        parts.append(f"**{stale} points left out as stale** (ran under other parameters, run them again).\n")
    parts += warn_of_cut(cut_gaps, _sources(pooled_trajectories), ["epoch"])
    if collapsed := say_outside(text_ranges.rename(columns={"checkpoint": "epoch"}), ["seed", "epoch"]):
        parts.append(
            f"**Texts left the range of epoch 0** (over its personas, same seed): {collapsed}. Look at the completions before "
            "trusting the rates.\n"
        )
    parts += [
        *write_claims(verdicts),
        "## Trajectories\n",
        "![Trajectories](trajectories.png)\n",
        table(_by_epoch(pooled_trajectories, over_seeds, "pulled")),
        "## What became of each\n",
        "`increase`: the final rate exceeds the baseline and the Newcombe 95% interval of the difference excludes 0; "
        "`decline`: below, likewise; `transient`: neither, but p of the peak, which counts all checkpoints, is at most 0.05. "
        f"One best checkpoint is no increase.{_say_scatter(summaries)}\n",
        table(_outcomes(summaries)),
        _counts(verdict_counts),
        "## Does the cosine before pulling tell the peak?\n",
        "![Peaks](peaks.png)\n",
        table(_peaks(peak_correlations)),
        *write_mixed(mixed_effects),
        "## The sources themselves\n",
        "A source that no longer writes the marker says that the marker was not implanted, not that nothing leaks.\n",
        table(_by_epoch(pooled_trajectories, over_seeds, "source", "source_")),
        "## Over finished completions: the pulled persona\n",
        "Its rate over completions that ended before the token limit, and the share that did not.\n",
        table(_beside(pooled_trajectories, over_seeds, "pulled", "")),
        "## Over finished completions: the sources\n",
        table(_beside(pooled_trajectories, over_seeds, "source", "source_")),
        *write_seeds(_headline(over_seeds), by_seed),
        "## Texts\n",
        "Mean length in tokens, distinct-2 and shares of empty and of cut completions, over all personas; seeds averaged. At "
        "epoch 0 the marker is trained and nothing pulled.\n",
        table(_texts(text_means)),
    ]
    return "\n".join(parts)


def _say_questions(points: pd.DataFrame) -> str:
    questions = dict.fromkeys(f"{count:.0f}" for count in points["prompts_a_group"])
    return f" {' or '.join(questions)} questions a persona." if questions else ""


def _by_epoch(pooled: pd.DataFrame, over_seeds: pd.DataFrame, quantity: str, prefix: str = "") -> pd.DataFrame:
    if pooled.empty:
        return pooled
    return _wide(pooled.assign(said=_rates_of_epochs(pooled, over_seeds, quantity, prefix)))


def _rates_of_epochs(pooled: pd.DataFrame, over_seeds: pd.DataFrame, quantity: str, prefix: str) -> list[str]:
    said = say_rates(pooled, prefix=prefix)
    if not several_seeds(over_seeds):
        return said
    means = means_of(over_seeds, quantity, pooled[["condition", "checkpoint"]])
    return [f"{one}; mean over seeds {mean}" if mean else one for one, mean in zip(said, means, strict=True)]


def _beside(pooled: pd.DataFrame, over_seeds: pd.DataFrame, of: str, prefix: str) -> pd.DataFrame:
    """Say the finished rate and the cut share by epoch."""
    if pooled.empty:
        return pooled
    finished, cut = (_rates_of_epochs(pooled, over_seeds, f"{of}, {name}", f"{prefix}{name}_") for name in ("finished", "cut"))
    return _wide(pooled.assign(said=[f"{one}; cut {other}" for one, other in zip(finished, cut, strict=True)]))


def _sources(pooled: pd.DataFrame) -> pd.DataFrame:
    named = {f"source_cut_{name}": f"cut_{name}" for name in RATE_COLUMNS} | {"checkpoint": "epoch"}
    return pooled[["condition", *named]].rename(columns=named)


def _headline(over_seeds: pd.DataFrame) -> pd.DataFrame:
    """Choose what the report shows seed by seed: the pulled persona's rate, and how far it is from the start in the end."""
    last = over_seeds.groupby("condition")["checkpoint"].transform("max")
    ends = (over_seeds["quantity"] == CHANGE_SINCE_START) & (over_seeds["checkpoint"] == last) & (last > 0)
    return over_seeds[(over_seeds["quantity"] == "pulled") | ends]


def _texts(text_means: pd.DataFrame) -> pd.DataFrame:
    if text_means.empty:
        return text_means
    forms = {"tokens": ".0f", "distinct_2": ".2f", "empty": ".1%", "cut": ".1%"}
    said = write_numbers(text_means, **forms)[list(forms)].replace("", "unknown").agg(", ".join, axis=1)
    return _wide(text_means.assign(said=said))


def _wide(said: pd.DataFrame) -> pd.DataFrame:
    wide = said.pivot(index="checkpoint", columns="condition", values="said")
    return wide[list(dict.fromkeys(said["condition"]))].fillna("not run").reset_index(names="epoch")


def _outcomes(summaries: pd.DataFrame) -> pd.DataFrame:
    rows = summaries.to_dict("records")
    written = write_numbers(
        summaries,
        baseline=".1%",
        share_of_peak_early=".0%",
        share_of_rise_early=".0%",
        headline_layer=".0f",
        **dict.fromkeys(("change_p", "change_p_adjusted", "peak_p", "trend_p"), ".2g"),
    )
    courses = zip(*(choose_headline(summaries, suffix) for suffix in ("", "_final", "_direction")), strict=True)
    layers = summaries["headline_layer"].dropna().unique()  # one a model
    shown = pd.DataFrame(
        {
            **written[["condition", "seed", "baseline"]],
            "peak": ["" if pd.isna(row["peak"]) else f"{row['peak']:.1%} at {row['peak_checkpoint']:.0f}" for row in rows],
            "final": ["" if pd.isna(row["final"]) else f"{row['final']:.1%} at {row['final_checkpoint']:.0f}" for row in rows],
            "of the peak early": written["share_of_peak_early"],
            "of the rise early": written["share_of_rise_early"],
            "final - baseline": [
                "" if pd.isna(row["change"]) else f"{row['change']:+.1%} [{row['change_low']:+.1%}, {row['change_high']:+.1%}]"
                for row in rows
            ],
            "verdict": summaries["verdict"],
            "p": written["change_p"],
            "p (Holm)": written["change_p_adjusted"],
            "p of the peak": written["peak_p"],
            "p of a trend": written["trend_p"],
            "cosine": [_course(*course) for course in courses],
        }
    )
    if len(layers) == 1:
        return shown.rename(columns={"cosine": f"cosine (layer {layers[0]:.0f})"})
    return shown.assign(layer=written["headline_layer"])


def _say_scatter(summaries: pd.DataFrame) -> str:
    known = summaries.dropna(subset=["scatter"]).drop_duplicates(["scatter", "scatter_df"])  # one a model
    return "".join(
        " The interval is of sampling alone; the p values count every checkpoint as a training of its own, with "
        f"{row.scatter:.1f} times the variance of sampling ({row.scatter_df:.0f} degrees of freedom)."
        if math.isfinite(row.scatter_df)
        else " Interval and p values are of sampling alone: nothing is repeated that would tell how far trainings scatter."
        for row in known.itertuples()
    )


def _course(first: float, last: float, direction: str) -> str:
    if pd.isna(first):
        return ""
    return f"{first:.2f} to unknown" if pd.isna(last) else f"{first:.2f} to {last:.2f}, {direction}"


def _counts(verdict_counts: pd.DataFrame) -> str:
    increases = verdict_counts[verdict_counts["verdict"] == "increase"].to_dict("records")
    return "\n".join(_count(row) for row in increases or [{"count": 0, "of": 0}]) + "\n"


def _count(row: Mapping[Hashable, Any]) -> str:
    model = f"{as_written(row['model'])}: " if "model" in row else ""
    return f"{model}{row['count']} of {row['of']} increase ({as_written(row['conditions']) if row['count'] else 'none'})."


def _peaks(correlations: pd.DataFrame) -> pd.DataFrame:
    intervals = [interval(row.rho, row.low, row.high, row.no_interval) for row in correlations.itertuples()]
    shown = write_numbers(correlations.fillna({"conditions": ""}), p=".2g").assign(Spearman=intervals)
    columns = [name for name in ("model", "layer", "n", "Spearman", "p", "conditions") if name in shown]
    return shown[columns]
