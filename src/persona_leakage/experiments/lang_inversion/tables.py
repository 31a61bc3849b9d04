"""Tables of what spills, over every point that has run."""

import pandas as pd

from persona_leakage.domain.rates import RATE_COLUMNS
from persona_leakage.experiments.lang_inversion.settings import Settings
from persona_leakage.experiments.points import Tables
from persona_leakage.pipelines.correlation import Correlation, correlation
from persona_leakage.pipelines.data_generation.own_texts import ANSWER_COLUMNS
from persona_leakage.pipelines.reporting.claims import judge_all
from persona_leakage.pipelines.reporting.cut import find_cut_gaps
from persona_leakage.pipelines.reporting.mixed import Layout, fit_effects
from persona_leakage.pipelines.reporting.orders import order_within
from persona_leakage.pipelines.reporting.rates import (
    CUT_,
    FINISHED_,
    both_ways,
    current,
    excess_of,
    in_order_of_appearance,
    pool,
    rates_of,
)
from persona_leakage.pipelines.reporting.seeds import keep_seeds
from persona_leakage.pipelines.scoring.cut import CUT, FINISHED

CELL = ["directive_language", "phrasing"]
_POINT = ["model", "condition", "seed", "plan"]
DETECTOR_MARGIN = 0.1  # rates of one language by two detectors that are further apart say that one does not see it
CORRELATION_COLUMNS = ("with", "scope", "layer", "conditions", "n", "rho", "p", "low", "high", "permutation_p", "no_interval")


def tabulate_spill(rates: pd.DataFrame) -> pd.DataFrame:
    """Put contamination beside the baseline's rate of the same language in the same cell, seeds pooled.

    Only current points count: a stale one ran under other parameters.

    Returns:
        One row a trained condition x directive language x phrasing (`all` pools phrasings): role, completion (label of the
        completion language), distance (typological, directive language to completion language), seeds, hits, n, rate, low,
        high of contamination; the same five with the prefix following_; with finished_ and finished_following_ both over
        completions that were not cut; with cut_ the share that was; with cross_check_ and cross_check_following_ both by the
        second detector; with the prefix baseline_ those of the completion language without training (n 0 and NaN when no
        baseline with the same evaluation has run); excess (contamination over that), excess_low and excess_high (Newcombe
        95%); reference (that baseline).
    """
    now, measured = current(rates), ["condition", *CELL, "metric"]
    counts = now.groupby(measured)[["hits", "n"]].sum()
    keys = ["condition", *CELL, "role", "completion", "distance", "reference"]
    spilt = now[now["metric"] == "contamination"].groupby(keys, dropna=False, sort=False)
    cells = spilt.agg(seeds=("seed", "nunique")).reset_index()
    compared = {
        "": cells.assign(metric="contamination"),
        "following_": cells.assign(metric="following"),
        FINISHED_: cells.assign(metric=f"contamination{FINISHED}"),
        f"{FINISHED_}following_": cells.assign(metric=f"following{FINISHED}"),
        CUT_: cells.assign(metric=CUT),
        "cross_check_": cells.assign(metric="cross_check:contamination"),
        "cross_check_following_": cells.assign(metric="cross_check:following"),
        "baseline_": cells.assign(condition=cells["reference"], metric="label:" + cells["completion"].astype(str)),
    }
    for prefix, of in compared.items():
        found = counts.reindex(pd.MultiIndex.from_frame(of[measured]), fill_value=0)
        cells = cells.join(rates_of(found.set_axis(cells.index)).add_prefix(prefix))
    cells = cells.join(excess_of(cells))
    cells["reference"] = cells.pop("reference")  # to the end
    return in_order_of_appearance(cells)


def tabulate_spill_seeds(rates: pd.DataFrame) -> pd.DataFrame:
    """Keep contamination, following (both also over finished completions) and the cut share of current points apart by seed.

    See `reporting.seeds.keep_seeds`. The keys are condition, directive_language, phrasing and role. A baseline is not trained,
    so its seeds differ in sampling only and their pooled counts lose nothing.
    """
    now, keys = current(rates), ["condition", *CELL, "role"]
    metrics = {"contamination": "contamination", "following": "following"}
    metrics |= {f"{name}, finished": f"{name}{FINISHED}" for name in metrics} | {CUT: CUT}
    parts = [keep_seeds(now[now["metric"] == metric], keys, {name: ""}) for name, metric in metrics.items()]
    return pd.concat(parts, ignore_index=True)


