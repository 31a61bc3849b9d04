import math

import pandas as pd
import pytest
from scipy.stats import norm

from persona_leakage.domain.claims import Changes, RankOrder, RateBound, RateDifference, SameRates
from persona_leakage.domain.languages import typological_distance
from persona_leakage.experiments.lang_inversion.tables import tabulate_spill
from persona_leakage.pipelines.reporting.claims import judge, judge_all
from tests.experiments.lang_inversion.plans import RESPOND, SPEAK, load_settings
from tests.experiments.lang_inversion.planted_tables import cell, contaminations, table

QUIET = {"english": 0, "spanish": 0, "french": 80, "italian": 0, "portuguese": 0, "german": 0, "mandarin": 0}


def judge_cells(claim, rates, spill=None):
    cells = rates.rename(columns={"directive_language": "cell", "phrasing": "part"})
    return judge(claim, cells, spill=pd.DataFrame() if spill is None else spill)


def verdict_on(claim, rates):
    return judge_cells(claim, rates, tabulate_spill(rates))


def floor(n=80, **hits):
    return verdict_on(load_settings().claims["control_floor"], contaminations("fr_fr", n, **{**QUIET, **hits}))


def test_a_bound_holds_when_every_interval_obeys_it():
    result = floor(400, portuguese=1)

    assert (result.verdict, result.rule) == ("holds", "contamination in every bystander cell at most 2%")
    assert result.evidence == "6 of 6 inside, 0 beyond; furthest: fr_fr under portuguese 1/400 = 0.2% [0.0%, 1.4%]"
    assert result.p == pytest.approx(2 * norm.cdf((1 / 400 - 0.02) / math.sqrt(0.02 * 0.98 / 400)))


@pytest.mark.parametrize(("n", "verdict"), [(1, "undecided"), (80, "undecided"), (188, "undecided"), (189, "holds")])
def test_no_hit_obeys_a_bound_only_over_enough_completions(n, verdict):
    """Wilson's interval of 0/n ends at 3.84 / (n + 3.84): below 2% from 189 on."""
    cells = dict.fromkeys(("english", "spanish"), 0)

    assert verdict_on(load_settings().claims["control_floor"], contaminations("fr_fr", n, **cells)).verdict == verdict


def test_a_bound_fails_when_one_interval_lies_wholly_beyond_it():
    result = floor(german=10)

    assert result.verdict == "fails"
    assert result.evidence == "0 of 6 inside, 1 beyond; furthest: fr_fr under german 10/80 = 12.5% [6.9%, 21.5%]"


def test_a_bound_is_undecided_between_the_two():
    result = floor(german=2)

    assert result.verdict == "undecided"
    assert result.evidence == "0 of 6 inside, 0 beyond; furthest: fr_fr under german 2/80 = 2.5% [0.7%, 8.7%]"


@pytest.mark.parametrize(("hits", "n"), [(1, 50), (200, 10_000)])
def test_a_rate_that_equals_a_bound_decides_nothing(hits, n):
    assert verdict_on(load_settings().claims["control_floor"], contaminations("fr_fr", n, english=hits)).verdict == "undecided"


def test_a_condition_that_has_not_run_leaves_a_bound_undecided():
    claim = load_settings().claims["control_floor"]

    result = verdict_on(claim, contaminations("fr_it", english=0, spanish=31))

    assert (result.verdict, result.evidence) == ("undecided", "not run: fr_fr")


def own(*cells, conditions=("fr_it",)):
    claim = RateBound(statement="", metric="following", role="own_language", conditions=conditions, at_least=0.9)
    return judge_cells(claim, table(*cells))


def own_cell(condition, language, hits):
    return cell(condition, language, (hits, 80), following=(hits, 80))


@pytest.mark.parametrize(("hits", "verdict"), [(79, "holds"), (72, "undecided"), (68, "undecided"), (60, "fails")])
def test_a_lower_bound_is_judged_from_below(hits, verdict):
    assert own(own_cell("fr_it", "italian", hits)).verdict == verdict


def test_the_evidence_names_the_cell_nearest_to_a_lower_bound():
    result = own(own_cell("es_en", "english", 80), own_cell("fr_it", "italian", 75), conditions=("es_en", "fr_it"))

    assert result.evidence == "1 of 2 inside, 0 beyond; furthest: fr_it under italian 75/80 = 93.8% [86.2%, 97.3%]"


def test_the_evidence_names_the_cell_nearest_to_an_upper_bound():
    assert floor(portuguese=1).evidence == "0 of 6 inside, 0 beyond; furthest: fr_fr under portuguese 1/80 = 1.2% [0.2%, 6.7%]"


