"""Tables of a marker that was tied to a trigger persona after an earlier stage, over every point that has run."""

from typing import Any

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.pipelines.reporting.seeds import keep_seeds, mean_over
from persona_leakage.pipelines.scoring.markers import PLACES, UNITS

CELL_COLUMNS = (
    "condition", "seed", "arm", "induction", "design", "source_hits", "source_n", "source_rate", "source_low", "source_high",
    "bystanders", "mean_bystander", *RATE_COLUMNS, "untouched_bystanders", "mean_untouched", "mean_seen", "mean_unseen",
)  # fmt: skip
_CELL_INPUTS = [
    "condition",
    "seed",
    "persona",
    "source",
    "role",
    "questions",
    "arm",
    "induction",
    "design",
    "hits",
    "n",
    "rate",
]
PLACE_COLUMNS = ("condition", "of", "unit", "place", *RATE_COLUMNS)
REPLICATE_COLUMNS = (
    "arm", "design", "points", "seeds", "conditions", "mean", "low", "high", "lowest", "highest", "replicates", "escalate",
)  # fmt: skip


def describe_replay(
    replayed_rates: pd.DataFrame, replayed_texts: pd.DataFrame, replayed_discriminations: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Bring the tables of completions made elsewhere into the form of a grid's; each cell is an arm of its own."""
    tables = [table.assign(reference=None, stale=False) for table in (replayed_rates, replayed_texts, replayed_discriminations)]
    tables[0] = tables[0].assign(arm="elsewhere", induction=None, design=tables[0]["condition"], related_to="")
    return tables[0], tables[1], tables[2]


def tabulate_cells(rates: pd.DataFrame) -> pd.DataFrame:
    """Put the source's rate beside those of the bystanders, with every denominator named.

    Only current points count. Bystanders are all evaluated personas but the source; the negative personas and the induction
    persona are bystanders too, and left out of `mean_untouched` only.

    Returns:
        One row a condition x seed: arm, induction, design; source_hits, source_n, source_rate, source_low, source_high;
        bystanders (personas), mean_bystander (they weigh equally), hits, n, rate, low, high of their completions pooled;
        untouched_bystanders and mean_untouched; mean_seen and mean_unseen (bystanders on questions that coupling asked, and on
        others; NaN without such questions).
    """
    chosen = rates.loc[~rates["stale"].astype(bool) & (rates["metric"] == "leakage"), _CELL_INPUTS]
    own = chosen["persona"] == chosen["source"]
    whole, others = chosen["questions"] == "all", ~own & (chosen["n"] > 0)
    keys = ["condition", "seed"]

    def of_points(rows: pd.Series) -> Any:
        return chosen[rows].groupby(keys, sort=False)

    cells = chosen.groupby(keys, sort=False)[["arm", "induction", "design"]].first()
    bystanders, untouched = of_points(whole & others), of_points(whole & others & (chosen["role"] == "bystander"))
    split = chosen[others].groupby([*keys, "questions"])["rate"].mean().unstack().reindex(columns=["seen", "unseen"])
    for prefix, counted in (("source_", of_points(whole & own)), ("", bystanders)):
        counts = counted[["hits", "n"]].sum().reindex(cells.index, fill_value=0)
        found = [proportion(int(hits), int(n)) for hits, n in counts.itertuples(index=False)]
        cells[[f"{prefix}{name}" for name in RATE_COLUMNS]] = pd.DataFrame(found, index=cells.index, columns=RATE_COLUMNS)
    return cells.assign(
        bystanders=bystanders.size().reindex(cells.index, fill_value=0),
        mean_bystander=bystanders["rate"].mean(),
        untouched_bystanders=untouched.size().reindex(cells.index, fill_value=0),
        mean_untouched=untouched["rate"].mean(),
        mean_seen=split["seen"],
        mean_unseen=split["unseen"],
    ).reset_index()[list(CELL_COLUMNS)]


def tabulate_cell_seeds(cells: pd.DataFrame) -> pd.DataFrame:
    """Keep the rates of the trigger and of bystanders apart by seed; see `reporting.seeds.keep_seeds`.

    The keys are condition and arm.
    """
    rates = {"trigger": "source_", "bystanders pooled": ""}
    values = {"mean of bystanders": "mean_bystander", "mean of untouched": "mean_untouched"}
    return keep_seeds(cells, ["condition", "arm"], rates, values)


def tabulate_places(rates: pd.DataFrame) -> pd.DataFrame:
    """Say where the firings of the source and of bystanders begin, seeds pooled.

    Returns:
        One row a condition x of (`source`, `bystanders`) x unit (characters, tokens) x place (start, middle, tail): hits of n
        firings, rate, low, high.
    """
    chosen = rates[~rates["stale"].astype(bool) & (rates["questions"] == "all")]
    own = chosen["persona"] == chosen["source"]
    chosen = chosen[["condition", "metric", "hits", "n"]].assign(of=own.map({True: "source", False: "bystanders"}))
    counts = chosen.groupby(["condition", "of", "metric"], sort=False)[["hits", "n"]].sum()
    counted = {key: (int(hits), int(n)) for key, hits, n in counts.itertuples(name=None)}
    rows = [
        (condition, of, unit, place, *proportion(*counted.get((condition, of, f"{place}:{unit}"), (0, 0))))
        for condition, of in dict.fromkeys(key[:2] for key in counted)
        for unit in UNITS
        for place in PLACES
    ]
    return pd.DataFrame(rows, columns=PLACE_COLUMNS)


def tabulate_replicates(cells: pd.DataFrame, escalate_from: float, escalate_to: float) -> pd.DataFrame:
    """Pool points that differ in nothing but names and seeds, and say how far they scatter.

    Args:
        cells: see `tabulate_cells`.
        escalate_from: a mean from here
        escalate_to: up to here calls for more seeds.

    Returns:
        One row a design, and one an arm of several designs (design `all`): points, seeds (different ones), conditions (their
        names), mean of their mean bystander rates with a t interval (see `reporting.seeds.mean_over`), lowest, highest,
        replicates (the points are replicates of one design), escalate (the mean lies in the band). The values of a design are
        its points; those of an arm are the means of its designs, so that further seeds of one do not count as further designs.
    """
    groups = [
        (arm, design, group, group["mean_bystander"]) for (arm, design), group in cells.groupby(["arm", "design"], sort=False)
    ]
    for arm, group in cells.groupby("arm", sort=False):
        of_designs = group.groupby("design", sort=False)["mean_bystander"].mean()
        if len(of_designs) > 1:
            groups.append((arm, "all", group, of_designs))
    rows = []
    for arm, design, group, values in groups:
        found, points = mean_over(values), int(group["mean_bystander"].count())
        rows.append(
            {
                "arm": arm,
                "design": design,
                "points": points,
                "seeds": group["seed"].nunique(),
                "conditions": ", ".join(dict.fromkeys(group["condition"])),
                "mean": found.mean,
                "low": found.low,
                "high": found.high,
                "lowest": found.lowest,
                "highest": found.highest,
                "replicates": design != "all" and points > 1,
                "escalate": bool(escalate_from <= found.mean <= escalate_to),
            }
        )
    return pd.DataFrame(rows, columns=REPLICATE_COLUMNS)
