"""Correlations of planted studies whose pairs are not independent, and what enters a pooled number."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from persona_leakage.domain.claims import CosinePredicts, RankOrder
from persona_leakage.experiments.lang_inversion.tables import correlate, tabulate_spill
from persona_leakage.experiments.marker_leakage.tables import correlate_leakage
from persona_leakage.pipelines.correlation import correlation
from persona_leakage.pipelines.reporting.claims import judge
from persona_leakage.pipelines.reporting.orders import order_within
from tests.experiments.lang_inversion import planted_tables as languages
from tests.experiments.lang_inversion.plans import load_settings as load_language_settings
from tests.experiments.marker_leakage.planted_tables import correlated, correlations, leakage, load_settings
from tests.planted import orders
from tests.planted.crossed import Crossed, draw, truth

STUDIES = 60  # benchmarks/dependence.py has more


def shares(design, **more):
    """Count how often the intervals hold the truth: of pairs as if independent, and of sources and personas, crossed."""
    random = np.random.default_rng(3)
    value, pairs, crossed = truth(design, random, studies=4), [], []
    for _ in range(STUDIES):
        one, other, sources, personas = draw(design, random)
        labels = sources.tolist()
        for held, clusters in ((pairs, ()), (crossed, [labels, personas.tolist()])):
            found = correlation(one, other, within=labels, clusters=clusters, resamples=200)
            held.append(found.low <= value <= found.high)
    return np.mean(pairs), np.mean(crossed)


@pytest.mark.parametrize(
    "design",
    [Crossed(5, 60, slope=0.6, spread=0.5, shared=0.25), Crossed(5, 25, shared=0.85)],
    ids=["sources differ", "personas leak alike under every source"],
)
def test_crossed_intervals_hold_the_truth_where_those_of_pairs_are_too_narrow(design):
    pairs, crossed = shares(design)

    assert pairs < 0.85
    assert crossed >= 0.93


def test_an_exact_p_of_five_pairs_rejects_a_true_null_in_at_most_5_percent():
    random = np.random.default_rng(1)

    found = [correlation(random.normal(size=5), random.normal(size=5)) for _ in range(400)]

    assert np.mean([one.p < 0.05 for one in found]) <= 0.05
    assert {one.no_interval for one in found} == {"5 pairs"}
    assert all(one.p > 0 and math.isnan(one.low) for one in found)


# what enters a pool


def studied(name, source, rho, seed, personas=60):
    """Plant a condition whose bystanders' leakage and cosine have this rank correlation, to the hundredth."""
    random = np.random.default_rng(seed)
    cosine = random.normal(size=personas)
    while True:
        hits = np.argsort(np.argsort(rho * 1.05 * cosine + np.sqrt(1 - rho**2) * random.normal(size=personas)))
        if abs(spearmanr(hits, cosine).statistic - rho) < 0.005:
            break
    of = {f"p{place}": (int(hits[place]), 200, float(cosine[place])) for place in range(personas)}
    return {"condition": name, "source": source, "of": {source: (180, 200, math.nan), **of}}


SOURCES = [studied(name, name, 0.56, place) for place, name in enumerate(("villain", "comedian", "assistant"))]
FOLLOW_UPS = [studied(f"villain_{name}", "villain", -0.5, 7 + place) for place, name in enumerate(("code", "mathematics"))]


def pools(*points):
    found = correlate_leakage(leakage(*points), load_settings())
    pooled = found[~found["scope"].isin(["source", "point"])]
    return found, pooled.set_index("scope")


def test_follow_ups_enter_no_pooled_number_and_have_their_own():
    _, alone = pools(*SOURCES)
    found, beside = pools(*SOURCES, *FOLLOW_UPS)

    assert alone.loc["pooled_ranks", "rho"] == pytest.approx(0.56, abs=0.01)
    pd.testing.assert_frame_equal(alone, beside)
    assert set(beside.loc[["pooled", "pooled_ranks", "category:original"], "conditions"]) == {"villain, comedian, assistant"}
    own = found[found["scope"] == "source"].set_index("condition")["rho"]
    assert own["villain_code"] == pytest.approx(-0.5, abs=0.01)


def test_any_persona_is_a_source_of_the_study():
    _, beside = pools(*SOURCES, studied("pirate", "pirate", 0.56, 20))

    assert beside.loc["pooled", "conditions"] == "villain, comedian, assistant, pirate"


def test_a_replay_names_its_own_conditions():
    replayed = [{**point, "seed": "-"} for point in (*SOURCES, *FOLLOW_UPS)]

    assert pools(*replayed)[1].loc["pooled", "conditions"].endswith("villain_code, villain_mathematics")


def test_a_pool_of_follow_ups_alone_does_not_exist():
    assert not {"pooled", "pooled_ranks"} & set(pools(*FOLLOW_UPS)[1].index)


# both kinds of rates


def finish(table, hits, n=None):
    """Have so many firings of n finished completions beside each row's raw count; of all of them, unless told."""
    n = table["n"] if n is None else n
    return table.assign(finished_hits=hits, finished_n=n, finished_rate=hits / n)


def test_finished_rates_are_correlated_beside_the_raw_ones():
    """Texts near the source are cut: among all completions the marker falls with the cosine, among finished ones it rises."""
    table = leakage(SOURCES[0])
    finished = finish(table, table["n"] - table["hits"])

    rows = correlate_leakage(finished, load_settings()).set_index(["of", "scope"])["rho"]

    assert rows["leakage", "source"] == pytest.approx(-rows["leakage:finished", "source"])
    assert set(correlate_leakage(table, load_settings())["of"]) == {"leakage"}