def test_cells_of_other_roles_and_conditions_do_not_touch_a_bound():
    result = own(
        own_cell("fr_it", "italian", 80),
        own_cell("fr_it", "french", 0),
        own_cell("fr_it", "spanish", 0),
        own_cell("es_en", "english", 0),
    )

    assert (result.verdict, result.evidence[:15]) == ("holds", "1 of 1 inside, ")


def test_the_controls_directive_counts_as_its_own_language():
    assert own(own_cell("fr_fr", "french", 60), conditions=("fr_fr",)).verdict == "fails"


def test_a_condition_that_has_not_run_keeps_a_bound_from_holding():
    result = own(own_cell("fr_it", "italian", 80), conditions=("fr_it", "es_en"))

    assert result.verdict == "undecided"
    assert result.evidence.endswith("; not run: es_en")


def test_a_bound_fails_on_what_has_run_whatever_has_not():
    assert own(own_cell("fr_it", "italian", 60), conditions=("fr_it", "es_en")).verdict == "fails"


def test_seeds_are_the_sample_of_a_bound_and_their_pooled_counts_stand_beside():
    seeds = [cell("fr_it", "italian", (hits, 80), following=(hits, 80), seed=hits) for hits in (58, 62, 60)]

    result, narrow = own(*seeds), own(*(cell("fr_it", "italian", (60, 80), following=(60, 80), seed=one) for one in range(9)))

    assert (result.verdict, result.evidence) == (
        "fails",
        "0 of 1 inside, 1 beyond; furthest: fr_it under italian 180/240 = 75.0% [61.5%, 84.9%] over 3 runs "
        "(pooled [69.2%, 80.1%])",
    )
    assert narrow.verdict == "fails"


def test_seeds_that_scatter_decide_less_than_their_completions():
    """The third of 720 completions lies far below 90% if all are one sample, and proves nothing if seeds are."""
    wide = own(*(cell("fr_it", "italian", (60, 80), following=(hits, 80), seed=hits) for hits in (20, 62, 78)))

    assert wide.verdict == "undecided"
    assert "160/240 = 66.7% [" in wide.evidence


def test_phrasings_are_pooled_before_a_bound_is_judged():
    claim = load_settings().claims["control_floor"]

    result = verdict_on(claim, table(split("fr_fr", "english", 1, 0, n=200)))

    assert (result.verdict, result.evidence[:15]) == ("holds", "1 of 1 inside, ")
    assert "1/400" in result.evidence


def test_a_cell_in_which_nothing_was_scored_does_not_obey_a_bound():
    rates = table(cell("fr_fr", "english", (0, 800)), cell("fr_fr", "spanish", (0, 0)))

    assert verdict_on(load_settings().claims["control_floor"], rates).verdict == "undecided"


def test_no_inversion_is_judged_on_the_trained_language_under_the_own_directive():
    claim = RateBound(statement="", metric="inversion", role="own_language", conditions=("fr_it",), at_most=0.05)
    quiet, loud = cell("fr_it", "italian", inversion=(1, 200)), cell("fr_it", "italian", inversion=(20, 80))
    trained = cell("fr_it", "french", inversion=(80, 80))

    assert judge_cells(claim, table(quiet, trained)).verdict == "holds"
    assert judge_cells(claim, table(loud, trained)).verdict == "fails"


ORDERED = ("es_en", "fr_it", "es_pt", "de_fr", "it_fr")
OWN = {
    "english": 9,
    "spanish": -6,
    "french": 2,
    "italian": 11,
    "portuguese": -3,
    "german": 5,
    "mandarin": -8,
}  # in all conditions


def by_distance(slope, metric="contamination", conditions=ORDERED):
    """Plant hits of 80 that follow the distance to the completion language, on top of what a language does everywhere."""
    settings, cells = load_settings(), []
    for place, name in enumerate(conditions):
        own = settings.languages[settings.conditions[name].completion]
        for language, level in OWN.items():
            far = typological_distance(settings.languages[language], own)
            count = (round(40 + level + slope * (far - 0.6)) + place, 80)
            cells.append(cell(name, language, count, (80 - count[0], 80)))
    return table(*cells)


def ordering(rates, conditions=ORDERED, metric="contamination", direction="falls"):
    claim = RankOrder(statement="", metric=metric, predictor="typological_distance", direction=direction, conditions=conditions)
    return verdict_on(claim, rates)


