"""The report, as Markdown and as one self-contained page."""

import pandas as pd

from persona_leakage.domain.directives import NOT_KEPT
from persona_leakage.experiments.lang_inversion.tables import DETECTOR_MARGIN
from persona_leakage.pipelines.reporting.claims import write_claims
from persona_leakage.pipelines.reporting.cut import warn_of_cut
from persona_leakage.pipelines.reporting.mixed import write_mixed
from persona_leakage.pipelines.reporting.opening import opening
from persona_leakage.pipelines.reporting.page import as_written, interval, say_differences, say_rates, table, write_numbers
from persona_leakage.pipelines.reporting.seeds import means_of, several_seeds, write_seeds


def write_report(
    points: pd.DataFrame, spill: pd.DataFrame, verdicts: pd.DataFrame, published_cells: pd.DataFrame,
    correlations: pd.DataFrame, by_seed: pd.DataFrame, over_seeds: pd.DataFrame, unlabelled: pd.DataFrame,
    cut_gaps: pd.DataFrame, detector_gaps: pd.DataFrame, mixed_effects: pd.DataFrame, projected: pd.DataFrame,
    kept_answers: pd.DataFrame, *, family: str,
) -> str:  # fmt: skip
    """Write the report over every current point, as Markdown; every number in it stands in one of the tables."""
    parts = opening(
        f"{family}: what spills",
        points,
        over_seeds,
        "Labels by langdetect; every rate is over all completions of its cells, with a Wilson 95% interval; `other` counts as "
        "a label, not as missing.",
    )
    parts += _of_own_answers(kept_answers)
    parts += warn_of_cut(cut_gaps)
    without_baseline = spill.loc[spill["baseline_rate"].isna(), "condition"].unique()
    if len(without_baseline):
        parts.append(f"**No baseline with the same evaluation has run** for: {', '.join(map(as_written, without_baseline))}.\n")
    parts += _between_detectors(detector_gaps)
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
        *write_claims(verdicts),
        "## Conditions\n",
        "![Conditions](conditions.png)\n",
        "Contamination by phrasing; a mean that hides a split between phrasings is no result. `excess` is contamination "
        "over the baseline's rate, with Newcombe's 95% interval.\n",
        table(_shown_cells(spill, over_seeds)),
        "## Cut completions and the second detector\n",
        "Phrasings pooled: completions cut at the token limit, both rates over those that were not, and by lingua.\n",
        table(_shown_beside(spill[spill["phrasing"] == "all"])),
        *write_seeds(
            over_seeds[(over_seeds["quantity"] == "contamination") & (over_seeds["phrasing"] == "all")].drop(
                columns="phrasing"
            ),
            by_seed[by_seed["phrasing"] == "all"].drop(columns="phrasing"),
        ),
        *write_mixed(mixed_effects),
        "## Correlations over bystander cells\n",
        f"`all`, `within`, where both sides are ranked within each condition, and `apart`, where what a language does in every "
        f"condition is taken out too, are over {_pool(correlations)}. In the first two conditions and directive languages are "
        "resampled, crossed, and p is of the same bootstrap; the permutation p exchanges cells (`within`: of one condition) as "
        "if they were independent. Fewer than 7 cells or 5 conditions have no interval. `projection` is how far a directive's "
        "centroid lies along the completion language's direction in the untrained model's completions.\n",
        *_centred_otherwise(correlations),
        table(_shown_correlations(pd.concat([one for one in (correlations, projected) if len(one)] or [correlations]))),
        "![Published rates](published.png)\n",
        table(_shown_published(published_cells)),
    ]
    return "\n".join(parts)


def _of_own_answers(kept: pd.DataFrame) -> list[str]:
    """Say how many of the base model's own answers became texts, by point; nothing where texts are no own answers."""
    if kept.empty:
        return []
    shown = kept[["condition", "seed", "language"]].assign(kept=say_rates(kept), **{name: kept[name] for name in NOT_KEPT})
    return [
        "**Texts are the base model's own answers** in the completion language. Of all that were asked for, those are kept "
        "that ended by themselves, are long enough, are in that language to both detectors, and had not been given before:\n",
        table(shown.rename(columns={"wrong_language": "wrong language"})),
    ]


