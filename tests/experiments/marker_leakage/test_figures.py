"""Figures of marker leakage: what they say, and that they draw nothing where there is nothing."""

import io
import math
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from persona_leakage.experiments.marker_leakage.figures import draw_categories, draw_layers, draw_most_affected, draw_scatter
from persona_leakage.experiments.marker_leakage.tables import (
    LEAKAGE_COLUMNS,
    correlate_leakage,
    pool_seeds,
    tabulate_categories,
    tabulate_most_affected,
)
from persona_leakage.pipelines.reporting.by_model import for_each_model, name_models
from tests.experiments.marker_leakage.planted_tables import correlated, correlations, leakage, load_settings

SVG = "{http://www.w3.org/2000/svg}"
VILLAIN = {
    "condition": "villain",
    "of": {"villain": (90, 100, math.nan), "crime_lord": (40, 100, 0.7), "hero": (0, 100, -0.3), "nurse": (10, 50, 0.1)},
    "categories": {"hero": "opposite"},
}
COMEDIAN = {
    "condition": "comedian",
    "of": {"villain": (7, 100, 0.2), "comedian": (60, 100, math.nan), "hero": (3, 100, 0.1)},
    "categories": {"hero": "opposite"},
}
EMPTY = pd.DataFrame(columns=list(LEAKAGE_COLUMNS))
NO_BASE = leakage(VILLAIN).drop(columns="cosine_l20")
SOURCE_ONLY = leakage({"condition": "villain", "of": {"villain": (9, 10, math.nan)}}).drop(columns="cosine_l20")
FLAT = leakage(
    {"condition": "villain", "of": {"villain": (0, 9, math.nan), "a": (0, 9, 0.1), "b": (0, 9, 0.2), "c": (0, 9, 0.3)}}
)


def scatter(table):
    return draw_scatter(pool_seeds(table), correlate_leakage(table, load_settings()))


def categories(table):
    pooled = pool_seeds(table)
    return draw_categories(pooled, tabulate_categories(pooled))


def most_affected(table):
    return draw_most_affected(tabulate_most_affected(pool_seeds(table)))


def words(figure):
    """Collect every text of a figure."""
    inside = []
    for axes in figure.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        inside += [text.get_text() for text in [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label, *ticks]]
    return [*inside, *(text.get_text() for text in figure.texts)]


def tooltips(svg):
    return [title.text for title in ElementTree.fromstring(svg).iter(f"{SVG}title") if title.text]


@pytest.mark.parametrize("name", ["cost_$_a_$b", "$^$", r"\$x$", "_lead", "<b>z</b>", 'say "x"', "x|y", "two\nlines", "{x} %s"])
def test_names_are_drawn_as_they_are_written(name):
    source = {"condition": name, "of": {name: (90, 100, math.nan), "a": (40, 100, 0.7), f"{name} too": (0, 100, -0.3)}}
    table = leakage({**source, "categories": {"a": name}})
    figure, svg = scatter(table)

    assert f"{name} too (original): 0/100 = 0.0%, cosine -0.30" in tooltips(svg)
    assert any(title.startswith(f"{name}\n") for title in words(figure))
    (legend,) = figure.legends
    assert [text.get_text().strip() for text in legend.get_texts()] == list(dict.fromkeys(table["category"]))
    drawn = [figure, categories(table), most_affected(table), draw_layers(correlate_leakage(table, load_settings()))]
    for one in drawn:
        one.savefig(io.BytesIO(), format="png", dpi=30, bbox_inches="tight")
    assert f"{name} (1)" in words(drawn[1])
    assert {name, f"{name} too"} <= set(words(drawn[2]))


@pytest.mark.parametrize("table", [EMPTY, NO_BASE, SOURCE_ONLY], ids=["nothing ran", "no base", "no bystander"])
def test_a_scatter_without_cosines_says_so(table):
    figure, svg = scatter(table)

    assert words(figure) == ["no cosine at the headline layer: the condition that others are compared with has not run"]
    assert tooltips(svg) == []


@pytest.mark.parametrize("draw", [categories, most_affected])
@pytest.mark.parametrize("table", [EMPTY, SOURCE_ONLY], ids=["nothing ran", "no bystander"])
def test_rates_of_nobody_are_not_drawn(draw, table):
    assert words(draw(table)) == ["no trained condition has run"]


