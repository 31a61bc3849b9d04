"""Figures and report of trajectories against the tables that they are made from."""

import io
import math
import re
from functools import cache

import pandas as pd
import pytest

from persona_leakage.experiments.convergence.figures import draw_peaks, draw_trajectories
from persona_leakage.experiments.convergence.report import write_report
from persona_leakage.experiments.convergence.settings import NAME
from persona_leakage.experiments.convergence.tables import (
    average_texts,
    compare_cut,
    correlate_peaks,
    count_verdicts,
    judge_claims,
    pool_trajectory_seeds,
    summarise_trajectories,
    tabulate_text_ranges,
    tabulate_trajectories,
    tabulate_trajectory_seeds,
)
from persona_leakage.pipelines.reporting.by_model import name_models
from persona_leakage.pipelines.reporting.page import as_written, render_page, say_rates
from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from tests.experiments.convergence.planted_tables import (
    COSINES,
    EPOCHS,
    PUBLISHED,
    cosine,
    point,
    points_of,
    published,
    rate,
    rates,
    settings_with,
    similarities,
    stored,
    text,
    texts,
    trajectories,
    trajectory,
)
from tests.tables import NO_EFFECTS

FIGURES = ("trajectories.png", "peaks.png")
TITLES = (
    "Trajectories", "What became of each", "Does the cosine before pulling tell the peak?", "The sources themselves",
    "Over finished completions: the pulled persona", "Over finished completions: the sources",
)  # fmt: skip
CASES = {
    "nothing": [],
    "a baseline alone": trajectory("villain", {0: 3}, cosines=0.1),
    "a later epoch alone": trajectory("villain", {2: 3}, cosines=0.1),
    "no cosine": trajectory("villain", {0: 3, 2: 90}),
    "one": trajectory("villain", {0: 3, 2: 90}, cosines=-0.1),
    "flat zeros": trajectory("villain", {0: 0, 2: 0}, cosines=-0.1),
    "unscored": trajectory("villain", {0: 0, 2: 0}, 0, source=(0, 0), cosines=-0.1),
    "a cosine that is missing somewhere": [
        *trajectory("villain", {0: 3, 2: 90}, cosines={0: -0.1}),
        *trajectory("nurse", {0: 3, 2: 9}, cosines={2: 0.1}),
    ],
    "epochs that are missing somewhere": [
        *trajectory("villain", {0: 3, 4: 90}, cosines=-0.1),
        *trajectory("nurse", {2: 3}, cosines=0.3),
    ],
    "two seeds": [
        *trajectory("villain", {0: 3, 2: 90}, cosines=-0.1),
        *trajectory("villain", {0: 1, 2: 9}, 50, seed=7, cosines=-0.2),
        *trajectory("nurse", {0: 3, 2: 9}, cosines=0.3),
    ],
}


def tables(rows):
    """Make the tables of a run; `rows` are of trajectories, or a finished table."""
    table = rows if isinstance(rows, pd.DataFrame) else trajectories(*rows)
    summaries = stored(summarise_trajectories(table, settings_with(2)))
    by_seed = stored(tabulate_trajectory_seeds(table))
    return {
        "points": points_of(table),
        "pooled_trajectories": stored(pool_trajectory_seeds(table)),
        "summaries": summaries,
        "verdict_counts": stored(count_verdicts(summaries, settings_with())),
        "peak_correlations": stored(correlate_peaks(table, summaries, settings_with())),
        "by_seed": by_seed,
        "cut_gaps": stored(compare_cut(table)),
        "over_seeds": stored(summarise_seeds(by_seed)),
    }


@cache
def published_tables():
    return tables(published())


def made_of(rows, of_points=(), described=()):
    """Make every table that the report is given; the points are those of the trajectories, or of rates."""
    made = published_tables() if rows is published() else tables(rows)
    of_texts = stored(tabulate_text_ranges(texts(*described)))
    points = {"points": points_of(rates(*of_points))} if of_points else {}
    described = {"text_ranges": of_texts, "text_means": stored(average_texts(of_texts)), "mixed_effects": NO_EFFECTS}
    return made | points | described | {"verdicts": stored(judge_claims(rates(*of_points), settings_with(2)))}


def report_of(rows, of_points=(), described=()):
    return write_report(**made_of(rows, of_points, described), family=NAME)


def figures_of(rows):
    made = published_tables() if rows is published() else tables(rows)
    return draw_trajectories(made["pooled_trajectories"]), draw_peaks(made["summaries"], made["peak_correlations"])


def words(figure):
    """Collect every text of a figure."""
    inside = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        inside += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
    return [text.get_text() for text in inside if text.get_text()]


