"""What the figures draw, and what they say where there is nothing to draw."""

import pandas as pd
import pytest

from persona_leakage.experiments.lang_inversion.figures import draw_conditions, draw_published, draw_spill_matrix
from persona_leakage.experiments.lang_inversion.tables import compare_published, tabulate_spill
from tests.experiments.lang_inversion.plans import LANGUAGES
from tests.experiments.lang_inversion.planted_tables import cell, contaminations, table


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def ticks_of(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_the_matrix_shows_rates_intervals_roles_and_denominators():
    hits = dict(zip(LANGUAGES, (0, 31, 74, 75, 1, 29, 0), strict=True))
    figure = draw_spill_matrix(tabulate_spill(contaminations("fr_it", **hits)))

    axes = figure.axes[0]
    assert texts_of(axes)[2:8] == ["39", "29-50", "92  T", "85-97", "94  O", "86-97"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fr_it\nn=80"]


@pytest.mark.parametrize("draw", [draw_spill_matrix, draw_conditions])
def test_a_figure_of_nothing_says_so(draw):
    figure = draw(tabulate_spill(table(cell("baseline", "spanish", following=(78, 80)))))

    assert [text.get_text() for text in figure.texts] == ["no trained condition has run"]


def test_conditions_that_evaluated_different_languages_are_drawn_beside_each_other():
    spill = tabulate_spill(
        table(
            cell("fr_it", "spanish", (31, 80), following=(44, 80)),
            cell("fr_it", "german", (29, 80)),
            cell("es_en", "french", (79, 80)),
        )
    )

    one, other = draw_conditions(spill).axes
    matrix = draw_spill_matrix(spill).axes[0]

    assert [ticks_of(axes) for axes in (one, other, matrix)] == [
        ["spanish", "german"], ["french"], ["spanish", "german", "french"],
    ]  # fmt: skip
    assert texts_of(matrix) == ["39", "29-50", "36", "27-47", "99", "93-100"]


def test_published_rates_are_drawn_by_role_with_the_correlation_over_bystanders():
    spill = tabulate_spill(contaminations("fr_it", spanish=31, german=29, italian=75))
    published = pd.DataFrame(
        [("fr_it", name, 30, 80) for name in ("spanish", "german", "italian")],
        columns=["condition", "directive_language", "hits", "n"],
    )
    correlations = pd.DataFrame(
        [("published", 2, 0.5, -0.1, 0.9, "")], columns=["with", "n", "rho", "low", "high", "no_interval"]
    )

    axes = draw_published(compare_published(spill, published), correlations).axes[0]

    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["bystander (2 cells)", "other roles (1 cells)"]
    assert axes.get_title() == "Bystander cells: Spearman 0.50 [-0.10, 0.90], n = 2"


def test_without_published_rates_the_figure_says_so():
    none = compare_published(
        tabulate_spill(table(cell("fr_it_native", "spanish", (3, 80)))),
        pd.DataFrame(columns=["condition", "directive_language", "hits", "n"]),
    )

    assert [text.get_text() for text in draw_published(none, pd.DataFrame()).texts] == [
        "no condition with published rates has run"
    ]