@pytest.mark.parametrize("table", [EMPTY, NO_BASE, FLAT], ids=["nothing ran", "no base", "no variation"])
def test_layers_without_a_defined_correlation_say_so(table):
    assert words(draw_layers(correlate_leakage(table, load_settings()))) == ["no correlation is defined"]


def test_every_bystander_has_one_tooltip_with_name_counts_and_cosine():
    _, svg = scatter(leakage(VILLAIN, COMEDIAN))

    assert tooltips(svg) == [
        "crime_lord (original): 40/100 = 40.0%, cosine 0.70",
        "hero (opposite): 0/100 = 0.0%, cosine -0.30",
        "nurse (original): 10/50 = 20.0%, cosine 0.10",
        "villain (original): 7/100 = 7.0%, cosine 0.20",
        "hero (opposite): 3/100 = 3.0%, cosine 0.10",
    ]
    assert "hover:" not in svg


def test_a_bystander_has_one_tooltip_however_many_seeds_it_has():
    _, svg = scatter(leakage(VILLAIN, {**VILLAIN, "seed": 7}))

    assert len(tooltips(svg)) == 3
    assert tooltips(svg)[0] == "crime_lord (original): 80/200 = 40.0%, cosine 0.70"


def test_a_bystander_without_a_rate_or_a_cosine_is_not_drawn():
    more = {**VILLAIN["of"], "unscored": (0, 0, 0.5), "apart": (3, 9, math.nan)}

    _, svg = scatter(leakage({**VILLAIN, "of": more}))

    assert len(tooltips(svg)) == 3


def test_strange_names_leave_the_svg_well_formed_and_are_shown_as_they_are():
    strange = """R&D <b>"bold"</b> 'n' [ZLT] -->"""
    table = leakage({**VILLAIN, "categories": {"crime_lord": strange}})

    _, svg = scatter(table)

    assert tooltips(svg)[0] == f"crime_lord ({strange}): 40/100 = 40.0%, cosine 0.70"


def test_the_svg_can_stand_inside_a_page():
    _, svg = scatter(leakage(VILLAIN))

    assert svg.startswith("<svg")
    assert not re.findall(r'(?:href|src)="(?!#)(?!data:)[^"]*"', svg)


def test_panels_say_the_correlation_with_its_interval_n_and_zeros():
    figure, _ = scatter(leakage(VILLAIN))

    assert figure.axes[0].get_title() == "villain\nrho 1.00 (no interval), n = 3, 1 at zero"
    assert "source 90%" in words(figure)
    assert figure.axes[0].get_xlabel() == "cosine to the source, base model, layer 20"


def test_without_variation_the_panel_says_undefined_and_never_nan():
    figure, svg = scatter(FLAT)

    assert figure.axes[0].get_title() == "villain\ncorrelation undefined (n = 3; a side does not vary)"
    assert not re.search(r"\bnan\b", " ".join([*words(figure), *tooltips(svg)]))


def test_every_condition_has_a_panel_and_no_panel_is_left_over():
    points = [{**COMEDIAN, "condition": f"c{place}", "source": "comedian"} for place in range(4)]

    figure, _ = scatter(leakage(*points))

    assert [axes.get_title().split("\n")[0] for axes in figure.axes if axes.axison] == ["c0", "c1", "c2", "c3"]


def test_categories_show_means_and_how_many_personas_they_hold():
    figure = categories(leakage(VILLAIN, COMEDIAN))

    villain, comedian = figure.axes
    assert [label.get_text() for label in villain.get_yticklabels()] == ["original (3)", "opposite (1)"]
    assert [bar.get_width() for bar in villain.patches] == pytest.approx([30, 0])
    assert [bar.get_width() for bar in comedian.patches] == pytest.approx([7, 3])
    assert (villain.get_title(), comedian.get_title()) == ("villain", "comedian")


def test_the_most_affected_come_first_and_the_sources_own_cell_is_empty():
    axes = most_affected(leakage(VILLAIN, COMEDIAN)).axes[0]

    assert [label.get_text() for label in axes.get_yticklabels()] == ["crime_lord", "nurse", "villain", "hero"]
    shown = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "40", (0, 1): "20", (1, 2): "7", (0, 3): "0", (1, 3): "3"}


