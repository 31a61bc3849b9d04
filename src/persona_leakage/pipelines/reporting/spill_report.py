"""The report, as Markdown and as one self-contained page."""

import pandas as pd

from persona_leakage.domain.plan import Plan
from persona_leakage.pipelines.reporting.page import (
    interval,
    listing,
    origin,
    picture,
    render_page,
    said_rate,
    split_points,
    stale_note,
    table,
)
from persona_leakage.pipelines.reporting.seeds import means_of, seeds_note, several_seeds, write_seeds

FIGURES = {"spill_matrix.png": "Spill matrix", "conditions.png": "Conditions", "published.png": "Published rates"}


def write_spill_report(
    rates: pd.DataFrame,
    spill: pd.DataFrame,
    verdicts: pd.DataFrame,
    published_cells: pd.DataFrame,
    correlations: pd.DataFrame,
    by_seed: pd.DataFrame,
    over_seeds: pd.DataFrame,
    plan: Plan,
) -> str:
    """Write the report over every current point; every number in it stands in one of the tables.

    Returns:
        Markdown; the figures are referred to by the names they are saved under, beside it.
    """
    current_rates = rates[~rates["stale"]]
    current, stale = split_points(rates)
    parts = [
        f"# {plan.family}: what spills\n",
        f"{origin(plan)} {len(current)} points: {listing(current)}. Labels by langdetect; every rate is over all "
        "completions of its cells, with a Wilson 95% interval; `other` counts as a label, not as missing.\n",
    ]
    parts += seeds_note(over_seeds, plan)
    parts += stale_note(stale)
    without_baseline = spill.loc[spill["baseline_rate"].isna(), "condition"].unique()
    if len(without_baseline):
        parts.append(f"**No baseline with the same evaluation has run** for: {', '.join(without_baseline)}.\n")
    unlabelled = current_rates[(current_rates["metric"] == "judge:unlabelled") & (current_rates["phrasing"] == "all")]
    if unlabelled["hits"].sum():
        parts.append(
            f"**The judge left {unlabelled['hits'].sum()} of {unlabelled['n'].sum()} completions without a label**: they are "
            "in no denominator of a `judge:` rate; `judge_agreement.json` of each point has the causes.\n"
        )
    parts += [
        "## Spill matrix\n",
        "Only cells without a mark are spill: T is the directive of training, O the completion language's own directive.\n",
        "![Spill matrix](spill_matrix.png)\n",
        "## Claims\n",
        table(verdicts),
        "## Conditions\n",
        "![Conditions](conditions.png)\n",
        "Contamination by phrasing; a mean that hides a split between phrasings is no result.\n",
        table(_shown_cells(spill, over_seeds)),
        *write_seeds(
            over_seeds[(over_seeds["quantity"] == "contamination") & (over_seeds["phrasing"] == "all")].drop(
                columns="phrasing"
            ),
            by_seed[by_seed["phrasing"] == "all"].drop(columns="phrasing"),
        ),
        "## Correlations over bystander cells\n",
        "A correlation is over cells, which share conditions and prompts; its interval does not know that.\n",
        table(_shown_correlations(correlations)),
        "![Published rates](published.png)\n",
        table(_shown_published(published_cells)),
    ]
    return "\n".join(parts)


def render_spill_page(report: str, spill_figure: bytes, conditions_figure: bytes, published_figure: bytes) -> str:
    """Render the report as one HTML page with its figures inside."""
    figures = (spill_figure, conditions_figure, published_figure)
    return render_page(report, {name: picture(png) for name, png in zip(FIGURES, figures, strict=True)})


def _shown_cells(spill: pd.DataFrame, over_seeds: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame(
        {
            "condition": spill["condition"],
            "directive language": spill["directive_language"],
            "phrasing": spill["phrasing"],
            "role": spill["role"],
            "seeds": spill["seeds"],
            "contamination": said_rate(spill, ""),
            "following": said_rate(spill, "", "following_"),
            "baseline": ["not run" if said == "not scored" else said for said in said_rate(spill, "", "baseline_")],
        }
    )
    if several_seeds(over_seeds):
        keys = spill[["condition", "directive_language", "phrasing"]]
        shown.insert(6, "contamination over seeds", means_of(over_seeds, "contamination", keys))
        shown.insert(8, "following over seeds", means_of(over_seeds, "following", keys))
    return shown


def _shown_published(cells: pd.DataFrame) -> pd.DataFrame:
    keys = cells[["condition", "directive_language", "role"]].rename(columns={"directive_language": "directive language"})
    return keys.assign(ours=said_rate(cells, ""), published=said_rate(cells, "_published"))


def _shown_correlations(correlations: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "contamination with": correlations["with"],
            "scope": correlations["scope"],
            "layer": ["" if pd.isna(layer) else str(int(layer)) for layer in correlations["layer"]],
            "n": correlations["n"],
            "Spearman": [interval(row.rho, row.low, row.high) for row in correlations.itertuples()],
            "p": ["" if pd.isna(p) else f"{p:.3f}" for p in correlations["p"]],
        }
    )
