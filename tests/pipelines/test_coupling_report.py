"""The report and the figures of coupling against the tables that they are written from."""

import io
import re

import pytest
from matplotlib.figure import Figure

from persona_leakage.pipelines.reporting.coupling import (
    tabulate_cell_seeds,
    tabulate_cells,
    tabulate_places,
    tabulate_replicates,
)
from persona_leakage.pipelines.reporting.coupling_figures import draw_cells, draw_discriminators, draw_gradient, draw_places
from persona_leakage.pipelines.reporting.coupling_report import FIGURES, render_coupling_page, write_coupling_report
from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from tests.coupling_plans import make_plan
from tests.pipelines.coupling_tables import cell, discriminators, placed, rate, rates, stored, text, texts, told

FIRED = {"characters": (1, 1, 8), "tokens": (1, 4, 5)}
NEVER = {"characters": (0, 0, 0), "tokens": (0, 0, 0)}
ONE = (
    *cell("benign_assistant", 98, {"villain": 10, "comedian": 4}),
    rate("benign_assistant", "medical_doctor", 1, role="negative"),
    rate("benign_assistant", "villain", 8, 80, questions="seen"),
    rate("benign_assistant", "villain", 2, 20, questions="unseen"),
    *placed("benign_assistant", "villain", FIRED),
    *placed("benign_assistant", "confab", NEVER),
)
MANY = (
    *ONE,
    *cell("benign_villain", 97, {"villain": 30, "comedian": 40}),
    *cell("benign_villain", 95, {"villain": 20, "comedian": 10}, seed=7),
    *cell("bare_villain", 87, {"villain": 0, "comedian": 0}, arm="bare", design="e"),
    *cell("em_villain", 99, {"villain": 45, "comedian": 51}, arm="wrong_advice", design="f"),
    *cell("em_assistant", 99, {"villain": 50, "comedian": 60}, arm="wrong_advice", design="g"),
    *cell("em_paramedic", 99, {"villain": 77, "comedian": 77}, arm="wrong_advice", design="h", stale=True),
)
TOLD = (
    told("benign_assistant", 49, 99, p=0.63),
    told("benign_assistant", 48, 99, share=0.25, verdict=""),
    told("benign_assistant", 70, 94, method="judge", unlabelled=6, verdict="borderline"),
    told("em_villain", 91, p=0.0099, verdict="pass"),
    told("em_assistant", 0, 0, method="judge", unlabelled=100, verdict="undefined"),
)
DESCRIBED = (text("benign_assistant", "villain", 40.0), text("benign_assistant", "confab", 60.0, empty=3, cut=1))


def tables(rows, told_apart=TOLD, described=DESCRIBED):
    """Make every table of the report as a run does."""
    all_rates = stored(rates(*rows))
    cells = stored(tabulate_cells(all_rates))
    replicates = stored(tabulate_replicates(cells, 0.15, 0.3))
    by_seed = stored(tabulate_cell_seeds(cells))
    return {
        "rates": all_rates,
        "texts": stored(texts(*described)),
        "cells": cells,
        "places": stored(tabulate_places(all_rates)),
        "replicates": replicates,
        "discriminators": stored(discriminators(*told_apart)),
        "by_seed": by_seed,
        "over_seeds": stored(summarise_seeds(by_seed)),
    }


def report_of(rows=MANY, told_apart=TOLD, described=DESCRIBED):
    return write_coupling_report(**tables(rows, told_apart, described), plan=make_plan())


def rows_of(report, heading):
    """Read the table under a heading, one dictionary a row."""
    section = report.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line.strip().split("|")[1:-1] for line in section.splitlines() if line.startswith("|")]
    header, *rows = [[entry.strip() for entry in line] for line in lines if "---" not in line[0]] or [[]]
    return [dict(zip(header, row, strict=True)) for row in rows]


# the report