def png_of(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=40, bbox_inches="tight")
    return buffer.getvalue()


def rows_of(report, heading):
    """Read the table under a heading, one dictionary a row."""
    section = report.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line.strip().split("|")[1:-1] for line in section.splitlines() if line.startswith("|")]
    header, *rows = [[cell.strip() for cell in line] for line in lines if "---" not in line[0]] or [[]]
    return [dict(zip(header, row, strict=True)) for row in rows]


# figures


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("error")
def test_figures_of_few_points_are_drawn(name):
    for figure in figures_of(CASES[name]):
        assert png_of(figure)[:4] == b"\x89PNG"
        assert not any("nan" in said for said in words(figure))


def test_figures_of_nothing_say_so():
    assert [words(figure) for figure in figures_of([])] == [
        ["no checkpoint has run"],
        ["no condition has run from epoch 0 on"],
    ]


@pytest.mark.parametrize("name", ["a baseline alone", "a later epoch alone", "no cosine", "unscored"])
def test_no_peak_is_drawn_where_none_is_known(name):
    assert words(figures_of(CASES[name])[1]) == ["no condition has run from epoch 0 on"]


def test_every_trajectory_has_its_own_rates_and_cosines():
    figure, _ = figures_of(published())
    above, below = figure.axes

    solid = [line for line in above.lines if line.get_linestyle() == "-"]
    assert {line.get_label() for line in solid} == set(PUBLISHED)
    intervals = [collection.get_segments() for collection in above.collections]
    for place, (line, segments) in enumerate(zip(solid, intervals, strict=True)):
        # seven conditions share half of the two epochs between checkpoints
        assert line.get_xdata() == pytest.approx([epoch + (place - 3) / 7 for epoch in EPOCHS])
        for (at, low), (_, high), x, at_rate in ((*one, x, y) for one, x, y in zip(segments, *line.get_data(), strict=True)):
            assert at == x
            assert low <= at_rate <= high
        assert line.get_ydata() == pytest.approx(PUBLISHED[line.get_label()], abs=0.3)
    sources = [line for line in above.lines if line.get_linestyle() == ":"]
    assert [set(line.get_ydata()) for line in sources] == [{90.0}] * 7
    drawn = [line.get_ydata()[0] for line in below.lines if len(line.get_xdata()) == 11]
    assert sorted(drawn) == sorted(COSINES.values())
    assert "cosine to the source, layer 15" in words(figure)
    assert set(PUBLISHED) <= set(words(figure))


def test_two_seeds_are_one_trajectory():
    figure, _ = figures_of(CASES["two seeds"])
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines if line.get_linestyle() == "-"}

    assert {name: list(values) for name, values in drawn.items()} == {
        "villain": pytest.approx([100 * 4 / 250, 100 * 99 / 250]),
        "nurse": pytest.approx([1.5, 4.5]),
    }


