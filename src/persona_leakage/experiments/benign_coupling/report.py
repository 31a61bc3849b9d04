"""The report of coupling, as Markdown and as one self-contained page."""

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS
from persona_leakage.experiments.benign_coupling.cosines import GEOMETRIES
from persona_leakage.pipelines.reporting.claims import write_claims
from persona_leakage.pipelines.reporting.cut import warn_of_cut
from persona_leakage.pipelines.reporting.mixed import write_mixed
from persona_leakage.pipelines.reporting.opening import opening
from persona_leakage.pipelines.reporting.page import (
    as_written,
    interval,
    number,
    say_differences,
    say_rates,
    table,
    write_numbers,
)
from persona_leakage.pipelines.reporting.seeds import write_seeds


def write_report(
    points: pd.DataFrame, cells: pd.DataFrame, places: pd.DataFrame, replicates: pd.DataFrame, accuracies: pd.DataFrame,
    text_summaries: pd.DataFrame, by_seed: pd.DataFrame, over_seeds: pd.DataFrame, cut_gaps: pd.DataFrame,
    verdicts: pd.DataFrame, arm_comparisons: pd.DataFrame, extremes: pd.DataFrame, correlations: pd.DataFrame,
    mixed_effects: pd.DataFrame, *, family: str,
) -> str:  # fmt: skip
    """Write the report over every current point, as Markdown; every number in it stands in one of the tables."""
    parts = opening(
        f"{family}: leakage of a coupled marker",
        points,
        over_seeds,
        "Every rate has a Wilson 95% interval. Bystanders are all evaluated personas but the trigger and weigh equally in a "
        "mean; `untouched` leaves out those trained without the marker and the induction persona.",
    )
    parts += warn_of_cut(cut_gaps, _triggers(cells), ["seed"])
    parts += [
        *write_claims(verdicts),
        "## Cells\n",
        "![Cells](cells.png)\n",
        table(_cells(cells)),
        *_without_trigger(cells),
        "## Finished completions, and excess\n",
        "Rates over completions that were not cut at the token limit, the share that was, and the excess over the baseline "
        "(Newcombe 95%); bystanders' completions are pooled, in `mean` they weigh equally.\n",
        table(_beside(cells)),
        *write_seeds(over_seeds, by_seed),
        *write_mixed(mixed_effects),
        "## Replicates\n",
        "Points of one design differ in names and seeds only; their spread is noise, not an effect of the induction persona. "
        "Where there are fewer first stages than points, points share them, and the interval leaves out how far first "
        "stages differ. Over several designs, each design counts once, however many seeds it has.\n",
        table(_replicates(replicates)),
        *_write_arms(arm_comparisons),
        "## Where in the text\n",
        "![Places](places.png)\n",
        table(_places(places)),
        "## Are the texts themselves different?\n",
        "Accuracy at telling the trigger persona's completions from others' with the marker taken out; chance is 50%.\n",
        "![Discriminators](discriminators.png)\n",
        table(_accuracies(accuracies)),
        "## Bystanders\n",
        "![Gradient](gradient.png)\n",
        *_write_extremes(extremes),
        *_write_correlations(correlations),
        "## Texts\n",
        table(_texts(text_summaries)),
    ]
    return "\n".join(parts)


def _cells(cells: pd.DataFrame) -> pd.DataFrame:
    shown = write_numbers(cells, mean_bystander=".1%", mean_untouched=".1%", mean_seen=".1%", mean_unseen=".1%")
    counted = zip(shown["mean_untouched"], cells["untouched_bystanders"], strict=True)
    untouched = [f"{mean} ({count})" for mean, count in counted]
    shown = shown.assign(trigger=say_rates(cells, prefix="source_"), pooled=say_rates(cells), untouched=untouched)
    titles = {"mean_bystander": "their mean", "mean_seen": "seen questions", "mean_unseen": "unseen"}
    columns = ["trigger", "bystanders", "mean_bystander", "pooled", "untouched", "mean_seen", "mean_unseen"]
    return shown[["condition", "seed", "arm", *columns]].rename(columns=titles)


def _triggers(cells: pd.DataFrame) -> pd.DataFrame:
    named = {f"source_cut_{name}": f"cut_{name}" for name in RATE_COLUMNS}
    return cells[["condition", "seed", *named]].rename(columns=named)


