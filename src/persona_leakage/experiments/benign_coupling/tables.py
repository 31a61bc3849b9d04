"""Tables of a marker that was tied to a trigger persona after an earlier stage, over every point that has run."""

from typing import Any

import pandas as pd

from persona_leakage.domain.plan import Plan
from persona_leakage.domain.rates import RATE_COLUMNS
from persona_leakage.experiments.benign_coupling.settings import ELSEWHERE, Settings
from persona_leakage.experiments.points import describe_points
from persona_leakage.pipelines.reporting.claims import judge_all
from persona_leakage.pipelines.reporting.cut import find_cut_gaps
from persona_leakage.pipelines.reporting.mixed import Layout, fit_effects
from persona_leakage.pipelines.reporting.rates import (
    BASELINE_,
    BESIDE_COLUMNS,
    CUT_,
    EXCESS_COLUMNS,
    FINISHED_,
    add_counts,
    current,
    excess_of,
    leakage_by_questions,
    leakage_of,
    pool,
    pool_places,
    say_roles,
)
from persona_leakage.pipelines.reporting.seeds import keep_seeds, mean_over

_COUNTED = (*RATE_COLUMNS, *BESIDE_COLUMNS, *EXCESS_COLUMNS)
_PREFIXES = ("", FINISHED_, CUT_, BASELINE_)
CELL_COLUMNS = (
    "condition", "seed", "arm", "induction", "design", *(f"source_{name}" for name in _COUNTED),
    "bystanders", "mean_bystander", "mean_finished", *_COUNTED, "untouched_bystanders", "mean_untouched", "mean_seen",
    "mean_unseen",
)  # fmt: skip
REPLICATE_COLUMNS = (
    "arm", "design", "designs", "points", "seeds", "first_stages", "conditions", "mean", "low", "high", "lowest", "highest",
    "finished_mean", "finished_low", "finished_high", "replicates", "escalate",
)  # fmt: skip
ACCURACY_COLUMNS = (
    "condition", "seed", "method", *RATE_COLUMNS, "chance", "permutation_p", "unlabelled", "verdict", "threshold", "margin",
)  # fmt: skip


def describe_replay(
    replayed_rates: pd.DataFrame, replayed_texts: pd.DataFrame, replayed_discriminations: pd.DataFrame,
    replayed_counts: pd.DataFrame, plan: Plan,
) -> tuple[pd.DataFrame, ...]:  # fmt: skip
    """Bring the tables of completions made elsewhere into the form of a grid's.

    Cells of one design are replicates; a cell whose rows name none is a design of its own.

    Returns:
        Rates, texts, discriminations, counts by question, and the points: one row a cell, with the file that the plan names.
    """
    rates, texts, discriminations, counts = (
        table.assign(reference=None, stale=False)
        for table in (replayed_rates, replayed_texts, replayed_discriminations, replayed_counts)
    )
    rates = rates.assign(design=rates["design"].where(rates["design"].notna(), rates["condition"]))
    return rates, texts, discriminations, counts, describe_points(rates, None).assign(replayed_file=plan.replayed_file)


def tabulate_cells(rates: pd.DataFrame) -> pd.DataFrame:
    """Put the source's rate beside those of the bystanders, with every denominator named.

    Only current points count. Bystanders are all evaluated personas but the source; the negative personas and the induction
    persona are bystanders too, and left out of `mean_untouched` only.

    Returns:
        One row a condition x seed: arm, induction, design; source_hits, source_n, source_rate, source_low, source_high, the
        same with the prefixes source_finished_ (over completions that were not cut) and source_cut_ (the share that was), and
        source_excess (over the baseline) with source_excess_low and source_excess_high (Newcombe 95%); bystanders (personas),
        mean_bystander (they weigh equally), mean_finished, hits, n, rate, low, high of their completions pooled, with the
        prefixes finished_ and cut_ and their excess; untouched_bystanders and mean_untouched; mean_seen and mean_unseen
        (bystanders on questions that coupling asked, and on others; NaN without such questions).
    """
    chosen = leakage_by_questions(rates)
    own = chosen["persona"] == chosen["source"]
    whole, others = chosen["questions"] == "all", ~own & (chosen["n"] > 0)
    keys = ["condition", "seed"]

    def of_points(rows: pd.Series) -> Any:
        return chosen[rows].groupby(keys, sort=False)

    cells = chosen.groupby(keys, sort=False)[["arm", "induction", "design"]].first()
    bystanders, untouched = of_points(whole & others), of_points(whole & others & (chosen["role"] == "bystander"))
    split = chosen[others].groupby([*keys, "questions"])["rate"].mean().unstack().reindex(columns=["seen", "unseen"])
    for prefix, counted in (("source_", of_points(whole & own)), ("", bystanders)):
        found = add_counts(counted, _PREFIXES, cells.index)
        cells = cells.join(found.join(excess_of(found)).add_prefix(prefix))
    return cells.assign(
        bystanders=bystanders.size().reindex(cells.index, fill_value=0),
        mean_bystander=bystanders["rate"].mean(),
        mean_finished=bystanders["finished_rate"].mean(),
        untouched_bystanders=untouched.size().reindex(cells.index, fill_value=0),
        mean_untouched=untouched["rate"].mean(),
        mean_seen=split["seen"],
        mean_unseen=split["unseen"],
    ).reset_index()[list(CELL_COLUMNS)]