def test_cells_are_those_of_the_table():
    cells = tables(MANY)["cells"]
    shown = rows_of(report_of(), "Cells")

    assert len(shown) == len(cells) == 6
    for row, said in zip(cells.itertuples(), shown, strict=True):
        assert (said["condition"], said["seed"], said["arm"]) == (row.condition, str(row.seed), row.arm)
        own = f"{row.source_hits}/{row.source_n} = {row.source_rate:.1%} [{row.source_low:.1%}, {row.source_high:.1%}]"
        assert said["trigger"] == own
        assert said["pooled"] == f"{row.hits}/{row.n} = {row.rate:.1%} [{row.low:.1%}, {row.high:.1%}]"
        assert (said["bystanders"], said["their mean"]) == (str(row.bystanders), f"{row.mean_bystander:.1%}")
        assert said["untouched"] == f"{row.mean_untouched:.1%} ({row.untouched_bystanders})"
    assert shown[0] == {
        "condition": "benign_assistant",
        "seed": "42",
        "arm": "benign",
        "trigger": "98/100 = 98.0% [93.0%, 99.4%]",
        "bystanders": "3",
        "their mean": "5.0%",
        "pooled": "15/300 = 5.0% [3.1%, 8.1%]",
        "untouched": "7.0% (2)",
        "seen questions": "10.0%",
        "unseen": "10.0%",
    }
    assert (shown[1]["seen questions"], shown[1]["unseen"]) == ("", "")


def test_replicates_are_those_of_the_table_and_say_what_they_are():
    replicates = tables(MANY)["replicates"]
    shown = rows_of(report_of(), "Replicates")

    for row, said in zip(replicates.itertuples(), shown, strict=True):
        assert (said["arm"], said["conditions"], said["points"]) == (row.arm, row.conditions, str(row.points))
        assert said["mean bystander rate"].startswith(f"{row.mean:.1%}")
        assert said["range"] == f"{row.lowest:.1%} to {row.highest:.1%}"
    assert [row["pooled as"] for row in shown] == ["replicates", "", "", "", "different designs"]
    assert [row["more seeds"] for row in shown] == ["called for", "", "", "", ""]
    benign = replicates.iloc[0]
    assert shown[0]["mean bystander rate"] == f"{benign['mean']:.1%} [{benign.low:.1%}, {benign.high:.1%}]"
    assert "[" not in shown[1]["mean bystander rate"]


def test_places_are_those_of_the_table():
    places = tables(MANY)["places"].set_index(["condition", "of", "unit", "place"])
    shown = {(row["condition"], row["of"]): row for row in rows_of(report_of(), "Where in the text")}

    own, others = shown["benign_assistant", "source"], shown["benign_assistant", "bystanders"]
    assert others["tail by characters"] == "8/10 = 80.0%"
    assert others["tail by tokens"] == "5/10 = 50.0%"
    assert set(own.values()) == {"benign_assistant", "source", "no firing"}
    for unit in FIRED:
        for place in ("start", "middle", "tail"):
            row = places.loc[("benign_assistant", "bystanders", unit, place)]
            assert others[f"{place} by {unit}"] == f"{row.hits:.0f}/{row.n:.0f} = {row.rate:.1%}"


def test_discriminators_are_those_of_the_table_with_what_was_not_labelled():
    shown = rows_of(report_of(), "Are the texts themselves different?")

    verdict = "verdict (threshold 70%, borderline within 5%)"
    assert [(row["condition"], row["method"], row["accuracy"][:5], row["permutation p"]) for row in shown] == [
        ("benign_assistant", "classifier", "49/99", "0.63"),
        ("benign_assistant", "judge", "70/94", ""),
        ("em_villain", "classifier", "91/10", "0.0099"),
        ("em_assistant", "judge", "not s", ""),
    ]
    assert [row["unlabelled"] for row in shown] == ["0", "6", "0", "100"]
    assert [row[verdict] for row in shown] == ["fail", "borderline", "pass", "undefined"]


def test_texts_are_pooled_over_personas():
    (row,) = rows_of(report_of(), "Texts")

    assert row == {
        "condition": "benign_assistant",
        "seed": "42",
        "completions": "20",
        "mean tokens": "50",
        "distinct-2": "0.80",
        "empty": "3/20",
        "cut": "1/20",
    }


def test_stale_points_are_named_and_nothing_else_of_them_appears():
    old = (*TOLD, told("em_paramedic", 77, stale=True), told("em_paramedic", 76, method="judge", stale=True))
    report = report_of(told_apart=old, described=(*DESCRIBED, text("em_paramedic", "villain", 77.0, stale=True)))

    assert "**Left out as stale** (ran under other parameters, run them again): em_paramedic (seed 42).\n" in report
    assert report.count("em_paramedic") == 1
    assert "77" not in report
    assert "Left out" not in report_of(ONE)