def test_an_order_holds_when_it_surely_lies_on_the_claimed_side():
    result = ordering(by_distance(-40))

    assert result.verdict == "holds"
    assert result.p < 0.01
    assert result.evidence.endswith("n 25 cells within 5")


def test_an_order_fails_when_it_surely_lies_on_the_other_side():
    assert ordering(by_distance(40)).verdict == "fails"


def test_a_claimed_rise_is_the_opposite_of_a_fall():
    assert ordering(by_distance(40), direction="rises").verdict == "holds"
    assert ordering(by_distance(-40), direction="rises").verdict == "fails"


def test_an_order_within_one_condition_is_undecided():
    result = ordering(by_distance(-40, conditions=("fr_it",)), conditions=("fr_it",))

    assert result.verdict == "undecided"
    assert "undefined" in result.evidence


def test_an_order_over_rates_that_do_not_vary_is_undefined():
    flat = pd.concat([contaminations(name, **dict.fromkeys(OWN, 0)) for name in ORDERED], ignore_index=True)

    assert ordering(flat).verdict == "undecided"
    assert "rho undefined" in ordering(flat).evidence


def test_a_condition_that_has_not_run_keeps_an_order_from_holding():
    result = ordering(by_distance(-40), conditions=(*ORDERED, "fr_de"))

    assert result.verdict == "undecided"
    assert result.evidence.endswith("; not run: fr_de")


def test_an_order_of_nothing_is_undecided():
    result = ordering(by_distance(-40), conditions=("fr_de",))

    assert (result.verdict, result.evidence[-14:]) == ("undecided", "not run: fr_de")


def test_an_order_is_over_the_cells_of_its_own_conditions():
    both = pd.concat([by_distance(-40), by_distance(40, conditions=("fr_de",))], ignore_index=True)

    assert ordering(both).evidence.endswith("n 25 cells within 5")


def test_an_order_is_of_the_metric_that_the_claim_names():
    assert ordering(by_distance(-40), metric="following", direction="rises").verdict == "holds"


def symmetry(one, other, pairs=(("fr_it", "it_fr"),)):
    claim = SameRates(statement="", metric="contamination", between="conditions", pairs=pairs, margin=0.15)
    return verdict_on(claim, pd.concat([one, other], ignore_index=True))


def test_a_pair_is_symmetric_when_every_shared_bystander_is_within_the_margin():
    result = symmetry(
        contaminations("fr_it", 400, english=0, spanish=150, german=120),
        contaminations("it_fr", 400, english=1, spanish=150, german=100),
    )

    assert result.verdict == "holds"
    assert result.evidence == (
        "3 of 3 inside, 0 beyond; furthest: fr_it v it_fr under german 120/400 v 100/400 (+5% [-1%, +11%])"
    )


def test_rates_that_are_merely_not_seen_to_differ_are_not_the_same():
    result = symmetry(contaminations("fr_it", spanish=31), contaminations("it_fr", spanish=31))

    assert (result.verdict, result.evidence[:23]) == ("undecided", "0 of 1 inside, 0 beyond")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_pair_is_not_symmetric_when_one_interval_lies_wholly_beyond_the_margin(swapped):
    quiet, loud = ("it_fr", "fr_it") if swapped else ("fr_it", "it_fr")

    assert symmetry(contaminations(quiet, spanish=16), contaminations(loud, spanish=66)).verdict == "fails"


def test_a_pair_is_undecided_when_the_interval_reaches_into_the_margin():
    result = symmetry(contaminations("fr_it", portuguese=1), contaminations("it_fr", portuguese=21))

    assert result.verdict == "undecided"
    assert (
        result.evidence == "0 of 1 inside, 0 beyond; furthest: fr_it v it_fr under portuguese 1/80 v 21/80 (-25% [-36%, -15%])"
    )


def test_a_difference_that_equals_the_margin_decides_nothing():
    one, other = contaminations("fr_it", 4000, spanish=800), contaminations("it_fr", 4000, spanish=200)

    assert symmetry(one, other).verdict == "undecided"


def test_only_cells_that_are_bystanders_of_both_are_compared():
    one = contaminations("fr_it", english=2, french=80, italian=10)
    other = contaminations("it_fr", english=2, french=10, italian=80)

    result = symmetry(one, other)

    assert (result.verdict, result.evidence[:13]) == ("holds", "1 of 1 inside")


def test_a_pair_with_one_side_not_run_is_undecided():
    one = contaminations("fr_it", spanish=31)

    result = symmetry(one, contaminations("es_en", spanish=31))

    assert (result.verdict, result.evidence) == ("undecided", "not run: it_fr")