def tabulate_cell_seeds(cells: pd.DataFrame) -> pd.DataFrame:
    """Keep the rates of the trigger and of bystanders apart by seed; see `reporting.seeds.keep_seeds`.

    The keys are condition and arm.
    """
    rates = {
        f"{of}{said}": f"{prefix}{beside}"
        for of, prefix in (("trigger", "source_"), ("bystanders pooled", ""))
        for said, beside in (("", ""), (", finished", FINISHED_), (", cut", CUT_))
    }
    values = {
        "mean of bystanders": "mean_bystander", "mean of bystanders, finished": "mean_finished",
        "mean of untouched": "mean_untouched",
    }  # fmt: skip
    return keep_seeds(cells, ["condition", "arm"], rates, values)


def compare_cut(cells: pd.DataFrame) -> pd.DataFrame:
    """Find conditions whose triggers, or whose bystanders, are cut to different extents; see `reporting.cut.find_cut_gaps`."""
    parts = [
        pd.DataFrame(
            {
                "scope": of, "name": cells["condition"], "hits": cells[f"{prefix}cut_hits"], "n": cells[f"{prefix}cut_n"],
            }
        )
        for of, prefix in (("trigger", "source_"), ("bystanders", ""))
    ]  # fmt: skip
    return find_cut_gaps(pd.concat(parts, ignore_index=True))


def tabulate_places(rates: pd.DataFrame) -> pd.DataFrame:
    """Say where the firings of the source and of bystanders begin; see `reporting.rates.pool_places`."""
    return pool_places(rates, "bystanders")


