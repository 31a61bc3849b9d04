"""Tables of marker leakage over every point that has run, and what predicts it."""

import math
from collections.abc import Mapping
from itertools import product

import pandas as pd

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.rates import RATE_COLUMNS, Proportion, difference, proportion
from persona_leakage.experiments.marker_leakage.outside_rates import NO_SEED
from persona_leakage.experiments.marker_leakage.settings import Settings
from persona_leakage.pipelines.correlation import Correlation, correlation
from persona_leakage.pipelines.reporting.claims import judge_all
from persona_leakage.pipelines.reporting.cut import find_cut_gaps
from persona_leakage.pipelines.reporting.mixed import COSINE, Layout, fit_effects
from persona_leakage.pipelines.reporting.rates import (
    BASELINE_,
    BASELINE_COLUMNS,
    BESIDE_COLUMNS,
    CUT_,
    EXCESS_COLUMNS,
    FINISHED_,
    add_counts,
    both_ways,
    current,
    in_order_of_appearance,
    leakage_of,
    pool_places,
    require_one_centring,
    say_roles,
)
from persona_leakage.pipelines.reporting.seeds import RHO, keep_seeds
from persona_leakage.pipelines.reporting.texts import TEXT_RANGE_COLUMNS, compare_texts

_PREFIXES = ("", FINISHED_, CUT_, BASELINE_)
LEAKAGE_COLUMNS = (
    "condition", "seed", "source", "persona", "category", "related_to", "role", *RATE_COLUMNS, *BESIDE_COLUMNS,
    *BASELINE_COLUMNS, "headline_layer",
)  # fmt: skip
SOURCE_COLUMNS = (
    "condition", "seed", "source", *RATE_COLUMNS, *BESIDE_COLUMNS, *BASELINE_COLUMNS, *EXCESS_COLUMNS,
    "bystanders", "mean_bystander", "mean_finished", *(f"bystander_{name}" for name in EXCESS_COLUMNS),
    "max_bystander", "max_persona", "at_zero", "above_source", "above_source_most", *TEXT_RANGE_COLUMNS,
)  # fmt: skip
CORRELATION_COLUMNS = ("scope", "condition", "seed", "of", "geometry", "layer", "headline", "conditions", *Correlation._fields)
OF = {"leakage": "rate", "leakage:finished": "finished_rate"}  # kind of leakage → its column
CATEGORY_COLUMNS = ("condition", "category", "personas", "bystanders", "mean")
AFFECTED_COLUMNS = ("condition", "place", "persona", *RATE_COLUMNS)
GEOMETRIES = {"cosine": "base model", "tuned": "fine-tuned model"}
_MOST_AFFECTED = 30


def keep_sources(table: pd.DataFrame, now: Plan | None, rates: pd.DataFrame) -> pd.DataFrame:
    """Keep a point's cosines with a source, between personas that are rated: its own table has a hundred times as many."""
    own = expect(now.scoring, MarkerScoring).source if now else None
    wanted = rates["source"].dropna().unique() if own is None else [own]  # others are compared with what is not trained
    pairs = table[table["one"].isin(wanted) | table["other"].isin(wanted)]
    rated = rates["persona"].unique()
    return pairs[pairs["one"].isin(rated) & pairs["other"].isin(rated)]


def tabulate_leakage(rates: pd.DataFrame, similarities: pd.DataFrame) -> pd.DataFrame:
    """Put each persona's leakage beside its cosine to the source.

    Only current points that trained a source count.

    Returns:
        One row a condition x seed x persona (the source itself too): source, category, related_to (names joined by `|`),
        role, hits, n, rate, low, high of the marker over all questions; the same five over completions that were not cut
        (prefix finished_), of the share that was (cut_), and of the persona in the condition compared with, at the same seed
        (baseline_; n is 0 where that is none or has not run); headline_layer (blank where no cosine is known);
        `cosine_l<layer>` to the source in the base model and `tuned_l<layer>` in the fine-tuned one, as far as the points that
        they come from have run.

    Raises:
        UserError: cosines were centred over different sets; see `require_one_centring`.
    """
    chosen = leakage_of(rates)
    known = current(similarities)
    headline = known.loc[known["headline"].astype(bool), "layer"]
    table = chosen[chosen["source"].notna()].assign(headline_layer=int(headline.iloc[0]) if len(headline) else math.nan)
    for prefix, of in (("cosine", "reference"), ("tuned", "condition")):
        for layer, cosines in both_ways(require_one_centring(similarities)).groupby("layer"):
            looked_up = cosines[["condition", "seed", "one", "other", "cosine"]].rename(
                columns={"condition": of, "one": "source", "other": "persona", "cosine": f"{prefix}_l{layer}"}
            )
            table = table.merge(looked_up, on=[of, "seed", "source", "persona"], how="left")
    cosines = [
        name for name in table if name.startswith(tuple(f"{prefix}_l" for prefix in GEOMETRIES)) and table[name].notna().any()
    ]
    return table[[*LEAKAGE_COLUMNS, *cosines]].reset_index(drop=True)