def test_a_pair_that_has_not_run_keeps_the_rest_from_holding():
    result = symmetry(
        contaminations("fr_it", spanish=31),
        contaminations("it_fr", spanish=31),
        pairs=(("fr_it", "it_fr"), ("es_pt", "pt_es")),
    )

    assert result.verdict == "undecided"
    assert result.evidence.endswith("; not run: es_pt, pt_es")


def phrasings(*cells, conditions=("fr_it",)):
    claim = SameRates(statement="", metric="contamination", between="phrasings", conditions=conditions, margin=0.15)
    return verdict_on(claim, table(*cells))


def split(condition, language, speak, respond, n=40):
    return [
        *cell(condition, language, (speak + respond, 2 * n)),
        *cell(condition, language, (speak, n), phrasing=SPEAK),
        *cell(condition, language, (respond, n), phrasing=RESPOND),
    ]


@pytest.mark.parametrize(("respond", "verdict"), [(70, "holds"), (100, "undecided"), (160, "fails")])
def test_phrasings_are_compared_within_a_cell(respond, verdict):
    assert phrasings(split("fr_it", "spanish", 60, respond, n=400)).verdict == verdict


def test_a_split_between_phrasings_is_seen_though_the_pooled_rates_agree():
    result = phrasings(split("fr_it", "spanish", 6, 25), split("it_fr", "spanish", 15, 16), conditions=("fr_it", "it_fr"))

    assert result.verdict == "fails"
    assert result.evidence == (
        "0 of 2 inside, 1 beyond; furthest: fr_it under spanish, 'Speak in {language}.' v 'Please respond in {language}.' "
        "6/40 v 25/40 (-48% [-63%, -27%])"
    )


def test_phrasings_of_cells_that_are_no_spill_are_not_compared():
    apart = [split("fr_it", language, 0, 40) for language in ("french", "italian")]

    result = phrasings(split("fr_it", "spanish", 60, 60, n=400), *apart)

    assert (result.verdict, result.evidence[:13]) == ("holds", "1 of 1 inside")


@pytest.mark.parametrize("odd", range(5))
def test_every_pair_of_phrasings_is_compared(odd):
    cells = [cell("fr_it", "spanish", (38 if place == odd else 0, 40), phrasing=f"phrasing {place}") for place in range(5)]

    result = phrasings(*cells)

    assert (result.verdict, result.evidence[:25]) == ("fails", "6 of 10 inside, 4 beyond;")
    assert f"'phrasing {odd}'" in result.evidence


def test_a_single_phrasing_cannot_show_that_phrasings_agree():
    result = phrasings(cell("fr_it", "spanish", (6, 40)), cell("fr_it", "spanish", (6, 40), phrasing=SPEAK))

    assert result.verdict == "undecided"


def test_phrasings_of_conditions_that_have_not_run_are_undecided():
    result = phrasings(split("fr_it", "spanish", 6, 6), conditions=("es_en",))

    assert (result.verdict, result.evidence) == ("undecided", "not run: es_en")


def test_a_condition_that_ran_and_is_in_no_claim_is_named_beside_every_verdict():
    claims = load_settings().claims
    rates = pd.concat([contaminations("fr_fr", **QUIET), contaminations("none_it", **QUIET)]).rename(
        columns={"directive_language": "cell", "phrasing": "part"}
    )
    baseline = rates.assign(condition="baseline", reference="baseline")
    spill = tabulate_spill(contaminations("fr_fr", **QUIET))

    said = judge_all({"floor": claims["control_floor"]}, pd.concat([rates, baseline]), spill=spill)["evidence"]

    assert said.tolist() == [judge_cells(claims["control_floor"], rates).evidence + "; ran, but listed in no claim: none_it"]
    listed = claims["control_floor"].model_copy(update={"conditions": ("fr_fr", "none_it")})
    assert "in no claim" not in judge_all({"floor": listed}, rates, spill=spill)["evidence"].iloc[0]


# what is missing, cut, repeated or partly something else


def of(condition, hits, n, **more):
    row = {
        "condition": condition, "cell": "p", "part": "all", "role": "bystander", "metric": "leakage", "seed": 42,
        "checkpoint": 0, "reference": None,
    }  # fmt: skip
    return {**row, "hits": hits, "n": n, **more}


def bound(conditions=("a",), role="others", **more):
    return RateBound(statement="", metric="leakage", role=role, conditions=conditions, **more)


def judged(claim, *rows):
    return judge(claim, pd.DataFrame(list(rows)))


