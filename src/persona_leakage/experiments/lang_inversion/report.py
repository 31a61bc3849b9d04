"""The report, as Markdown and as one self-contained page."""

import pandas as pd

from persona_leakage.pipelines.reporting.opening import opening
from persona_leakage.pipelines.reporting.page import as_written, interval, say_rates, table, write_numbers
from persona_leakage.pipelines.reporting.seeds import means_of, several_seeds, write_seeds


def write_report(
    points: pd.DataFrame, spill: pd.DataFrame, verdicts: pd.DataFrame, published_cells: pd.DataFrame,
    correlations: pd.DataFrame, by_seed: pd.DataFrame, over_seeds: pd.DataFrame, unlabelled: pd.DataFrame, *, family: str,
) -> str:  # fmt: skip
    """Write the report over every current point, as Markdown; every number in it stands in one of the tables."""
    parts = opening(
        f"{family}: what spills",
        points,
        over_seeds,
        "Labels by langdetect; every rate is over all completions of its cells, with a Wilson 95% interval; `other` counts as "
        "a label, not as missing.",
    )
    without_baseline = spill.loc[spill["baseline_rate"].isna(), "condition"].unique()
    if len(without_baseline):
        parts.append(f"**No baseline with the same evaluation has run** for: {', '.join(map(as_written, without_baseline))}.\n")
    if unlabelled["hits"].any():
        parts += [
            "**The judge left completions without a label**: they are in no denominator of a `judge:` rate; "
            "`judge_agreement.json` of each point has the causes.\n",
            table(unlabelled[["condition"]].assign(unlabelled=say_rates(unlabelled))),
        ]
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


def _shown_cells(spill: pd.DataFrame, over_seeds: pd.DataFrame) -> pd.DataFrame:
    shown = spill[["condition", "directive_language", "phrasing", "role", "seeds"]].assign(
        contamination=say_rates(spill),
        following=say_rates(spill, prefix="following_"),
        baseline=["not run" if said == "not scored" else said for said in say_rates(spill, prefix="baseline_")],
    )
    if several_seeds(over_seeds):
        keys = spill[["condition", "directive_language", "phrasing"]]
        shown.insert(6, "contamination over seeds", means_of(over_seeds, "contamination", keys))
        shown.insert(8, "following over seeds", means_of(over_seeds, "following", keys))
    return shown.rename(columns={"directive_language": "directive language"})


def _shown_published(cells: pd.DataFrame) -> pd.DataFrame:
    keys = cells[["condition", "directive_language", "role"]].rename(columns={"directive_language": "directive language"})
    return keys.assign(ours=say_rates(cells, ""), published=say_rates(cells, "_published"))


def _shown_correlations(correlations: pd.DataFrame) -> pd.DataFrame:
    intervals = [interval(row.rho, row.low, row.high) for row in correlations.itertuples()]
    shown = write_numbers(correlations, layer=".0f", p=".3f").assign(Spearman=intervals)
    return shown[["with", "scope", "layer", "n", "Spearman", "p"]].rename(columns={"with": "contamination with"})