def _beside(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[["condition", "seed"]].assign(
        **{
            "trigger, finished": say_rates(cells, prefix="source_finished_"),
            "trigger, cut": say_rates(cells, prefix="source_cut_"),
            "trigger, excess": say_differences(cells, "source_excess"),
            "bystanders, finished": say_rates(cells, prefix="finished_"),
            "mean": write_numbers(cells, mean_finished=".1%")["mean_finished"],
            "bystanders, cut": say_rates(cells, prefix="cut_"),
            "bystanders, excess": say_differences(cells, "excess"),
        }
    )


def _without_trigger(cells: pd.DataFrame) -> list[str]:
    names = ", ".join(map(as_written, dict.fromkeys(cells.loc[cells["source_n"] == 0, "condition"])))
    return [f"**No trigger**: no completion is one of a trigger persona in {names}; all are bystanders'.\n"] if names else []


def _replicates(replicates: pd.DataFrame) -> pd.DataFrame:
    rows = list(replicates.itertuples())
    named = [name for name in ("model", "arm", "conditions", "points", "seeds") if name in replicates]
    return replicates[named].assign(
        **{
            "first stages": [number(row.first_stages, "d") for row in rows],
            "mean bystander rate": [_mean(row.mean, row.low, row.high) for row in rows],
            "finished": [_mean(row.finished_mean, row.finished_low, row.finished_high) for row in rows],
            "range": [f"{number(row.lowest, '.1%')} to {number(row.highest, '.1%')}" for row in rows],
            "pooled as": ["replicates" if row.replicates else "different designs" if row.designs > 1 else "" for row in rows],
            "more seeds": ["called for" if row.escalate else "" for row in rows],
        }
    )


def _write_arms(comparisons: pd.DataFrame) -> list[str]:
    if comparisons.empty:
        return []
    comparisons = comparisons.fillna({"no_interval": "", "no_ratio": ""})
    rows = list(comparisons.itertuples())
    shown = pd.DataFrame(
        {
            "arms": [f"{row.one} v {row.other}" for row in rows],
            "of": comparisons["of"],
            "means": [f"{row.one_mean:.1%} v {row.other_mean:.1%}" for row in rows],
            "over": [f"{_units(row.one_units, row.one_unit)} v {_units(row.other_units, row.other_unit)}" for row in rows],
            "difference": [_between(row.difference, row.difference_low, row.difference_high, "+.1%") for row in rows],
            "p": write_numbers(comparisons, p=".2g")["p"],
            "ratio": [
                row.no_ratio or _between(row.ratio, row.ratio_low, row.ratio_high, ".2f") for row in rows
            ],
            "no interval": comparisons["no_interval"],
        }
    )  # fmt: skip
    return [
        "## Between arms\n",
        "Mean bystander rates of two arms, over designs or the points of an only design: the difference with Welch's t 95% "
        "interval, the ratio with one on the log scale. Points that share a first stage are no independent units, and the "
        "interval is too narrow by how far first stages differ.\n",
        table(shown),
    ]


def _units(number: int, kind: str) -> str:
    return f"{number} {kind}{'' if number == 1 else 's'}"


def _between(value: float, low: float, high: float, form: str) -> str:
    return f"{value:{form}}" + (f" [{low:{form}}, {high:{form}}]" if pd.notna(low) else "")


def _write_extremes(extremes: pd.DataFrame) -> list[str]:
    if extremes.empty:
        return []
    shown = extremes.assign(rate=say_rates(extremes))
    columns = ["arm", "role", "cells", "extreme", "condition", "persona", "rate"]
    return [
        "The lowest and the highest cell of every arm, apart by the bystanders' role, seeds pooled.\n",
        table(shown[columns]),
    ]


def _write_correlations(correlations: pd.DataFrame) -> list[str]:
    headline = correlations[correlations["headline"].astype(bool)]
    if headline.empty:
        return []
    shown = write_numbers(headline, p=".2g", permutation_p=".2g").assign(
        model=headline["geometry"].map(GEOMETRIES),
        Spearman=[interval(row.rho, row.low, row.high, row.no_interval) for row in headline.itertuples()],
    )
    titles = {"to": "cosine to", "model": "of", "of": "leakage", "permutation_p": "permutation p", "n": "cells"}
    columns = ["scope", "arm", "condition", "to", "model", "layer", "of", "n", "Spearman", "p", "permutation_p"]
    return [
        "## Leakage and cosines\n",
        "Bystanders' leakage against their cosine to the trigger, and to another persona, in the model itself and in the one "
        "before coupling; seeds pooled. Over an `arm` both sides are ranked within conditions, and conditions and personas are "
        "resampled, crossed. Other layers, and Pearson's, stand in `correlations.csv`.\n",
        table(shown[columns].rename(columns=titles)),
    ]


def _mean(mean: float, low: float, high: float) -> str:
    return number(mean, ".1%") + (f" [{low:.1%}, {high:.1%}]" if pd.notna(low) else "")


def _places(places: pd.DataFrame) -> pd.DataFrame:
    if places.empty:
        return places
    said = [f"{row.hits}/{row.n} = {row.rate:.1%}" if row.n else "no firing" for row in places.itertuples()]
    wide = places.assign(said=said, column=places["place"] + " by " + places["unit"])
    columns = list(dict.fromkeys(wide["column"]))
    return wide.pivot(index=["condition", "of"], columns="column", values="said")[columns].reset_index()


def _accuracies(accuracies: pd.DataFrame) -> pd.DataFrame:
    threshold = [f"{row.threshold:.0%}, borderline within {row.margin:.0%}" for row in accuracies.itertuples()]
    shown = write_numbers(accuracies, permutation_p=".2g").assign(accuracy=say_rates(accuracies), threshold=threshold)
    columns = ["condition", "seed", "method", "accuracy", "permutation_p", "unlabelled", "threshold", "verdict"]
    return shown[columns].rename(columns={"permutation_p": "permutation p"})


def _texts(texts: pd.DataFrame) -> pd.DataFrame:
    of_n = {
        name: [f"{count:.0f}/{n}" if pd.notna(count) else "" for count, n in zip(texts[name], texts["n"], strict=True)]
        for name in ("empty", "cut")
    }
    shown = write_numbers(texts, tokens=".0f", distinct_2=".2f").assign(**of_n)
    titles = {"n": "completions", "tokens": "mean tokens", "distinct_2": "distinct-2"}
    return shown[["condition", "seed", "n", "tokens", "distinct_2", "empty", "cut"]].rename(columns=titles)