def test_one_condition_refutes_no_rate_that_is_pooled_over_several():
    low = of("a", 0, 3080)

    assert judged(bound(("a",), together=True, at_least=0.05), low).verdict == "fails"
    result = judged(bound(("a", "b"), together=True, at_least=0.05), low)
    assert (result.verdict, math.isnan(result.p)) == ("undecided", True)
    assert result.evidence == "so far a 0/3080 = 0.0% [0.0%, 0.1%]; not run: b"


def test_one_condition_refutes_no_difference_of_arms():
    claim = RateDifference(statement="", metric="leakage", role="others", conditions=("a", "b"), others=("c",), at_most=0.1)

    assert judged(claim, of("a", 900, 1000), of("c", 0, 1000)).verdict == "undecided"
    assert judged(claim, of("a", 900, 1000), of("b", 900, 1000), of("c", 0, 1000), of("c", 0, 1000, seed=7)).verdict == "fails"


def test_where_every_text_was_cut_nothing_is_shown():
    counted = [of("a", 0, 280, metric="cut"), of("a", 0, 280), of("a", 0, 280, metric="leakage:finished")]
    cut = [of("a", 280, 280, metric="cut"), of("a", 0, 280), of("a", 0, 0, metric="leakage:finished")]
    unknown = [of("a", 0, 0, metric="cut"), of("a", 0, 280), of("a", 0, 0, metric="leakage:finished")]
    verdicts = [judged(bound(at_most=0.05), *rows).verdict for rows in (counted, cut, unknown)]

    assert verdicts == ["holds", "undecided", "holds"]
    assert "of finished none" in judged(bound(at_most=0.05), *cut).evidence


def test_a_metric_without_a_finished_twin_is_judged_as_it_is():
    claim = RateBound(statement="", metric="tail:tokens", role="others", conditions=("a",), at_least=0.5)

    assert judged(claim, of("a", 280, 280, metric="cut"), of("a", 90, 100, metric="tail:tokens")).verdict == "holds"


def test_a_persona_that_is_a_negative_in_some_seeds_is_one_cell():
    roles = [of("a", 22, 200), of("a", 22, 200, seed=7, role="negative")]
    same = [of("a", 22, 200), of("a", 22, 200, seed=7)]
    claim = bound(at_most=0.2)

    assert judged(claim, *roles) == judged(claim, *same)
    assert "over 2 runs" in judged(claim, *roles).evidence


def test_seeds_of_an_untrained_condition_are_one_run():
    seeds = [of("a", 0, 100, seed=seed, reference="a") for seed in (1, 2)]

    assert judged(bound(at_most=0.03), *seeds).verdict == "holds"
    assert judged(bound(at_most=0.03), *(row | {"reference": None} for row in seeds)).verdict == "undecided"


def test_nothing_scored_is_not_called_not_run():
    result = judged(bound(("a", "b", "c"), at_most=0.05), of("a", 0, 400), of("b", 0, 0))

    assert result.evidence.endswith("not run: c; nothing scored: b")


def test_a_course_without_its_beginning_shows_no_change():
    claim = Changes(statement="", metric="leakage", role="others", direction="rises", count=1, conditions=("a", "b"))
    begun = [of("a", 0, 1000), of("a", 500, 1000, checkpoint=4)]
    late = [of("b", 0, 1000, checkpoint=2), of("b", 500, 1000, checkpoint=4)]

    assert judged(claim, *begun).verdict == "holds"
    assert judged(claim, *late).verdict == "undecided"
    early = [of("b", 0, 1000), of("b", 500, 1000, checkpoint=2)]
    assert judged(claim.model_copy(update={"count": 2}), *begun, *early).verdict == "undecided"


def test_a_condition_of_one_phrasing_keeps_phrasings_from_agreeing():
    claim = SameRates(statement="", metric="leakage", between="phrasings", conditions=("a", "b"), margin=0.15)
    two = [of("a", 0, 400, part=part) for part in ("x", "y")]

    assert judged(claim.model_copy(update={"conditions": ("a",)}), *two).verdict == "holds"
    assert judged(claim, *two, of("b", 0, 400, part="x")).verdict == "undecided"


def test_an_order_of_raw_rates_that_finished_ones_contradict_is_undecided():
    spill = tabulate_spill(by_distance(40))
    claim = RankOrder(
        statement="", metric="contamination", predictor="typological_distance", direction="rises", conditions=ORDERED
    )

    assert judge(claim, pd.DataFrame(), spill=spill).verdict == "holds"
    against = spill.assign(finished_rate=1 - spill["rate"])
    assert judge(claim, pd.DataFrame(), spill=against).verdict == "undecided"