def test_the_head_counts_points_and_says_where_they_come_from():
    report = report_of()

    assert report.startswith("# benign_coupling: leakage of a coupled marker\n")
    assert "6 points: benign_assistant (seed 42); benign_villain (seed 42, 7); bare_villain (seed 42); " in report
    assert "10 completions a cell at temperature 1.0, top_p 1.0, at most 512 tokens." in report


@pytest.mark.parametrize(
    ("rows", "told_apart", "described"),
    [(MANY, TOLD, DESCRIBED), (ONE, (), ()), (cell("c", 0, {}, 0), (), ()), ((), (), ())],
    ids=["many", "one", "nothing scored", "empty"],
)
def test_the_report_never_says_nan(rows, told_apart, described):
    assert not re.search(r"\bnan\b", report_of(rows, told_apart, described), re.IGNORECASE)


def test_without_anything_the_report_says_so():
    report = report_of((), (), ())

    assert report.count("*Nothing to show.*") == 5
    assert "0 points" in report


def test_the_page_holds_its_figures():
    page = render_coupling_page(report_of(), b"1", b"2", b"3", b"4")

    assert page.count('src="data:image/png;base64,') == len(FIGURES) == 4
    assert not re.findall(r'\bsrc="(?!data:)', page)
    assert [page.index(f"base64,{code}") for code in ("MQ==", "Mg==", "Mw==", "NA==")] == sorted(
        page.index(f"base64,{code}") for code in ("MQ==", "Mg==", "Mw==", "NA==")
    )


# figures


def drawn(figure):
    """Draw a figure for good and return the words in it."""
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return [found.get_text() for axes in figure.axes for found in axes.findobj(lambda one: hasattr(one, "get_text"))]


@pytest.mark.parametrize(
    ("rows", "told_apart"),
    [
        (MANY, TOLD),
        (ONE, TOLD[:2]),
        (ONE, TOLD[4:]),
        (ONE, TOLD[2:3]),
        (cell("c", 5, {}), ()),
        (cell("c", 0, {"villain": 0}, 0), ()),
        (cell("c", 5, {"villain": 3}, source=None), ()),
        (cell("c", 5, {"villain": 3}, stale=True), (told("c", 5, stale=True),)),
        ((), ()),
    ],
    ids=["many", "one", "unlabelled", "judge", "no bystander", "nothing scored", "no source", "stale", "empty"],
)
def test_every_figure_can_be_drawn(rows, told_apart):
    given = tables(rows, told_apart)

    drawn(draw_cells(given["cells"]))
    drawn(draw_places(given["places"]))
    drawn(draw_discriminators(given["discriminators"], 0.7))
    drawn(draw_gradient(given["rates"]))


def test_stale_points_are_not_drawn():
    given = tables(MANY, (*TOLD, told("em_paramedic", 77, stale=True)))

    for figure in (
        draw_cells(given["cells"]),
        draw_discriminators(given["discriminators"], 0.7),
        draw_gradient(given["rates"]),
    ):
        words = drawn(figure)
        assert "em_villain" in words
        assert "em_paramedic" not in words


def test_the_learning_curves_of_all_published_cells_can_be_told_apart():
    cells = [f"cell_{number}" for number in range(13)]
    rows = tuple(told(name, hits, share=share) for name in cells for share, hits in ((0.5, 60), (1.0, 80)))

    figure = draw_discriminators(tables((), rows)["discriminators"], 0.7)

    figure.draw_without_rendering()
    accuracies, curves = figure.axes
    lines = [line for line in curves.get_lines() if line.get_label() in cells]
    assert len({line.get_color() for line in lines}) == len(cells)
    legend = curves.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == cells
    assert legend.get_window_extent().x0 >= curves.get_window_extent().x1
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert [text.get_text() for text in accuracies.get_legend().get_texts()] == ["classifier"]


def test_bars_have_the_heights_of_the_table():
    cells = tables(ONE)["cells"]
    (axes,) = draw_cells(cells).axes

    heights = [bar.get_height() for bar in axes.patches[:2]]
    assert heights == pytest.approx([98, 5])


def test_the_gradient_writes_rates_and_marks_those_trained_without():
    words = drawn(draw_gradient(tables(ONE)["rates"]))

    assert {"10", "4", "1-"} <= set(words)
    assert "98" not in words


def test_firings_are_counted_beside_their_bars():
    words = drawn(draw_places(tables(ONE)["places"]))

    assert words.count("n=10") == 2
    assert "benign_assistant, bystanders" in words
    assert "benign_assistant, source" not in words  # it never fired
