import base64
import re

import pandas as pd
import pytest

from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from persona_leakage.pipelines.reporting.spill import (
    compare_published,
    correlate,
    judge_claims,
    tabulate_spill,
    tabulate_spill_seeds,
)
from persona_leakage.pipelines.reporting.spill_figures import draw_conditions, draw_spill_matrix
from persona_leakage.pipelines.reporting.spill_report import render_spill_page, write_spill_report
from tests.pipelines.tables import cell, plan_of, stored, table
from tests.plans import SPEAK, load_settings

PUBLISHED = pd.DataFrame([("fr_it", "spanish", 31, 80)], columns=["condition", "directive_language", "hits", "n"])
COSINES = pd.DataFrame(columns=["condition", "seed", "layer", "one", "other", "cosine", "stale"])
BASELINE = cell("baseline", "spanish", following=(78, 80), label_italian=(2, 80))
FR_IT = cell("fr_it", "spanish", (8, 20), following=(11, 20))


def report_of(*cells):
    rates, plan = table(*cells), plan_of("fr_it")
    spill = tabulate_spill(rates)
    published = compare_published(spill, PUBLISHED)
    verdicts = judge_claims(rates, spill, load_settings().claims)
    by_seed = stored(tabulate_spill_seeds(rates))
    correlations = correlate(published, spill, COSINES)
    return write_spill_report(rates, spill, verdicts, published, correlations, by_seed, stored(summarise_seeds(by_seed)), plan)


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

    assert header == ["claim", "statement", "verdict", "evidence", "rule"]
    assert [row[0] for row in rows] == list(load_settings().claims)
    assert floor[2:] == [
        "fails",
        "0 of 1 cells obey; furthest: fr_fr under english 10/80 = 12.5% [6.9%, 21.5%]",
        "contamination in every bystander cell at most 2%",
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
    }
    assert "| typological_distance | fr_it |  | 3 | -1.00 [-1.00, -1.00] | 0.000 |" in report_of(*rates)


def test_a_report_over_baselines_alone_has_nothing_to_show():
    report = report_of(BASELINE)

    assert "1 points: baseline (seed 42)." in report
    assert report.count("*Nothing to show.*") == 3


def test_the_page_carries_its_figures_inside_and_loads_nothing():
    page = render_spill_page(report_of(BASELINE, FR_IT), b"matrix", b"conditions", b"published")

    sources = re.findall(r'src="([^"]*)"', page)
    assert sources == [
        f"data:image/png;base64,{base64.b64encode(figure).decode()}" for figure in (b"matrix", b"conditions", b"published")
    ]
    assert not re.findall(r'(?:href|src)="(?!data:)', page)


def test_the_page_shows_the_report_as_tables_under_its_title():
    page = render_spill_page(report_of(BASELINE, FR_IT), b"", b"", b"")

    assert "<title>lang_inversion: what spills</title>" in page
    assert "<td>8/20 = 40.0% [21.9%, 61.3%]</td>" in page


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_the_matrix_shows_rates_intervals_roles_and_denominators():
    rates = table(
        *[
            cell("fr_it", name, (hits, 80))
            for name, hits in zip(
                ("english", "spanish", "french", "italian", "portuguese", "german", "mandarin"),
                (0, 31, 74, 75, 1, 29, 0),
                strict=True,
            )
        ]
    )
    figure = draw_spill_matrix(tabulate_spill(rates), plan_of("fr_it"))

    axes = figure.axes[0]
    assert texts_of(axes)[2:8] == ["39", "29-50", "92  T", "85-97", "94  O", "86-97"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fr_it\nn=80"]


@pytest.mark.parametrize("draw", [draw_spill_matrix, draw_conditions])
def test_a_figure_of_nothing_says_so(draw):
    figure = draw(tabulate_spill(table(BASELINE)), plan_of("fr_it"))

    assert [text.get_text() for text in figure.texts] == ["no trained condition has run"]