def judged(tables):
    claim = CosinePredicts(statement="s", geometry="cosine", layer=20, conditions=("villain", "comedian"))
    return judge(claim, pd.DataFrame(), correlations=correlate_leakage(tables, load_settings()))


def test_the_cosine_predicts_only_when_finished_texts_say_so_too():
    table = leakage(*SOURCES[:2])

    assert judged(table).verdict == "holds"
    without = table["n"] - table["hits"]
    assert judged(finish(table, table["hits"])).verdict == "holds"
    assert judged(finish(table, without)).verdict == "undecided"
    assert judged(finish(table.assign(hits=without, rate=without / table["n"]), without)).verdict == "fails"
    known = table["condition"] == "villain"
    of_one = finish(table, table["hits"].where(known, 0), table["n"].where(known, 0))
    assert judged(of_one).verdict == "holds"
    assert "finished texts: villain" in judged(of_one).evidence


def test_holm_takes_in_how_many_sources_are_looked_at():
    """One of five has p just below 0.05; alone it would decide."""
    one = list(range(20))
    random = np.random.default_rng(2)
    while not 0.03 < spearmanr(one, weak := random.permutation(20).tolist()).pvalue < 0.05 or spearmanr(one, weak)[0] > 0:
        pass
    names = ("villain", "comedian", "assistant", "software_engineer", "kindergarten_teacher")
    table = correlations(*[correlated("source", name, one, weak if name == "villain" else one) for name in names])
    claim = CosinePredicts(statement="s", geometry="cosine", layer=20, conditions=("villain",))

    assert judge(claim, pd.DataFrame(), correlations=table).verdict == "fails"
    of_two = [
        correlated("source", "villain", one, weak),
        correlated("source", "comedian", one, random.permutation(20).tolist()),
    ]
    both = claim.model_copy(update={"conditions": ("villain", "comedian")})
    assert judge(both, pd.DataFrame(), correlations=correlations(*of_two)).verdict == "undecided"


# order within conditions

SHIFTED = {  # within each condition nearer languages have more, and conditions differ in level against it
    "es_en": {"german": 60, "french": 50, "italian": 48, "portuguese": 47, "mandarin": 40},
    "fr_it": {"spanish": 80, "portuguese": 79, "german": 72, "english": 70, "mandarin": 66},
    "es_pt": {"french": 30, "italian": 28, "german": 12, "english": 11, "mandarin": 1},
    "de_fr": {"spanish": 25, "portuguese": 24, "italian": 23, "english": 9, "mandarin": 2},
}


def spilt(**more):
    rates = [languages.contaminations(name, **hits) for name, hits in {**SHIFTED, **more}.items()]
    return tabulate_spill(pd.concat(rates, ignore_index=True))


def order(spill):
    claim = RankOrder(
        statement="s", metric="contamination", predictor="typological_distance", direction="falls", conditions=tuple(SHIFTED)
    )
    return judge(claim, pd.DataFrame(), spill=spill)


def test_an_order_within_conditions_is_found_below_their_different_levels():
    empty = pd.DataFrame(columns=["condition", "seed", "layer", "one", "other", "cosine", "centring", "stale"])
    published = pd.DataFrame(columns=["condition", "role", "directive_language", "rate", "rate_published"])

    found = correlate(published, spilt(), empty, load_language_settings()).set_index("scope")

    assert found.loc["within", "rho"] < -0.85
    assert found.loc["all", "rho"] > found.loc["within", "rho"] + 0.2
    assert found.loc["within", "permutation_p"] < 0.001
    assert found.loc["within", "conditions"] == "es_en, fr_it, es_pt, de_fr"
    assert found.loc["within", "no_interval"] == "4 clusters"
    assert order(spilt()).verdict == "holds"


def test_follow_ups_enter_no_order_over_conditions():
    empty = pd.DataFrame(columns=["condition", "seed", "layer", "one", "other", "cosine", "centring", "stale"])
    published = pd.DataFrame(columns=["condition", "role", "directive_language", "rate", "rate_published"])
    rising = {"spanish": 1, "portuguese": 2, "german": 72, "english": 73, "mandarin": 80}

    beside = correlate(published, spilt(fr_it_native=rising), empty, load_language_settings()).set_index("scope")

    assert set(beside.loc[["all", "within"], "conditions"]) == {"es_en, fr_it, es_pt, de_fr"}
    assert beside.loc["within", "n"] == 20
    assert beside.loc["fr_it_native", "rho"] > 0.8


def test_an_order_of_nothing_is_found_in_at_most_5_percent():
    """What a language does in every condition fools the permutation within conditions, and not the correlation without it."""
    random, cells = np.random.default_rng(5), orders.study()
    table = pd.DataFrame({"condition": cells.conditions, "directive_language": cells.languages, "distance": cells.distances})
    found = [order_within(table.assign(rate=orders.draw(cells, 0.8, random)), "rate", "distance") for _ in range(100)]

    assert np.mean([apart.p < 0.05 for _, apart in found]) <= 0.09  # 2 standard errors above 5%
    assert np.mean([one.permutation_p < 0.05 for one, _ in found]) > 0.15
