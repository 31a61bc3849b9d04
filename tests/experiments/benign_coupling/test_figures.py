"""The figures of coupling against the tables that they are drawn from."""

import io

import pandas as pd
import pytest
from matplotlib.figure import Figure

from persona_leakage.experiments.benign_coupling.figures import draw_cells, draw_discriminators, draw_gradient, draw_places
from tests.experiments.benign_coupling.planted_tables import MANY, ONE, TOLD, cell, placed, rate, tables, told


def figures_of(made):
    """Draw the cells, the places, the discriminators and the gradient."""
    return (
        draw_cells(made["cells"], made["over_seeds"]),
        draw_places(made["places"]),
        draw_discriminators(made["accuracies"], made["learning_curves"]),
        draw_gradient(made["bystanders"]),
    )


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
    for figure in figures_of(tables(rows, told_apart)):
        drawn(figure)


@pytest.mark.parametrize("name", ["cost_$_a_$b", "$^$", "_lead", "two\nlines"])
def test_names_are_drawn_as_they_are_written(name):
    fired = placed(name, f"{name} too", dict.fromkeys(("characters", "tokens"), (1, 1, 1)))
    rows, told_apart = (*cell(name, 5, {f"{name} too": 3}), *fired), (told(name, 5), told(name, 5, share=0.5))

    figures = figures_of(tables(rows, told_apart))
    cells, places, discriminators, gradient = map(drawn, figures)

    assert name in cells
    assert f"{name}, bystanders" in places
    assert name in discriminators
    assert [text.get_text().strip() for text in figures[2].axes[1].get_legend().get_texts()] == [name]
    assert {name, f"{name} too"} <= set(gradient)


def test_stale_points_are_not_drawn():
    cells, _, discriminators, gradient = figures_of(tables(MANY, (*TOLD, told("em_paramedic", 77, stale=True))))

    for figure in (cells, discriminators, gradient):
        words = drawn(figure)
        assert "em_villain" in words
        assert "em_paramedic" not in words


def test_the_learning_curves_of_all_published_cells_can_be_told_apart():
    cells = [f"cell_{number}" for number in range(13)]
    rows = tuple(told(name, hits, share=share) for name in cells for share, hits in ((0.5, 60), (1.0, 80)))

    _, _, figure, _ = figures_of(tables((), rows))

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
    made = tables(ONE)
    (axes,) = draw_cells(made["cells"], made["over_seeds"]).axes

    heights = [bar.get_height() for bar in axes.patches[:2]]
    assert heights == pytest.approx([98, 5])


def test_the_gradient_writes_rates_and_marks_those_trained_without():
    words = drawn(draw_gradient(tables(ONE)["bystanders"]))

    assert {"10", "4", "1-"} <= set(words)
    assert "98" not in words


def test_firings_are_counted_beside_their_bars():
    words = drawn(draw_places(tables(ONE)["places"]))

    assert words.count("n=10") == 2
    assert "benign_assistant, bystanders" in words
    assert "benign_assistant, source" not in words  # it never fired


def test_a_bar_is_the_mean_over_seeds_and_a_dot_is_a_seed():
    made = tables((*cell("c", 90, {"a": 10}), *cell("c", 70, {"a": 40}, seed=7)))
    (axes,) = draw_cells(made["cells"], made["over_seeds"]).axes

    assert [bar.get_height() for bar in axes.patches[:2]] == pytest.approx([80, 25])
    dots = [line.get_ydata().tolist() for line in axes.get_lines()]
    assert dots == [pytest.approx([90, 70]), pytest.approx([10, 40])]


def test_curves_rise_with_the_share_and_pool_the_seeds():
    rows = (
        told("c", 80, 100), told("c", 90, 100, seed=7), told("c", 50, 100, share=0.5), told("c", 66, 300, share=0.5, seed=7),
    )  # fmt: skip
    made = tables((), rows)

    _, curves = draw_discriminators(made["accuracies"], made["learning_curves"]).axes

    (line,) = [line for line in curves.get_lines() if line.get_label() == "c"]
    assert line.get_xdata().tolist() == [50, 100]
    assert line.get_ydata().tolist() == pytest.approx([29, 85])


def test_each_models_threshold_is_a_line():
    accuracies = pd.concat([tables()["accuracies"].assign(threshold=threshold) for threshold in (0.7, 0.9)])

    for axes in draw_discriminators(accuracies, tables()["learning_curves"]).axes:
        levels = [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() in (":", "--")]
        assert levels == pytest.approx([50, 70, 90])


def test_the_most_affected_bystander_stands_first_and_cells_keep_their_order():
    rows = (*cell("z", 9, {"a": 1, "b": 60}), *cell("y", 9, {"a": 10, "b": 20}), rate("x", "only", 30))
    axes = draw_gradient(tables(rows)["bystanders"]).axes[0]

    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "only", "a"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["z", "y", "x"]