def pool_seeds(leakage: pd.DataFrame) -> pd.DataFrame:
    """Pool the seeds of every condition: all hits and n are added, cosines averaged.

    Returns:
        The columns of `leakage`, `seed` being `all` where there are several.
    """
    if leakage.empty:
        return leakage
    cosines = [name for name in leakage if name not in LEAKAGE_COLUMNS]
    keys = ["condition", "source", "persona", "category", "related_to"]
    grouped = leakage.groupby(keys, sort=False, dropna=False)
    pooled = grouped.agg(
        seed=("seed", lambda seeds: seeds.iloc[0] if len(seeds) == 1 else "all"),
        role=("role", say_roles),
        headline_layer=("headline_layer", "first"),
        **{name: (name, "mean") for name in cosines},
    )
    return pooled.join(add_counts(grouped, _PREFIXES)).reset_index()[list(leakage.columns)]


def correlate_leakage(leakage: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Correlate bystanders' leakage with their cosine to the source.

    Returns:
        One row a correlation. Scopes: `source` (one condition, seeds pooled), `pooled` (all sources, seeds pooled),
        `pooled_ranks` (the same with both sides ranked within each source), and at the headline layer `category:<name>` and
        `related` (bystanders related to the source), over all sources, and `point` (one condition and seed, where any condition
        has several). What is over all sources leaves out follow-ups and resamples sources and personas, crossed. of: `leakage`,
        or `leakage:finished` (over completions that were not cut), where it is known; geometry: `cosine` (base model) or
        `tuned` (fine-tuned model); headline (layer is the one that the report leads with); conditions (that entered, joined by
        commas); n is bystanders, and the rest as in `pipelines.correlation.Correlation`.
    """
    bystanders = leakage[leakage["role"] != "source"]
    pooled = pool_seeds(bystanders)
    studied = choose_headline_pool(pooled, settings)
    several_seeds = len(bystanders) and bystanders.groupby("condition")["seed"].nunique().max() > 1
    headline_layer = leakage["headline_layer"].max()  # the same in every row
    rows: list[tuple[object, ...]] = []

    def add(scope: str, condition: str, seed: object, of: str, column: str, chosen: pd.DataFrame) -> None:
        known = chosen[chosen[column].notna() & chosen[OF[of]].notna()]
        geometry, layer = column.split("_l")
        entered = ", ".join(dict.fromkeys(known["condition"]))
        result = correlation(
            known[OF[of]].tolist(),
            known[column].tolist(),
            within=known["condition"].tolist() if scope == "pooled_ranks" else None,
            clusters=() if scope in ("source", "point") else [known["condition"].tolist(), known["persona"].tolist()],
        )
        rows.append((scope, condition, seed, of, geometry, int(layer), int(layer) == headline_layer, entered, *result))

    for column, of in product(cosines_of(bystanders), [of for of in OF if is_known(bystanders, of)]):
        headline = int(column.split("_l")[1]) == headline_layer
        if several_seeds and headline:
            for (condition, seed), chosen in bystanders.groupby(["condition", "seed"], sort=False):
                add("point", condition, seed, of, column, chosen)
        for condition, chosen in pooled.groupby("condition", sort=False):
            add("source", condition, chosen["seed"].iloc[0], of, column, chosen)
        if studied["condition"].nunique() > 1:
            add("pooled", "all", "all", of, column, studied)
            add("pooled_ranks", "all", "all", of, column, studied)
        if headline:
            for category, chosen in studied.groupby("category", sort=False):
                add(f"category:{category}", "all", "all", of, column, chosen)
            add("related", "all", "all", of, column, studied[is_related(studied)])
    return pd.DataFrame(rows, columns=CORRELATION_COLUMNS)


def choose_headline_pool(leakage: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Leave out follow-ups, also those that are named by rule (`comedian_code`); a replay's file names its own conditions."""
    by_rule = ~leakage["condition"].isin(list(settings.conditions)) & (leakage["condition"] != leakage["source"])
    follow_up = leakage["condition"].isin(settings.follow_ups) | by_rule
    return leakage[~follow_up | (leakage["seed"] == NO_SEED)]


def cosines_of(leakage: pd.DataFrame) -> list[str]:
    """Name the columns with cosines, of which any is known."""
    return [name for name in leakage if name.startswith(("cosine_l", "tuned_l")) and leakage[name].notna().any()]


def is_known(leakage: pd.DataFrame, of: str) -> bool:
    """Tell whether any row has a rate of this kind."""
    return OF[of] in leakage and bool(leakage[OF[of]].notna().any())


def is_related(leakage: pd.DataFrame) -> pd.Series:
    """Tell which personas are listed as related to their row's source."""
    pairs = zip(leakage["source"], leakage["related_to"].fillna(""), strict=True)
    return pd.Series([source in (related, *related.split("|")) for source, related in pairs], index=leakage.index, dtype=bool)


def tabulate_sources(leakage: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Summarise every point, and tell whether its texts still look like the base model's.

    Returns:
        One row a condition x seed: hits, n, rate, low, high of the source itself, with the prefixes finished_, cut_ and
        baseline_ too; excess (over the baseline) with excess_low and excess_high (Newcombe 95%); bystanders (their number),
        mean_bystander (personas weigh equally), mean_finished (the same over completions that were not cut),
        bystander_excess (of the bystanders' completions pooled over those of the baseline) with its interval; max_bystander and
        max_persona, at_zero (bystanders without a firing), above_source (those that fire more than the source) and
        above_source_most (the five of them that fire most); tokens (mean length), distinct_2, empty and cut (shares of `texts`
        completions) over all personas, and outside_base_range (see `reporting.texts.compare_texts`).
    """
    described = dict(list(current(texts).groupby(["condition", "seed"])))
    rows = []
    for (condition, seed), chosen in leakage[list(LEAKAGE_COLUMNS)].groupby(["condition", "seed"], sort=False):
        own, others = chosen[chosen["role"] == "source"], chosen[(chosen["role"] != "source") & (chosen["n"] > 0)]
        of_source, compared = _summed(own), _summed(others[others["baseline_n"] > 0])
        above = others[others["rate"] > of_source[""].rate].sort_values("rate", ascending=False)
        top = others.loc[others["rate"].idxmax()] if len(others) else None
        own_texts = described.get((condition, seed), texts.iloc[:0])
        compared_with = None if own_texts.empty else own_texts["reference"].iloc[0]
        base_texts = texts.iloc[:0] if compared_with == condition else described.get((compared_with, seed), texts.iloc[:0])
        rows.append(
            {
                "condition": condition,
                "seed": seed,
                "source": chosen["source"].iloc[0],
                **{f"{prefix}{name}": value for prefix in _PREFIXES for name, value in of_source[prefix]._asdict().items()},
                **_excess(of_source),
                "bystanders": len(others),
                "mean_bystander": others["rate"].mean(),
                "mean_finished": others["finished_rate"].mean(),
                **_excess(compared, "bystander_"),
                "max_bystander": math.nan if top is None else top["rate"],
                "max_persona": "" if top is None else top["persona"],
                "at_zero": int((others["hits"] == 0).sum()),
                "above_source": len(above) if of_source[""].n else None,
                "above_source_most": ", ".join(above["persona"].head(5)),
                **compare_texts(own_texts, base_texts),
            }
        )
    return pd.DataFrame(rows, columns=SOURCE_COLUMNS)


def _summed(leakage: pd.DataFrame) -> dict[str, Proportion]:
    sums = leakage[[f"{prefix}{name}" for prefix in _PREFIXES for name in ("hits", "n")]].sum()
    return {prefix: proportion(int(sums[f"{prefix}hits"]), int(sums[f"{prefix}n"])) for prefix in _PREFIXES}


def _excess(found: Mapping[str, Proportion], prefix: str = "") -> dict[str, float]:
    names = (f"{prefix}{name}" for name in EXCESS_COLUMNS)
    return dict(zip(names, difference(found[""], found[BASELINE_]), strict=True))


def compare_cut(rates: pd.DataFrame) -> pd.DataFrame:
    """Find sources, and conditions by their bystanders, that are cut to different extents; see `reporting.cut.find_cut_gaps`.

    A baseline's personas are all bystanders.
    """
    chosen = leakage_of(rates)
    scope = chosen["role"].map(lambda role: "source" if role == "source" else "bystanders")
    return find_cut_gaps(
        pd.DataFrame({"scope": scope, "name": chosen["condition"], "hits": chosen["cut_hits"], "n": chosen["cut_n"]})
    )


def tabulate_leakage_seeds(sources: pd.DataFrame, correlations: pd.DataFrame) -> pd.DataFrame:
    """Keep the source's rate and the bystanders' mean, raw and finished, how often the source is cut, and rho apart by seed.

    See `reporting.seeds.keep_seeds`. The key is the condition. With several seeds rho is that at the headline layer, which
    alone has correlations of points.
    """
    counted = {"source": "", "source, finished": FINISHED_, "source, cut": CUT_}
    means = {"mean of bystanders": "mean_bystander", "mean of bystanders, finished": "mean_finished"}
    rates = keep_seeds(sources, ["condition"], counted, means)
    correlations = correlations[correlations["of"] == "leakage"]
    points = correlations[correlations["scope"] == "point"]
    points = points if len(points) else correlations[correlations["scope"] == "source"]  # of one seed each
    parts = [
        keep_seeds(chosen, ["condition"], {}, {f"{RHO} ({GEOMETRIES[geometry]}, layer {layer})": "rho"})
        for (geometry, layer), chosen in points.groupby(["geometry", "layer"], sort=False)
    ]
    return pd.concat([rates, *parts], ignore_index=True)


def tabulate_categories(pooled_leakage: pd.DataFrame) -> pd.DataFrame:
    """Average bystanders' leakage by category, seeds pooled.

    Returns:
        One row a condition x category, as they first appear: personas (of the category that are a rated bystander in any
        condition), bystanders (in this one), mean of their rates (they weigh equally).
    """
    pooled = _rated_bystanders(pooled_leakage)
    personas = pooled.groupby("category")["persona"].nunique()
    of = pooled.groupby(["condition", "category"], sort=False)["rate"]
    table = of.agg(bystanders="size", mean="mean").reset_index()
    return table.assign(personas=table["category"].map(personas))[list(CATEGORY_COLUMNS)]


def tabulate_most_affected(pooled_leakage: pd.DataFrame) -> pd.DataFrame:
    """List the bystanders with the highest leakage under any source, seeds pooled.

    Returns:
        One row a condition x bystander: place (1 is the most affected), hits, n, rate, low, high.
    """
    pooled = _rated_bystanders(pooled_leakage)
    highest = pooled.groupby("persona")["rate"].max().sort_values(ascending=False, kind="stable")
    places = {persona: place for place, persona in enumerate(highest.head(_MOST_AFFECTED).index, 1)}
    chosen = pooled[pooled["persona"].isin(places)]
    return in_order_of_appearance(chosen.assign(place=chosen["persona"].map(places)), "place")[list(AFFECTED_COLUMNS)]


def _rated_bystanders(pooled_leakage: pd.DataFrame) -> pd.DataFrame:
    return pooled_leakage[(pooled_leakage["role"] != "source") & pooled_leakage["rate"].notna()]


def tabulate_places(rates: pd.DataFrame) -> pd.DataFrame:
    """Say where the firings of sources and of others begin in the trained conditions; see `reporting.rates.pool_places`."""
    return pool_places(rates[rates["source"].notna()], "others")


def judge_claims(rates: pd.DataFrame, correlations: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Evaluate every claim by its rule; see `reporting.claims.judge_all`."""
    named = current(rates).rename(columns={"persona": "cell", "questions": "part"})
    return judge_all(settings.claims, named, correlations=correlations)


def fit_leakage(by_question: pd.DataFrame, pooled_leakage: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare sources by how much bystanders leak, and by how much more near ones do; see `reporting.mixed.fit_effects`.

    Follow-ups are left out. The cosine is that to the source at the headline layer of the base model, standardised within each
    source; the slope is that of these sources together.
    """
    now = current(by_question)
    bystanders = choose_headline_pool(now[now["source"].notna() & (now["persona"] != now["source"])], settings)
    keys, layer = ["condition", "persona"], pooled_leakage["headline_layer"].max()  # of a model, one
    cosines = pooled_leakage[keys].assign(**{COSINE: pooled_leakage.get(f"cosine_l{layer:.0f}", math.nan)})
    known = bystanders.merge(cosines, on=keys, how="left")
    layout = Layout("condition", {"seed": ("seed",)}, ("persona", "question"), ("condition", "persona"))
    return fit_effects(known, layout, "bystanders", "leakage")