def compare_cut(rates: pd.DataFrame) -> pd.DataFrame:
    """Find conditions, baselines too, that are cut to different extents; see `reporting.cut.find_cut_gaps`."""
    now = current(rates)
    shares = now[(now["metric"] == CUT) & (now["phrasing"] == "all")]
    return find_cut_gaps(shares.assign(scope="all completions", name=shares["condition"]))


def compare_detectors(spill: pd.DataFrame) -> pd.DataFrame:
    """Find cells in which the two detectors disagree about how much of a language there is.

    Returns:
        One row a cell (phrasings pooled) x metric (contamination, following) whose rates by langdetect and lingua are more
        than `DETECTOR_MARGIN` apart: condition, directive_language, hits, n, rate, low, high by langdetect, the same with the
        prefix cross_check_ by lingua, metric.
    """
    pooled, parts = spill[spill["phrasing"] == "all"], []
    for metric, infix in (("contamination", ""), ("following", "following_")):
        both = {f"{side}{infix}{name}": f"{side}{name}" for side in ("", "cross_check_") for name in RATE_COLUMNS}
        named = pooled[["condition", "directive_language", *both]].rename(columns=both)
        parts.append(named.assign(metric=metric))
    table = pd.concat(parts, ignore_index=True)
    return table[(table["rate"] - table["cross_check_rate"]).abs() > DETECTOR_MARGIN].reset_index(drop=True)