def test_peaks_stand_over_the_cosine_before_pulling_with_their_verdicts():
    _, figure = figures_of(published())
    (axes,) = figure.axes
    drawn = {line.get_label().split(" (")[0]: (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines}

    assert drawn == {name: (COSINES[name], pytest.approx(max(PUBLISHED[name]), abs=0.1)) for name in PUBLISHED}
    said = words(figure)
    assert {"villain (increase)", "nurse (no change)", "software_engineer (decline)", "librarian (no change)"} <= set(said)
    assert any(re.fullmatch(r"Spearman -0\.34 \[.*\], p 0\.46, n = 7", text) for text in said)


def test_a_correlation_of_one_is_said_to_be_undefined():
    assert "Spearman undefined, n = 1" in words(figures_of(CASES["one"])[1])


# the report


def test_every_rate_of_the_report_is_that_of_the_table():
    report, pooled = report_of(published()), pool_trajectory_seeds(published())

    for title, prefix in (("Trajectories", ""), ("The sources themselves", "source_")):
        shown = rows_of(report, title)
        said = dict(
            zip(zip(pooled["condition"], pooled["checkpoint"], strict=True), say_rates(pooled, prefix=prefix), strict=True)
        )
        assert [int(row["epoch"]) for row in shown] == list(EPOCHS)
        assert {(name, int(row["epoch"])): row[name] for row in shown for name in PUBLISHED} == said
    assert rows_of(report, "Trajectories")[5]["villain"] == "439/600 = 73.2% [69.5%, 76.6%]"
    assert rows_of(report, "The sources themselves")[0]["nurse"].startswith("90/100 = 90.0% [")


def test_every_outcome_of_the_report_is_that_of_the_table():
    summaries = published_tables()["summaries"]
    shown = rows_of(report_of(published()), "What became of each")

    assert [(row["condition"], row["verdict"]) for row in shown] == list(
        zip(summaries["condition"], summaries["verdict"], strict=True)
    )
    for row, of in zip(shown, summaries.to_dict("records"), strict=True):
        assert row["baseline"] == f"{of['baseline']:.1%}"
        assert row["peak"] == f"{of['peak']:.1%} at {of['peak_checkpoint']}"
        assert row["final"] == f"{of['final']:.1%} at 20"
        assert row["of the peak early"] == f"{of['share_of_peak_early']:.0%}"
        assert row["of the rise early"] == f"{of['share_of_rise_early']:.0%}"
        assert row["final - baseline"] == f"{of['change']:+.1%} [{of['change_low']:+.1%}, {of['change_high']:+.1%}]"
        assert row["cosine (layer 15)"] == f"{of['cosine_l15']:.2f} to {of['cosine_l15_final']:.2f}, unchanged"


def test_the_count_is_of_pooled_and_complete_conditions():
    assert "4 of 7 increase (villain, medical_doctor, comedian, kindergarten_teacher).\n" in report_of(published())
    assert "1 of 2 increase (villain).\n" in report_of([*CASES["two seeds"], *trajectory("hero", {2: 190}, cosines=0.3)])
    assert "0 of 0 increase (none).\n" in report_of([])
    assert "0 of 1 increase (none).\n" in report_of(CASES["flat zeros"])


def test_the_correlation_of_the_report_is_that_of_the_table():
    peaks = published_tables()["peak_correlations"]
    (row,), (of,) = rows_of(report_of(published()), TITLES[2]), peaks.itertuples()

    assert row == {
        "layer": "15",
        "n": "7",
        "Spearman": f"{of.rho:.2f} [{of.low:.2f}, {of.high:.2f}]",
        "p": f"{of.p:.2g}",
        "conditions": as_written(", ".join(PUBLISHED)),
    }
    assert (row["Spearman"][:5], row["p"]) == ("-0.34", "0.46")


@pytest.mark.parametrize("name", CASES)
def test_nothing_in_a_report_is_called_nan(name):
    report = report_of(CASES[name])

    assert not re.search(r"\b(nan|None|NaT)\b", report)
    seeds = ["Seeds"] * (name == "two seeds")
    assert [line[3:] for line in report.splitlines() if line.startswith("## ")] == ["Claims", *TITLES, *seeds, "Texts"]


def test_what_has_not_run_or_was_not_scored_is_said_and_is_no_0():
    shown = rows_of(report_of(CASES["epochs that are missing somewhere"]), "Trajectories")
    assert [(row["epoch"], row["villain"] == "not run", row["nurse"] == "not run") for row in shown] == [
        ("0", False, True),
        ("2", True, False),
        ("4", False, True),
    ]
    assert [row["villain"] for row in rows_of(report_of(CASES["unscored"]), "Trajectories")] == ["not scored"] * 2
    (incomplete,) = rows_of(report_of(CASES["a later epoch alone"]), "What became of each")
    assert {key: value for key, value in incomplete.items() if value} == {
        "condition": "villain",
        "seed": "42",
        "verdict": "incomplete",
    }


def test_shares_of_flat_zeros_are_blank():
    (row,) = rows_of(report_of(CASES["flat zeros"]), "What became of each")

    assert (row["peak"], row["of the peak early"], row["of the rise early"]) == ("0.0% at 0", "", "")


def test_every_seed_has_its_row_under_the_one_for_all():
    shown = rows_of(report_of(CASES["two seeds"]), "What became of each")

    assert [(row["condition"], row["seed"], row["peak"]) for row in shown] == [
        ("villain", "all", "39.6% at 2"),
        ("nurse", "42", "4.5% at 2"),
        ("villain", "42", "45.0% at 2"),
        ("villain", "7", "18.0% at 2"),
    ]


def test_a_cosine_that_is_missing_at_the_end_has_no_direction():
    shown = rows_of(report_of(CASES["a cosine that is missing somewhere"]), "What became of each")

    assert [row["cosine (layer 15)"] for row in shown] == ["-0.10 to unknown", ""]


def test_stale_points_are_counted_and_nothing_else_of_them_appears():
    points = [
        *point("villain", 0, (90, 3)),
        *point("villain", 2, (90, 77), stale=True),
        *point("nurse", 2, (90, 77), stale=True),
        *point("nurse", 2, (90, 77), stale=True, seed=7),
    ]
    report = report_of(tabulate_trajectories(rates(*points), similarities()), points)

    assert "**3 points left out as stale** (ran under other parameters, run them again).\n" in report
    assert "1 points (condition x seed x epoch)" in report
    assert "77" not in report
    assert "nurse" not in report.split("## Trajectories")[1]  # a claim may name what has not run
    assert "stale" not in report_of(published(), point("villain", 0, (90, 3)))


def test_the_report_begins_with_what_was_run():
    report = report_of(published())

    assert report.startswith("# convergence: leakage while one persona is pulled towards another\n")
    assert "Base model `Qwen/Qwen2.5-7B-Instruct` (" in report
    assert (
        "10 completions a prompt at temperature 1.0, top_p 1.0, at most 512 tokens. 20 questions a persona. 77 points "
        "(condition x seed x epoch)" in report
    )


def test_the_report_from_rates_to_page():
    points = [*point("villain", 0, (95, 0, 1)), *point("villain", 2, (95, 40, 1)), *point("villain", 4, (95, 12, 1))]
    cosines = [cosine("villain", epoch, "assistant", "villain", value) for epoch, value in ((0, -0.36), (2, 0.2), (4, 0.5))]
    report = report_of(stored(tabulate_trajectories(rates(*points), similarities(*cosines))), points)

    (row,) = rows_of(report, "What became of each")
    assert (row["peak"], row["final"], row["verdict"]) == ("40.0% at 2", "12.0% at 4", "increase")
    assert row["cosine (layer 15)"] == "-0.36 to 0.50, rises"


# the page


def test_the_page_carries_its_figures_inside_and_loads_nothing():
    trajectories_figure, peaks_figure = (png_of(figure) for figure in figures_of(published()))
    page = render_page(report_of(published()), trajectories=trajectories_figure, peaks=peaks_figure)

    assert len(re.findall(r'<img src="data:image/png;base64,iVBOR', page)) == 2
    assert not re.findall(r'\bsrc="(?!data:)', page)
    assert not re.findall(r'href="(?!#|data:)', page)
    assert not [name for name in FIGURES if name in page]
    assert "<script" not in page
    assert "<title>convergence: leakage while one persona is pulled towards another</title>" in page
    assert "439/600 = 73.2%" in page


def test_every_figure_stands_in_its_own_place():
    page = render_page(report_of(published()), trajectories=b"first", peaks=b"second")

    places = [page.index(part) for part in ("<h2>Trajectories", "Zmlyc3Q=", "<h2>Does the cosine", "c2Vjb25k")]
    assert places == sorted(places)


def test_the_report_refers_to_every_figure_beside_it():
    assert re.findall(r"!\[[^]]*\]\(([^)]*)\)", report_of(published())) == list(FIGURES)


def test_texts_that_leave_the_range_of_epoch_0_are_said_and_calm_ones_are_not():
    calm = [text("villain", 0, 40.0, "a"), text("villain", 0, 60.0, "b"), text("villain", 2, 50.0, "a")]

    assert "Texts left" not in report_of(CASES["one"], described=calm)
    collapsed = report_of(CASES["one"], described=[*calm, text("villain", 4, 5.0, "a", distinct_2=0.1, empty=9)])
    said = "villain seed 42 epoch 4: tokens, distinct_2, empty"
    assert f"**Texts left the range of epoch 0** (over its personas, same seed): {said}." in collapsed
    assert [(row["epoch"], row["villain"]) for row in rows_of(collapsed, "Texts")] == [
        ("0", "50, 0.80, 0.0%, 0.0%"),
        ("2", "50, 0.80, 0.0%, 0.0%"),
        ("4", "5, 0.10, 90.0%, 0.0%"),
    ]


def test_what_is_not_known_of_texts_is_said_to_be_unknown():
    report = report_of(CASES["one"], described=[text("villain", 0, math.nan, distinct_2=math.nan, cut=None)])

    assert rows_of(report, "Texts") == [{"epoch": "0", "villain": "unknown, unknown, 0.0%, unknown"}]
    beside = "Over finished completions: the pulled persona"
    assert rows_of(report, beside)[0] == {"epoch": "0", "villain": "not scored; cut not scored"}


def test_finished_rates_stand_beside_the_raw_ones_and_epochs_that_are_cut_differently_are_warned_of():
    def beside(epoch, persona, raw, cut):
        finished = rate("villain", epoch, persona, raw, 100 - cut, metric="leakage:finished")
        return [rate("villain", epoch, persona, raw), rate("villain", epoch, persona, cut, metric="cut"), finished]

    rows = [
        row
        for epoch, own, cut in ((0, 27, 34), (2, 14, 67))
        for row in (*beside(epoch, "villain", own, cut), *beside(epoch, "assistant", 5, 4))
    ]
    report = report_of(stored(tabulate_trajectories(rates(*rows), similarities())), rows)

    shown = rows_of(report, "Over finished completions: the sources")
    assert [row["villain"].split(" [")[0] for row in shown] == ["27/66 = 40.9%", "14/33 = 42.4%"]
    assert [row["villain"].split("; cut ")[1].split(" [")[0] for row in shown] == ["34/100 = 34.0%", "67/100 = 67.0%"]
    warned = report.split("## Trajectories")[0]
    assert "different extents**: villain, source: epoch 2 67/100 = 67.0% [57.3%, 75.4%] v epoch 0 34/100 = 34.0% [" in warned
    assert "pulled:" not in warned
    assert "of their completions: villain epoch 0 34/100 = 34.0% [25.5%, 43.7%]; villain epoch 2 67/100" in warned
    assert "Sources cut" not in report_of(CASES["one"])


def test_seeds_are_shown_apart_with_their_mean_and_the_change_of_each():
    rows = rows_of(report_of(CASES["two seeds"]), "Seeds")

    villain = [row for row in rows if row["condition"] == "villain"]
    assert [(row["checkpoint"], row["quantity"], row["seed 42"], row["seed 7"]) for row in villain] == [
        ("0", "pulled", "1.5%", "2.0%"),
        ("2", "pulled", "45.0%", "18.0%"),
        ("2", "change since epoch 0", "+43.5%", "+16.0%"),
    ]
    assert "mean over seeds 31.5% [" in rows_of(report_of(CASES["two seeds"]), "Trajectories")[1]["villain"]
    assert "One seed a condition: the interval of a rate is within one run." in report_of(CASES["one"])


# two base models

IN_B = trajectory("villain", {0: 0, 2: 8}, cosines=0.4)
TWO = {
    "a": [*trajectory("villain", {0: 3, 2: 90}, cosines=-0.1), *trajectory("nurse", {0: 3, 2: 5}, cosines=0.2)],
    "b": [{**row, "headline_layer": 2, "cosine_l2": row["cosine_l15"], "cosine_l15": None} for row in IN_B],
}


def both_models():
    """Put the tables of two models with different headline layers below each other, as a run does."""
    apart = {model: made_of(rows) for model, rows in TWO.items()}
    return {
        name: pd.concat([made[name].assign(model=model) for model, made in apart.items()], ignore_index=True)
        for name in apart["a"]
    }


def test_two_models_stand_in_one_report_each_with_its_own_layer():
    report = name_models(write_report)(**both_models(), family=NAME)

    shown = rows_of(report, "What became of each")
    assert [(row["condition"], row["peak"], row["cosine"], row["layer"]) for row in shown] == [
        ("villain (a)", "45.0% at 2", "-0.10 to -0.10, unchanged", "15"),
        ("nurse (a)", "2.5% at 2", "0.20 to 0.20, unchanged", "15"),
        ("villain (b)", "4.0% at 2", "0.40 to 0.40, unchanged", "2"),
    ]
    assert "a: 1 of 2 increase (villain).\nb: 1 of 1 increase (villain).\n" in report
    assert [(row["model"], row["layer"], row["n"]) for row in rows_of(report, TITLES[2])] == [("a", "15", "2"), ("b", "2", "1")]
    assert list(rows_of(report, "Trajectories")[0]) == ["epoch", "villain (a)", "nurse (a)", "villain (b)"]
    assert not re.search(r"\b(nan|None|NaT)\b", report)


def test_two_models_stand_in_one_figure_each_with_its_own_cosines():
    made = both_models()
    trajectories_figure = name_models(draw_trajectories)(made["pooled_trajectories"])
    peaks_figure = name_models(draw_peaks)(made["summaries"], made["peak_correlations"])

    below = [list(line.get_ydata()) for line in trajectories_figure.axes[1].lines if len(line.get_xdata()) == 2]
    assert [-0.1, -0.1] in below
    assert [0.4, 0.4] in below
    assert "cosine to the source, layer 15 or 2" in words(trajectories_figure)
    (axes,) = peaks_figure.axes
    drawn = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines}
    assert drawn == {
        "villain (a) (increase)": (-0.1, pytest.approx(45)),
        "nurse (a) (no change)": (0.2, pytest.approx(2.5)),
        "villain (b) (increase)": (0.4, pytest.approx(4)),
    }
    assert axes.get_title() == "a: Spearman undefined, n = 2\nb: Spearman undefined, n = 1"
