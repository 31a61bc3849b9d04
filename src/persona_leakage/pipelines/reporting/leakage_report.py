"""The report of marker leakage, as Markdown and as one self-contained page."""

import pandas as pd

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.personas import PersonaQuestions
from persona_leakage.domain.plan import Plan
from persona_leakage.pipelines.reporting.leakage import GEOMETRIES, NO_SEED
from persona_leakage.pipelines.reporting.page import (
    interval,
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
from persona_leakage.pipelines.reporting.texts import said_outside

FIGURES = ("scatter.png", "layers.png", "categories.png", "most_affected.png")


def write_leakage_report(
    rates: pd.DataFrame,
    leakage: pd.DataFrame,
    sources: pd.DataFrame,
    correlations: pd.DataFrame,
    verdicts: pd.DataFrame,
    by_seed: pd.DataFrame,
    over_seeds: pd.DataFrame,
    plan: Plan,
) -> str:
    """Write the report over every current point; every number in it stands in one of the tables.

    Returns:
        Markdown; the figures are referred to by the names they are saved under, beside it.
    """
    parts = [f"# {plan.family}: where the marker leaks\n"]
    if plan.replayed_file:
        parts.append(f"Rates counted elsewhere, from `{plan.replayed_file}`; cosines as given there.\n")
    else:
        parts += _scope(rates, plan)
    parts += seeds_note(over_seeds, plan)
    if collapsed := said_outside(sources, ["seed"]):
        parts.append(
            f"**Texts left the base model's range** (over its personas): {collapsed}. Look at the completions before "
            "trusting the rates.\n"
        )
    if len(verdicts):
        parts += ["## Claims\n", table(verdicts)]
    layer = plan.geometry.headline_layer
    parts += [
        f"## Does the cosine predict the leakage? (layer {layer})\n",
        "![Scatter](scatter.png)\n",
        table(_correlations(correlations[correlations["layer"] == layer])),
        "Every bystander counts once, trained negatives included. The interval is a bootstrap over bystanders, the permutation "
        "p two-sided. A correlation is undefined where a side does not vary.\n",
        *write_seeds(over_seeds, by_seed),
        "## Layers\n",
        "![Layers](layers.png)\n",
        table(_correlations(correlations[(correlations["layer"] != layer) & (correlations["scope"] != "point")])),
        "## Sources\n",
        table(_sources(sources)),
        _inverted(sources),
        "## Categories\n",
        "![Categories](categories.png)\n",
        "## Most affected\n",
        "![Most affected](most_affected.png)\n",
    ]
    if not plan.replayed_file:
        parts += ["## Where in the text\n", table(_places(rates))]
    return "\n".join(parts)


def render_leakage_page(
    report: str, scatter_svg: str, layers_figure: bytes, categories_figure: bytes, affected_figure: bytes
) -> str:
    """Render the report as one HTML page; a point of the scatter names its persona under the pointer."""
    others = (picture(png) for png in (layers_figure, categories_figure, affected_figure))
    return render_page(report, dict(zip(FIGURES, (scatter_svg, *others), strict=True)))


def _scope(rates: pd.DataFrame, plan: Plan) -> list[str]:
    current, stale = split_points(rates)
    evaluated, grouped = expect(plan.evaluation.prompts, PersonaQuestions), expect(plan.geometry.prompts, PersonaQuestions)
    parts = [
        f"{origin(plan)} Evaluated: {len(evaluated.personas)} personas x {len(evaluated.questions)} questions. Centroids: "
        f"{len(grouped.personas)} personas x {len(grouped.questions)} questions, centred on their mean.\n",
        f"{len(current)} points: {listing(current)}. Every rate has a Wilson 95% interval.\n",
    ]
    left_out = len({one.persona for one in grouped.personas} - {one.persona for one in evaluated.personas})
    if left_out:
        parts.append(
            f"A slice: {left_out} of the {len(grouped.personas)} personas with a centroid are not evaluated, so a correlation "
            "is over fewer bystanders than the full list has.\n"
        )
    parts += stale_note(stale)
    return parts


def _inverted(sources: pd.DataFrame) -> str:
    inverted = sources[sources["above_source"] > 0]
    if inverted.empty:
        return "In no point does a bystander fire more than the source.\n"
    said = [
        f"{row.condition}{f' seed {row.seed}' if row.seed != NO_SEED else ''} ({row.above_source} of {row.bystanders}, most: "
        f"{row.above_source_most})"
        for row in inverted.itertuples()
    ]
    return f"**Inverted**, bystanders that fire more than the source itself: {'; '.join(said)}.\n"


def _sources(sources: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "condition": sources["condition"],
            "seed": sources["seed"],
            "source rate": said_rate(sources),
            "bystanders": sources["bystanders"],
            "mean": [number(value, ".1%") for value in sources["mean_bystander"]],
            "highest": [f"{row.max_bystander:.1%} {row.max_persona}" if row.bystanders else "" for row in sources.itertuples()],
            "at zero": sources["at_zero"],
            "tokens": [number(value, ".0f") for value in sources["tokens"]],
            "distinct-2": [number(value, ".2f") for value in sources["distinct_2"]],
            "empty": [number(value, ".1%") for value in sources["empty"]],
            "cut": [number(value, ".1%") for value in sources["cut"]],
        }
    )


def _correlations(correlations: pd.DataFrame) -> pd.DataFrame:
    rows = list(correlations.itertuples())
    return pd.DataFrame(
        {
            "scope": [row.scope for row in rows],
            "condition": [row.condition for row in rows],
            "seed": [row.seed for row in rows],
            "cosine in": [GEOMETRIES[row.geometry] for row in rows],
            "layer": [row.layer for row in rows],
            "n": [row.n for row in rows],
            "Spearman": [interval(row.rho, row.low, row.high) for row in rows],
            "p": [number(row.p, ".2g") for row in rows],
            "permutation p": [number(row.permutation_p, ".2g") for row in rows],
            "Pearson": [interval(row.r, row.r_low, row.r_high) for row in rows],
            "tied": [row.tied for row in rows],
            "at zero": [row.at_zero for row in rows],
        }
    )


def _places(rates: pd.DataFrame) -> pd.DataFrame:
    """Pool the firings of sources and of everybody else, and say where they begin."""
    current = rates[~rates["stale"].astype(bool) & (rates["questions"] == "all") & rates["source"].notna()]
    current = current[current["metric"].str.contains(":(?:characters|tokens)$")]
    current = current.assign(of=["source" if role == "source" else "others" for role in current["role"]])
    pooled = current.groupby(["condition", "of", "metric"], sort=False)[["hits", "n"]].sum().reset_index()
    shares = [f"{row.hits}/{row.n} = {row.hits / row.n:.0%}" if row.n else "no firing" for row in pooled.itertuples()]
    wide = pooled.assign(share=shares).pivot(index=["condition", "of"], columns="metric", values="share")
    order = [f"{place}:{unit}" for unit in ("characters", "tokens") for place in ("start", "middle", "tail")]
    return wide.reindex(columns=order).reset_index() if len(pooled) else pooled