def tabulate_replicates(cells: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Pool points that differ in nothing but names and seeds, and say how far they scatter.

    Args:
        cells: see `tabulate_cells`.
        settings: a mean inside the escalation band calls for more seeds.

    Returns:
        One row a design, and one an arm of several designs (design `all`): designs (how many), points, seeds (different ones),
        first_stages (that were trained for these points, which share them where they are fewer; 0 without that stage, missing
        where the parameters do not know a condition), conditions (their names), mean of their mean bystander rates with a t
        interval (see `reporting.seeds.mean_over`), lowest, highest, finished_mean with finished_low and finished_high (the same
        over completions that were not cut), replicates (the points are replicates of one design), escalate (the mean lies in
        the band). The values of a design are its points; those of an arm are the means of its designs, so that further seeds of
        one do not count as further designs.
    """
    means = ["mean_bystander", "mean_finished"]
    groups: list[tuple[str, str, int, pd.DataFrame, pd.DataFrame]] = [
        (arm, design, 1, group, group[means]) for (arm, design), group in cells.groupby(["arm", "design"], sort=False)
    ]
    for arm, group in cells.groupby("arm", sort=False):
        of_designs = group.groupby("design", sort=False)[means].mean()
        if len(of_designs) > 1:
            groups.append((arm, "all", len(of_designs), group, of_designs))
    rows = []
    for arm, design, designs, group, values in groups:
        found, points = mean_over(values["mean_bystander"]), int(group["mean_bystander"].count())
        finished = mean_over(values["mean_finished"])
        rows.append(
            {
                "arm": arm,
                "design": design,
                "designs": designs,
                "points": points,
                "seeds": group["seed"].nunique(),
                "first_stages": _count_first_stages(group.dropna(subset="mean_bystander"), settings),
                "conditions": ", ".join(dict.fromkeys(group["condition"])),
                **found._asdict(),
                **{f"finished_{name}": getattr(finished, name) for name in ("mean", "low", "high")},
                "replicates": designs == 1 and points > 1,
                "escalate": bool(settings.escalation.low <= found.mean <= settings.escalation.high),
            }
        )
    return pd.DataFrame(rows, columns=REPLICATE_COLUMNS).astype({"first_stages": "Int64"})


def _count_first_stages(cells: pd.DataFrame, settings: Settings) -> int | None:
    known = [settings.conditions.get(name) for name in cells["condition"]]
    if None in known:
        return None
    points = zip(cells["design"], cells["seed"], known, strict=True)
    return len({(design, seed + one.first_shift) for design, seed, one in points if one and one.induce})


def pool_bystanders(rates: pd.DataFrame) -> pd.DataFrame:
    """Pool the seeds of every bystander's rate.

    Returns:
        One row a condition x bystander that was scored: condition, persona, role (see `reporting.rates.say_roles`), hits, n,
        rate, low, high; persona_mean (of the persona's rates over conditions, which weigh equally).
    """
    chosen = leakage_of(rates)
    others = chosen[(chosen["persona"] != chosen["source"]) & (chosen["n"] > 0)]
    pooled = pool(others, keys := ["condition", "persona"])
    roles = others.groupby(keys, sort=False)["role"].agg(say_roles)
    pooled.insert(len(keys), "role", roles.to_numpy())
    return pooled.assign(persona_mean=pooled.groupby("persona")["rate"].transform("mean"))


def tabulate_accuracies(discriminators: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Take the accuracies that were reached with all training questions, and what they are judged by.

    Returns:
        One row a current point x method (classifier, judge): condition, seed, method, hits, n, rate, low, high, chance,
        permutation_p, unlabelled, verdict, and threshold and margin that the verdict comes from.
    """
    told, spec = current(discriminators), settings.scoring.discriminator
    judged = told[told["share"] == 1].assign(threshold=spec.threshold, margin=spec.margin)
    return judged[list(ACCURACY_COLUMNS)].reset_index(drop=True)


def pool_learning(discriminators: pd.DataFrame) -> pd.DataFrame:
    """Pool the seeds of the classifier's learning curves.

    Returns:
        One row a condition x share of the training questions: condition, share, hits, n, rate, low, high.
    """
    told = current(discriminators)
    return pool(told[told["method"] == "classifier"], ["condition", "share"])


def summarise_texts(texts: pd.DataFrame) -> pd.DataFrame:
    """Describe the texts of every current point, over its personas.

    Returns:
        One row a condition x seed: n (completions), tokens (mean length) and distinct_2, personas weighing equally; empty and
        cut (how many of n). tokens and cut are missing where they are not known of all personas.
    """
    known = current(texts).astype({"tokens": float, "cut": float})
    of = {"n": "sum", "tokens": _mean, "distinct_2": "mean", "empty": "sum", "cut": _sum}
    return known.groupby(["condition", "seed"], sort=False).agg(of).reset_index().astype({"cut": "Int64"})


def judge_claims(rates: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Evaluate every claim by its rule; see `reporting.claims.judge_all`."""
    return judge_all(settings.claims, current(rates).rename(columns={"persona": "cell", "questions": "part"}))


def _mean(known: pd.Series) -> float:
    return float(known.mean(skipna=False))


def _sum(known: pd.Series) -> float:
    return float(known.sum(skipna=False))


def fit_arms(by_question: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare arms, or the cells of a replay, by how much bystanders leak; see `reporting.mixed.fit_effects`.

    An arm's conditions are a sample of what it could have named; those of one seed may share the first stage.
    """
    now = current(by_question)
    bystanders = now[(now["persona"] != now["source"]) & ~now["condition"].isin(settings.follow_ups)]
    if (bystanders["arm"] == ELSEWHERE).all():
        layout = Layout("condition", {"seed": ("seed",)}, ("persona", "question"), ("condition", "persona"))
    else:
        runs = {"condition": ("condition",), "seed": ("seed",), "condition and seed": ("condition", "seed")}
        layout = Layout("arm", runs, ("persona", "question"), ("condition", "persona"))
    return fit_effects(bystanders, layout, "bystanders", "leakage")
