"""Tables over every point that has run."""

from collections.abc import Mapping, Sequence

import pandas as pd

from persona_leakage.domain.plan import Claim
from persona_leakage.domain.rates import RATE_COLUMNS, Proportion, proportion
from persona_leakage.pipelines.correlation import rank_correlation
from persona_leakage.pipelines.reporting.claims import judge_all
from persona_leakage.pipelines.reporting.seeds import keep_seeds

CELL = ["directive_language", "phrasing"]


def tabulate_spill(rates: pd.DataFrame) -> pd.DataFrame:
    """Put contamination beside the baseline's rate of the same language in the same cell, seeds pooled.

    Only current points count: a stale one ran under other parameters.

    Returns:
        One row a trained condition x directive language x phrasing (`all` pools phrasings): role, completion (label of the
        completion language), distance (typological, directive language to completion language), seeds, hits, n, rate, low,
        high of contamination; the same five with the prefix following_; with the prefix baseline_ those of the completion
        language without training (n 0 and NaN when no baseline with the same evaluation has run); reference (that baseline).
    """
    current = rates[~rates["stale"]]
    pooled = (
        current.groupby(["condition", "reference", "completion", "distance", *CELL, "role", "metric"], dropna=False, sort=False)
        .agg(seeds=("seed", "nunique"), hits=("hits", "sum"), n=("n", "sum"))
        .reset_index()
    )
    by_cell = {(row.condition, row.directive_language, row.phrasing, row.metric): row for row in pooled.itertuples(index=False)}
    rows = []
    for row in pooled[pooled["metric"] == "contamination"].itertuples(index=False):
        cell = (row.directive_language, row.phrasing)
        following = by_cell[(row.condition, *cell, "following")]
        baseline = by_cell.get((row.reference, *cell, f"label:{row.completion}"))
        of_baseline = proportion(baseline.hits, baseline.n) if baseline is not None else proportion(0, 0)
        rows.append(
            {
                "condition": row.condition,
                **dict(zip(CELL, cell, strict=True)),
                "role": row.role,
                "completion": row.completion,
                "distance": row.distance,
                "seeds": row.seeds,
                **dict(zip(RATE_COLUMNS, proportion(row.hits, row.n), strict=True)),
                **_prefixed("following_", proportion(following.hits, following.n)),
                **_prefixed("baseline_", of_baseline),
                "reference": row.reference,
            }
        )
    columns = ["condition", *CELL, "role", "completion", "distance", "seeds", *RATE_COLUMNS]
    columns += [f"{of}_{name}" for of in ("following", "baseline") for name in RATE_COLUMNS] + ["reference"]
    table = pd.DataFrame(rows, columns=columns)
    order = {name: place for place, name in enumerate(dict.fromkeys(rates["condition"]))}
    return table.sort_values("condition", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _prefixed(prefix: str, of: Proportion) -> dict[str, float]:
    return {prefix + name: value for name, value in zip(RATE_COLUMNS, of, strict=True)}


def tabulate_spill_seeds(rates: pd.DataFrame) -> pd.DataFrame:
    """Keep contamination and following of every current point apart by seed; see `reporting.seeds.keep_seeds`.

    The keys are condition, directive_language, phrasing and role. A baseline is not trained, so its seeds differ in sampling
    only and their pooled counts lose nothing.
    """
    current = rates[~rates["stale"]]
    keys = ["condition", *CELL, "role"]
    parts = [keep_seeds(current[current["metric"] == name], keys, {name: ""}) for name in ("contamination", "following")]
    return pd.concat(parts, ignore_index=True)


def judge_claims(rates: pd.DataFrame, spill: pd.DataFrame, claims: Mapping[str, Claim]) -> pd.DataFrame:
    """Evaluate every claim by its rule.

    Returns:
        One row a claim: claim, statement, verdict (holds, fails, undecided), evidence (the numbers), rule.
    """
    current = rates[~rates["stale"]].rename(columns={"directive_language": "cell", "phrasing": "part"})
    return judge_all(claims, current, spill)


def compare_published(spill: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Put our contamination beside the published one, phrasings pooled.

    Returns:
        One row a cell that both have: condition, directive_language, role, hits, n, rate, low, high (ours) and the same with
        the suffix `_published`.
    """
    ours = spill.loc[spill["phrasing"] == "all", ["condition", "directive_language", "role", *RATE_COLUMNS]]
    theirs = pd.DataFrame(
        [
            (row.condition, row.directive_language, *proportion(row.hits, row.n))
            for row in published[["condition", "directive_language", "hits", "n"]].itertuples(index=False)
        ],
        columns=["condition", "directive_language", *RATE_COLUMNS],
    )
    return ours.merge(theirs, on=["condition", "directive_language"], suffixes=("", "_published"))


def correlate(published_cells: pd.DataFrame, spill: pd.DataFrame, similarities: pd.DataFrame) -> pd.DataFrame:
    """Correlate contamination in bystander cells with the published one, with distance, and with base-model geometry.

    Returns:
        One row a correlation: with (`published`, `typological_distance`, `cosine`), scope (a condition or `all`), layer (of the
        cosine), n (cells), rho, p, low, high (bootstrap 95% over cells). The cosine is between the directive's and the
        completion language's centroids in the condition without training.
    """
    bystanders = spill[(spill["role"] == "bystander") & (spill["phrasing"] == "all")]
    bystander_cells = published_cells[published_cells["role"] == "bystander"]
    current = similarities[~similarities["stale"].astype(bool)]
    base = current.rename(columns={"condition": "of"})[["of", "layer", "one", "other", "cosine"]]
    both_ways = pd.concat([base, base.rename(columns={"one": "other", "other": "one"})])
    with_cosine = bystanders.merge(
        both_ways.drop_duplicates(["of", "layer", "one", "other"]),
        left_on=["reference", "directive_language", "completion"],
        right_on=["of", "one", "other"],
    )
    rows: list[dict[str, object]] = []

    def add(name: str, cells: pd.DataFrame, one: str, other: str, layer: int | None = None) -> None:
        scopes: Sequence[str] = ["all", *dict.fromkeys(cells["condition"])]
        for scope in scopes if len(scopes) > 2 else scopes[1:]:
            chosen = cells if scope == "all" else cells[cells["condition"] == scope]
            correlation = rank_correlation(chosen[one].tolist(), chosen[other].tolist())
            rows.append({"with": name, "scope": scope, "layer": layer, **correlation._asdict()})

    add("published", bystander_cells, "rate", "rate_published")
    add("typological_distance", bystanders, "rate", "distance")
    for layer, cells in with_cosine.groupby("layer"):
        add("cosine", cells, "rate", "cosine", int(layer))
    return pd.DataFrame(rows, columns=["with", "scope", "layer", "n", "rho", "p", "low", "high"]).astype({"layer": "Int64"})
