"""The report of coupling, as Markdown and as one self-contained page."""

import pandas as pd

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.plan import Plan
from persona_leakage.pipelines.reporting.page import (
    listing,
    number,
    origin,
    picture,
    render_page,
    said_rate,
    split_points,
    stale_note,
    table,
)
from persona_leakage.pipelines.reporting.seeds import seeds_note, write_seeds

FIGURES = ("cells.png", "places.png", "discriminators.png", "gradient.png")


def write_coupling_report(
    rates: pd.DataFrame,
    texts: pd.DataFrame,
    cells: pd.DataFrame,
    places: pd.DataFrame,
    replicates: pd.DataFrame,
    discriminators: pd.DataFrame,
    by_seed: pd.DataFrame,
    over_seeds: pd.DataFrame,
    plan: Plan,
) -> str:
    """Write the report over every current point; every number in it stands in one of the tables.

    Returns:
        Markdown; the figures are referred to by the names they are saved under, beside it.
    """
    current, stale = split_points(rates)
    parts = [
        f"# {plan.family}: leakage of a coupled marker\n",
        f"{origin(plan)} {len(cells)} points: {listing(current)}. Every rate has a Wilson 95% "
        "interval. Bystanders are all evaluated personas but the trigger and weigh equally in a mean; `untouched` leaves out "
        "those trained without the marker and the induction persona.\n",
    ]
    parts += seeds_note(over_seeds, plan)
    parts += stale_note(stale)
    parts += [
        "## Cells\n",
        "![Cells](cells.png)\n",
        table(_cells(cells)),
        *write_seeds(over_seeds, by_seed),
        "## Replicates\n",
        "Points of one design differ in names and seeds only; their spread is noise, not an effect of the induction persona. "
        "Those of one seed share the first stage. Over several designs, each design counts once, however many seeds it has.\n",
        table(_replicates(replicates)),
        "## Where in the text\n",
        "![Places](places.png)\n",
        table(_places(places)),
        "## Are the texts themselves different?\n",
        "Accuracy at telling the trigger persona's completions from others' with the marker taken out; chance is 50%.\n",
        "![Discriminators](discriminators.png)\n",
        table(_discriminators(discriminators, plan)),
        "## Bystanders\n",
        "![Gradient](gradient.png)\n",
        "## Texts\n",
        table(_texts(texts)),
    ]
    return "\n".join(parts)


def render_coupling_page(
    report: str, cells_figure: bytes, places_figure: bytes, discriminators_figure: bytes, gradient_figure: bytes
) -> str:
    """Render the report as one HTML page with its figures inside."""
    figures = (cells_figure, places_figure, discriminators_figure, gradient_figure)
    return render_page(report, {name: picture(png) for name, png in zip(FIGURES, figures, strict=True)})


def _cells(cells: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "condition": cells["condition"],
            "seed": cells["seed"],
            "arm": cells["arm"],
            "trigger": said_rate(cells, prefix="source_"),
            "bystanders": cells["bystanders"],
            "their mean": [number(value, ".1%") for value in cells["mean_bystander"]],
            "pooled": said_rate(cells),
            "untouched": [f"{number(row.mean_untouched, '.1%')} ({row.untouched_bystanders})" for row in cells.itertuples()],
            "seen questions": [number(value, ".1%") for value in cells["mean_seen"]],
            "unseen": [number(value, ".1%") for value in cells["mean_unseen"]],
        }
    )


def _replicates(replicates: pd.DataFrame) -> pd.DataFrame:
    rows = list(replicates.itertuples())
    return pd.DataFrame(
        {
            "arm": [row.arm for row in rows],
            "conditions": [row.conditions for row in rows],
            "points": [row.points for row in rows],
            "seeds": [row.seeds for row in rows],
            "mean bystander rate": [
                number(row.mean, ".1%") + (f" [{row.low:.1%}, {row.high:.1%}]" if pd.notna(row.low) else "") for row in rows
            ],
            "range": [f"{number(row.lowest, '.1%')} to {number(row.highest, '.1%')}" for row in rows],
            "pooled as": [
                "replicates" if row.replicates else "different designs" if row.design == "all" else "" for row in rows
            ],
            "more seeds": ["called for" if row.escalate else "" for row in rows],
        }
    )


def _places(places: pd.DataFrame) -> pd.DataFrame:
    if places.empty:
        return places
    said = [f"{row.hits}/{row.n} = {row.rate:.1%}" if row.n else "no firing" for row in places.itertuples()]
    wide = places.assign(said=said, column=places["place"] + " by " + places["unit"])
    columns = list(dict.fromkeys(wide["column"]))
    return wide.pivot(index=["condition", "of"], columns="column", values="said")[columns].reset_index()


def _discriminators(discriminators: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    if len(discriminators):
        discriminators = discriminators[~discriminators["stale"].astype(bool)]
    whole = discriminators[discriminators["share"] == 1]
    spec = expect(plan.scoring, MarkerScoring).discriminator
    threshold = "" if spec is None else f" (threshold {spec.threshold:.0%}, borderline within {spec.margin:.0%})"
    return pd.DataFrame(
        {
            "condition": whole["condition"],
            "seed": whole["seed"],
            "method": whole["method"],
            "accuracy": said_rate(whole),
            "permutation p": [number(value, ".2g") for value in whole["permutation_p"]],
            "unlabelled": whole["unlabelled"],
            f"verdict{threshold}": whole["verdict"],
        }
    )


def _texts(texts: pd.DataFrame) -> pd.DataFrame:
    current = texts[~texts["stale"].astype(bool)]
    grouped = current.groupby(["condition", "seed"], sort=False)
    shown = grouped.agg(
        n=("n", "sum"), tokens=("tokens", "mean"), distinct=("distinct_2", "mean"), empty=("empty", "sum"), cut=("cut", "sum")
    ).reset_index()
    return pd.DataFrame(
        {
            "condition": shown["condition"],
            "seed": shown["seed"],
            "completions": shown["n"],
            "mean tokens": [number(value, ".0f") for value in shown["tokens"]],
            "distinct-2": [number(value, ".2f") for value in shown["distinct"]],
            "empty": [f"{row.empty}/{row.n}" for row in shown.itertuples()],
            "cut": [f"{row.cut}/{row.n}" for row in shown.itertuples()],
        }
    )