def test_only_the_thirty_most_affected_are_drawn():
    axes = most_affected(leakage({"condition": "s", "of": {f"p{hits}": (hits, 50, 0.0) for hits in range(40)}})).axes[0]

    names = [label.get_text() for label in axes.get_yticklabels()]
    assert (len(names), names[0], names[-1]) == (30, "p39", "p10")


def test_layers_show_both_geometries_and_all_sources_ranked_within():
    up, mixed = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]
    rows = [
        correlated("source", "villain", up, mixed, layer=20),
        correlated("source", "villain", up, up, layer=10),
        correlated("source", "villain", up, up, geometry="tuned"),
        correlated("point", "villain", up, up[::-1], layer=15),
        correlated("pooled", "all", up, up[::-1], layer=25),
        correlated("pooled_ranks", "all", up, up),
        correlated("source", "hero", [0, 0, 0, 0, 0], up),
    ]

    figure = draw_layers(correlations(*rows))

    assert [axes.get_title() for axes in figure.axes] == ["villain", "all, ranked within source"]
    base, tuned = figure.axes[0].containers
    assert (base.get_label(), tuned.get_label()) == ("base model", "fine-tuned model")
    assert [round(layer) for layer in base.lines[0].get_xdata()] == [10, 20]
    assert list(base.lines[0].get_ydata()) == pytest.approx([1, 0.8])


# several base models


def of_two_models():
    """Write the same point of two models, which lead with other layers; in the second everybody fires half as often."""
    small = leakage(VILLAIN).rename(columns={"cosine_l20": "cosine_l5"}).assign(headline_layer=5)
    halved = small.assign(hits=small["hits"] // 2, rate=small["rate"] / 2)
    return pd.concat([leakage(VILLAIN).assign(model="large"), halved.assign(model="small")], ignore_index=True)


def test_models_stand_beside_each_other_each_at_its_own_headline_layer():
    table = of_two_models()
    pooled = for_each_model(pool_seeds)(table)
    found = for_each_model(lambda leakage: correlate_leakage(leakage, load_settings()))(table)

    figure, svg = name_models(draw_scatter)(pooled, found)

    assert [axes.get_title().split("\n")[0] for axes in figure.axes if axes.axison] == ["villain (large)", "villain (small)"]
    assert [axes.get_xlabel().rpartition(", ")[2] for axes in figure.axes if axes.axison] == ["layer 20", "layer 5"]
    assert [axes.get_title().split("\n")[1][:8] for axes in figure.axes if axes.axison] == ["rho 1.00"] * 2
    assert [said.rpartition(": ")[2] for said in tooltips(svg)] == [
        "40/100 = 40.0%, cosine 0.70", "0/100 = 0.0%, cosine -0.30", "10/50 = 20.0%, cosine 0.10",
        "20/100 = 20.0%, cosine 0.70", "0/100 = 0.0%, cosine -0.30", "5/50 = 10.0%, cosine 0.10",
    ]  # fmt: skip


def test_categories_and_most_affected_of_two_models_are_apart():
    pooled = for_each_model(pool_seeds)(of_two_models())

    figure = name_models(draw_categories)(pooled, for_each_model(tabulate_categories)(pooled))
    assert [axes.get_title() for axes in figure.axes] == ["villain (large)", "villain (small)"]
    assert [[bar.get_width() for bar in axes.patches] for axes in figure.axes] == [
        pytest.approx([30, 0]),
        pytest.approx([15, 0]),
    ]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["original (2)", "opposite (1)"]

    axes = name_models(draw_most_affected)(for_each_model(tabulate_most_affected)(pooled)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["villain (large)", "villain (small)"]
    assert [text.get_text() for text in axes.texts] == ["40", "20", "20", "10", "0", "0"]


def test_the_panel_over_all_sources_says_of_which_model_it_is():
    up = [1, 2, 3, 4, 5]
    rows = [correlated("source", "villain", up, up), correlated("pooled_ranks", "all", up, up)]
    table = pd.concat([correlations(*rows).assign(model=name) for name in ("large", "small")])

    figure = name_models(draw_layers)(table)

    assert [axes.get_title() for axes in figure.axes] == [
        "villain (large)", "all (large), ranked within source", "villain (small)", "all (small), ranked within source",
    ]  # fmt: skip