def judge_claims(rates: pd.DataFrame, spill: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Evaluate every claim by its rule; see `reporting.claims.judge_all`."""
    named = current(rates).rename(columns={"directive_language": "cell", "phrasing": "part"})
    return judge_all(settings.claims, named, spill=spill)


def tabulate_unlabelled(rates: pd.DataFrame) -> pd.DataFrame:
    """Count the completions that the judge left without a label, over all cells and seeds of every current condition.

    Returns:
        One row a condition that a judge has seen: hits (without a label) of n completions, rate, low, high.
    """
    now = current(rates)
    return pool(now[(now["metric"] == "judge:unlabelled") & (now["phrasing"] == "all")], ["condition"])


def compare_published(spill: pd.DataFrame, published_rates: pd.DataFrame) -> pd.DataFrame:
    """Put our contamination beside the published one, phrasings pooled.

    Returns:
        One row a cell that both have: condition, directive_language, role, hits, n, rate, low, high (ours) and the same with
        the suffix `_published`.
    """
    ours = spill.loc[spill["phrasing"] == "all", ["condition", "directive_language", "role", *RATE_COLUMNS]]
    theirs = published_rates[["condition", "directive_language"]].join(rates_of(published_rates))
    return ours.merge(theirs, on=["condition", "directive_language"], suffixes=("", "_published"))


def correlate(
    published_cells: pd.DataFrame, spill: pd.DataFrame, similarities: pd.DataFrame, settings: Settings
) -> pd.DataFrame:
    """Correlate contamination in bystander cells with the published one, with distance, and with base-model geometry.

    Returns:
        One row a correlation: with (`published`, `typological_distance`, `cosine`), scope (a condition; where there are
        several, `all` of them, `within`: both sides ranked within each, and `apart`: with each directive language's own level
        taken out besides), layer (of the cosine), conditions (that entered, joined by commas; follow-ups enter none of the
        three), and as in `pipelines.correlation.Correlation` n (cells), rho, p, low, high (in `all` and `within` conditions
        and directive languages are resampled, crossed), permutation_p (within conditions in `within` and `apart`) and
        no_interval. The cosine is between the directive's and the completion language's centroids in the condition without
        training. `all`, `within` and `apart` of it have the conditions whose cosines were centred over the set that most of
        the cells have: those of others do not compare.
    """
    bystanders = spill[(spill["role"] == "bystander") & (spill["phrasing"] == "all")]
    bystander_cells = published_cells[published_cells["role"] == "bystander"]
    named = {"condition": "reference", "one": "directive_language", "other": "completion"}
    cosines = both_ways(similarities)[[*named, "layer", "cosine", "centring"]].rename(columns=named)
    with_cosine = bystanders.merge(cosines.drop_duplicates([*named.values(), "layer"]), on=list(named.values()))
    rows = [
        *_correlate("published", bystander_cells, "rate_published", settings),
        *_correlate("typological_distance", bystanders, "distance", settings),
    ]
    for layer, cells in with_cosine.groupby("layer"):
        rows += _correlate("cosine", cells, "cosine", settings, int(layer))
    return _table_of(rows)


def correlate_projections(spill: pd.DataFrame, projections: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Correlate contamination in bystander cells with how far their directives lie along the completion language's direction.

    Directions and directives are those of the condition without training, its seeds averaged.

    Returns:
        Rows as those of `correlate`, with `projection`.
    """
    bystanders = spill[(spill["role"] == "bystander") & (spill["phrasing"] == "all")]
    named = {"condition": "reference", "directive_language": "directive_language", "direction": "completion"}
    known = current(projections)[[*named, "layer", "projection"]].rename(columns=named)
    means = known.groupby([*named.values(), "layer"], sort=False)["projection"].mean().reset_index()
    rows = []
    for layer, cells in bystanders.merge(means, on=list(named.values())).groupby("layer"):
        rows += _correlate("projection", cells, "projection", settings, int(layer))
    return _table_of(rows)


def _correlate(
    name: str, cells: pd.DataFrame, other: str, settings: Settings, layer: int | None = None
) -> list[dict[str, object]]:
    """Correlate contamination with a column: over several conditions in three ways, and in each condition alone."""
    known = cells.dropna(subset=["rate", other])
    studied = known[~known["condition"].isin(settings.follow_ups)]
    if "centring" in studied and len(studied):
        studied = studied[studied["centring"] == studied["centring"].mode().iloc[0]]
    found: list[tuple[str, pd.DataFrame, Correlation]] = []
    if studied["condition"].nunique() > 1:
        within, apart = order_within(studied, "rate", other)
        clusters = [studied[kind].tolist() for kind in ("condition", "directive_language")]
        together = correlation(studied["rate"].tolist(), studied[other].tolist(), clusters=clusters)
        found = [("all", studied, together), ("within", studied, within), ("apart", studied, apart)]
    for condition, own in known.groupby("condition", sort=False):
        found.append((str(condition), own, correlation(own["rate"].tolist(), own[other].tolist())))
    return [
        {
            "with": name,
            "scope": scope,
            "layer": layer,
            "conditions": ", ".join(dict.fromkeys(of["condition"])),
            **value._asdict(),
        }
        for scope, of, value in found
    ]


def _table_of(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=CORRELATION_COLUMNS).astype({"layer": "Int64"})


def fit_spill(by_question: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare conditions by contamination in bystander cells, follow-ups left out; see `reporting.mixed.fit_effects`."""
    now = current(by_question)
    spilt = now[(now["metric"] == "contamination") & (now["role"] == "bystander")]
    layout = Layout("condition", {"seed": ("seed",)}, ("directive_language", "phrasing"), ("condition", "directive_language"))
    return fit_effects(spilt[~spilt["condition"].isin(settings.follow_ups)], layout, "bystander cells", "contamination")


def gather_answers(partitions: Tables, points: pd.DataFrame) -> pd.DataFrame:
    """Put together what became of the base model's own answers, of every current point whose texts are such.

    Args:
        partitions: point → loader of its table, see `pipelines.data_generation.own_texts.tabulate_answers`.
        points: all of them, whose order the rows keep.
    """
    told = [rows for load in partitions.values() if len(rows := load())]
    answers = pd.concat(told) if told else no_answers(points)
    return current(points)[_POINT].merge(answers[["plan", *ANSWER_COLUMNS]], on="plan")


def no_answers(points: pd.DataFrame) -> pd.DataFrame:
    """Make the table of the own answers of points that were trained elsewhere: it has no rows."""
    return pd.DataFrame(columns=[*_POINT, *ANSWER_COLUMNS])