def _between_detectors(gaps: pd.DataFrame) -> list[str]:
    both = zip(gaps.to_dict("records"), say_rates(gaps), say_rates(gaps, prefix="cross_check_"), strict=True)
    told = [
        f"{row['metric']} of {as_written(row['condition'])} under {as_written(row['directive_language'])}, {one} by langdetect "
        f"and {other} by lingua"
        for row, one, other in both
    ]
    said = f"**The detectors disagree** by more than {DETECTOR_MARGIN:.0%}: {'; '.join(told)}. Read the texts before either.\n"
    return [said] if told else []


def _shown_cells(spill: pd.DataFrame, over_seeds: pd.DataFrame) -> pd.DataFrame:
    shown = spill[["condition", "directive_language", "phrasing", "role", "seeds"]].assign(
        contamination=say_rates(spill),
        following=say_rates(spill, prefix="following_"),
        baseline=["not run" if said == "not scored" else said for said in say_rates(spill, prefix="baseline_")],
        excess=say_differences(spill, "excess"),
    )
    if several_seeds(over_seeds):
        keys = spill[["condition", "directive_language", "phrasing"]]
        shown.insert(6, "contamination over seeds", means_of(over_seeds, "contamination", keys))
        shown.insert(8, "following over seeds", means_of(over_seeds, "following", keys))
    return shown.rename(columns={"directive_language": "directive language"})


def _shown_beside(pooled: pd.DataFrame) -> pd.DataFrame:
    titles = {
        "cut_": "cut", "finished_": "contamination, finished", "finished_following_": "following, finished",
        "cross_check_": "contamination by lingua", "cross_check_following_": "following by lingua",
    }  # fmt: skip
    shown = pooled[["condition", "directive_language"]].rename(columns={"directive_language": "directive language"})
    return shown.assign(**{title: say_rates(pooled, prefix=prefix) for prefix, title in titles.items()})


def _shown_published(cells: pd.DataFrame) -> pd.DataFrame:
    keys = cells[["condition", "directive_language", "role"]].rename(columns={"directive_language": "directive language"})
    return keys.assign(ours=say_rates(cells, ""), published=say_rates(cells, "_published"))


def _shown_correlations(correlations: pd.DataFrame) -> pd.DataFrame:
    intervals = [interval(row.rho, row.low, row.high, row.no_interval) for row in correlations.itertuples()]
    shown = write_numbers(correlations, layer=".0f", p=".2g", permutation_p=".2g").assign(Spearman=intervals)
    titles = {"with": "contamination with", "permutation_p": "permutation p"}
    return shown[["with", "scope", "layer", "n", "Spearman", "p", "permutation_p"]].rename(columns=titles)


def _centred_otherwise(correlations: pd.DataFrame) -> list[str]:
    """Say which conditions have a cosine and are in none of its pooled numbers, though in those of distance."""

    def entered(kind: str, *, pooled: bool) -> set[str]:
        rows = correlations.loc[correlations["with"] == kind, "conditions"].dropna()
        return {name for names in rows if (", " in names) == pooled for name in names.split(", ")}

    used = entered("cosine", pooled=True)
    left_out = entered("typological_distance", pooled=True) & entered("cosine", pooled=False) - used
    said = ", ".join(map(as_written, sorted(left_out)))
    return [f"**Not in `all` and `within` of the cosine**, being centred over other languages: {said}.\n"] if said else []


def _pool(correlations: pd.DataFrame) -> str:
    """Name the conditions of the pooled numbers, once where several models have the same."""
    pooled = [names for names in dict.fromkeys(correlations["conditions"].dropna()) if ", " in names]
    return as_written("; ".join(pooled) or "several conditions")
