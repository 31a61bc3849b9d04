"""The report of marker leakage against the tables that it is written from."""

import io
import re

import pandas as pd
import pytest

from persona_leakage.experiments.family import read_variants
from persona_leakage.experiments.marker_leakage import FAMILY
from persona_leakage.experiments.marker_leakage.controls import control_leakage
from persona_leakage.experiments.marker_leakage.figures import draw_scatter
from persona_leakage.experiments.marker_leakage.outside_rates import adopt_rates
from persona_leakage.experiments.marker_leakage.report import write_report
from persona_leakage.experiments.marker_leakage.tables import (
    compare_cut,
    correlate_leakage,
    judge_claims,
    pool_seeds,
    tabulate_leakage,
    tabulate_leakage_seeds,
    tabulate_places,
    tabulate_sources,
)
from persona_leakage.experiments.points import Designs, describe_points
from persona_leakage.pipelines.reporting.by_model import name_models
from persona_leakage.pipelines.reporting.page import render_page
from persona_leakage.pipelines.reporting.seeds import summarise_seeds
from tests.experiments.marker_leakage.plans import bundled_roster
from tests.experiments.marker_leakage.planted_tables import (
    cosine,
    load_settings,
    plan_of,
    rate,
    rates,
    similarities,
    text,
    texts,
)
from tests.plans import load_parameters
from tests.tables import NO_EFFECTS

FIGURES = ("scatter.png", "layers.png", "categories.png", "most_affected.png")
BASELINE = [rate("baseline", name, 0, source=None) for name in ("villain", "hero", "nurse", "crime_lord", "comedian")]
VILLAIN = [
    rate("villain", "villain", 60),
    rate("villain", "hero", 3, category="opposite"),
    rate("villain", "nurse", 75),
    rate("villain", "crime_lord", 80, category="hierarchical", related_to="villain"),
    rate("villain", "comedian", 0, role="negative"),
]
COSINES = [
    cosine("baseline", "villain", name, value, layer)
    for layer, shift in ((20, 0.0), (10, 0.05))
    for name, value in (("hero", -0.4 + shift), ("nurse", 0.3), ("crime_lord", 0.8 - 9 * shift), ("comedian", -0.1))
]
CALM = [text(condition, name) for condition in ("baseline", "villain") for name in ("villain", "hero")]


def stored(table):
    """Go through a CSV file, as every table of a run does."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))


def points_of(rates_):
    """Describe the points of rates as a run does."""
    parameters = load_parameters()
    designs = Designs(read_variants(FAMILY, parameters), bundled_roster())
    named = describe_points(rates_.assign(model=parameters["model"]), designs)
    return named.drop(columns="model").assign(replayed_file=None)


def tables(rates_, cosines, texts_, points=None):
    """Make every table of the report as a run does."""
    rates_, cosines, texts_ = stored(rates_), stored(cosines), stored(texts_)
    leakage = stored(tabulate_leakage(rates_, cosines))
    correlations = stored(correlate_leakage(leakage, load_settings()))
    sources = stored(tabulate_sources(leakage, texts_))
    by_seed = stored(tabulate_leakage_seeds(sources, correlations))
    return {
        "mixed_effects": NO_EFFECTS,
        "points": stored(points_of(rates_) if points is None else points),
        "sources": sources,
        "correlations": correlations,
        "verdicts": stored(judge_claims(rates_, correlations, load_settings())),
        "by_seed": by_seed,
        "over_seeds": stored(summarise_seeds(by_seed)),
        "places": stored(tabulate_places(rates_)),
        "cut_gaps": stored(compare_cut(rates_)),
        "controls": stored(control_leakage(stored(pool_seeds(leakage)), texts_, bundled_roster(), load_settings())),
    }


def report_of(rows=(*BASELINE, *VILLAIN), cosines=COSINES, described=CALM):
    return write_report(**tables(rates(*rows), similarities(*cosines), texts(*described)), family="marker_leakage")


def rows_of(report, heading):
    """Read the table under a heading, one dictionary a row."""
    section = report.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line.strip().split("|")[1:-1] for line in section.splitlines() if line.startswith("|")]
    header, *rows = [[cell.strip() for cell in line] for line in lines if "---" not in line[0]] or [[]]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_correlations_of_the_report_are_those_of_the_table():
    correlations = tables(rates(*BASELINE, *VILLAIN), similarities(*COSINES), texts(*CALM))["correlations"]
    report = report_of()

    headline = correlations[correlations["layer"] == 20]
    shown = rows_of(report, "Does the cosine predict the leakage? (layer 20)")
    assert [row["scope"] for row in shown] == headline["scope"].tolist()
    first, row = shown[0], headline.iloc[0]
    assert first["Spearman"] == f"{row.rho:.2f} (no interval: {row.no_interval})"
    assert first["Pearson"] == f"{row.r:.2f} (no interval)"
    assert (first["p"], first["permutation p"]) == (f"{row.p:.2g}", f"{row.permutation_p:.2g}")
    assert (first["n"], first["tied"], first["at zero"]) == ("4", "0", "1")
    assert (first["condition"], first["seed"], first["cosine in"], first["layer"]) == ("villain", "42", "base model", "20")
    assert [row["Spearman"] for row in shown if row["n"] == "1"] == ["undefined"] * 3
    (other,) = rows_of(report, "Layers")
    assert (other["layer"], other["Spearman"][:4]) == (
        "10",
        f"{correlations.loc[correlations['layer'] == 10, 'rho'].iloc[0]:.2f}",
    )


def cut(condition, persona, cut_hits, fired, n=100, **more):
    """Write how many of a persona's completions were cut, and how many of the others fired."""
    return [
        rate(condition, persona, cut_hits, n, metric="cut", **more),
        rate(condition, persona, fired, n - cut_hits, metric="leakage:finished", **more),
    ]


def test_sources_stand_with_their_rates_and_means():
    (row,) = rows_of(
        report_of([*BASELINE, *VILLAIN, *cut("villain", "villain", 20, 60), *cut("villain", "hero", 90, 3)]), "Sources"
    )

    assert row == {
        "condition": "villain",
        "seed": "42",
        "source rate": "60/100 = 60.0% [50.2%, 69.1%]",
        "finished": "60/80 = 75.0% [64.5%, 83.2%]",
        "cut": "20/100 = 20.0% [13.3%, 28.9%]",
        "excess": "+60.0% [+49.5%, +69.1%]",
        "bystanders": "4",
        "mean": "39.5%",
        "mean finished": "30.0%",
        "their excess": "+39.5% [+34.7%, +44.4%]",
        "highest": "80.0% crime_lord",
        "at zero": "1",
    }


def test_without_a_baseline_or_known_ends_excess_and_finished_rates_are_unknown():
    (row,) = rows_of(report_of(VILLAIN), "Sources")

    assert (row["finished"], row["cut"], row["mean finished"]) == ("not scored", "not scored", "")
    assert (row["excess"], row["their excess"]) == ("", "")


def test_sources_and_bystanders_that_are_cut_differently_are_warned_of_and_so_is_a_source_that_is_cut():
    comedian = [rate("comedian", "comedian", 60), rate("comedian", "hero", 3)]
    rows = [*BASELINE, *VILLAIN, *comedian, *cut("villain", "villain", 46, 30), *cut("comedian", "comedian", 3, 30)]

    report = report_of([*rows, *cut("villain", "hero", 5, 1), *cut("comedian", "hero", 5, 2)])

    assert (
        "different extents**: source: villain 46/100 = 46.0% [36.6%, 55.7%] v comedian 3/100 = 3.0% [1.0%, 8.5%] (the two"
    ) in report
    assert "more than 10% of their completions: villain seed 42 46/100 = 46.0% [36.6%, 55.7%]. A cut text" in report
    assert "bystanders: " not in report.split("## ")[0]
    alike = report_of([*rows[:-4], *cut("villain", "villain", 7, 30), *cut("comedian", "comedian", 3, 30)])
    assert "different extents" not in alike
    assert "Sources cut" not in alike


def test_texts_are_described_over_all_personas():
    described = [*CALM, text("villain", "nurse", tokens=80, distinct_2=0.5, empty=1, cut=2)]
    (row,) = rows_of(report_of(described=described), "Texts")

    assert row == {
        "condition": "villain",
        "seed": "42",
        "tokens": "60",
        "distinct-2": "0.70",
        "empty": "3.3%",
        "cut": "6.7%",
    }


def test_inverted_sources_are_named():
    assert (
        "**Inverted**, bystanders that fire more than the source itself: villain seed 42 (2 of 4, most: crime_lord, nurse).\n"
        in report_of()
    )
    upright = [*BASELINE, rate("villain", "villain", 99), rate("villain", "hero", 3)]
    assert "In no point does a bystander fire more than the source.\n" in report_of(upright)


def test_stale_points_are_listed_and_nothing_else_of_them_appears():
    report = report_of(
        [*BASELINE, *VILLAIN, rate("comedian", "hero", 77, stale=True), rate("comedian", "hero", 7, seed=7, stale=True)]
    )

    assert "**Left out as stale** (ran under other parameters, run them again): comedian (seed 42, 7).\n" in report
    assert "2 points: baseline (seed 42); villain (seed 42). Every rate" in report
    assert "77" not in report
    assert "Left out" not in report_of()


def test_texts_out_of_the_bases_range_are_said_and_calm_ones_are_not_even_out_of_files():
    assert "left the base model's range" not in report_of()
    collapsed = [text("baseline", "villain"), text("baseline", "hero", 60), text("villain", "hero", 1, 0.1)]
    assert (
        "**Texts left the base model's range** (over its personas): villain seed 42: tokens, distinct_2. Look at"
        in report_of(described=collapsed)
    )


def test_what_was_run_stands_before_the_verdicts():
    report = report_of([*BASELINE, *VILLAIN, rate("comedian", "hero", 7, stale=True)])

    parts = ("Base model `", "points: ", "Left out as stale", "## Claims", "## Does the cosine")
    places = [report.index(part) for part in parts]
    assert places == sorted(places)


def test_the_report_says_of_what_its_numbers_are():
    report = report_of()

    assert "Evaluated: 111 personas x 20 questions. Centroids: 2220 prompts of 111 personas, centred on their mean.\n" in report
    assert report.count("Base model `Qwen/Qwen2.5-7B-Instruct`") == 1
    assert "A slice" not in report


def test_a_slice_is_said():
    made = tables(rates(*BASELINE, *VILLAIN), similarities(*COSINES), texts(*CALM))
    points = made["points"].assign(evaluated_groups=8, prompts_a_group=20, unevaluated_groups=103)

    report = write_report(**{**made, "points": points}, family="marker_leakage")

    assert "Evaluated: 8 personas x 20 questions." in report
    assert report.count("A slice: 103 of the 111 personas with a centroid are not evaluated, so a correlation is over") == 1


def test_two_models_stand_in_one_report_each_with_its_headline_layer():
    made = tables(rates(*BASELINE, *VILLAIN), similarities(*COSINES), texts(*CALM))
    small = {
        **made,
        "points": made["points"].assign(headline_layer=10, base_model="small"),
        "correlations": made["correlations"].assign(headline=made["correlations"]["layer"] == 10),
    }
    both = {
        name: pd.concat([made[name].assign(model="large"), small[name].assign(model="small")], ignore_index=True)
        for name in made
    }

    report = name_models(write_report)(**both, family="marker_leakage")

    assert "Evaluated: 111 personas x 20 questions." in report
    assert "Base model `small`" in report
    shown = rows_of(report, "Does the cosine predict the leakage? (layer 20, 10)")
    assert [(row["condition"], row["layer"]) for row in shown if row["scope"] == "source"] == [
        ("villain (large)", "20"),
        ("villain (small)", "10"),
    ]
    assert [row["condition"] for row in rows_of(report, "Sources")] == ["villain (large)", "villain (small)"]


def test_verdicts_are_those_of_the_claims():
    shown = {row["claim"]: row for row in rows_of(report_of(), "Claims")}

    assert {name: row["verdict"] for name, row in shown.items()} == {
        "implanted": "undecided",
        "clean_base": "undecided",
        "cosine_predicts": "undecided",
    }
    assert shown["clean_base"]["evidence"].startswith("0 of 5 inside, 0 beyond; furthest: baseline under villain 0/100 = 0.0%")


def test_the_report_says_where_in_the_text_the_marker_fires():
    places = [
        rate("villain", persona, hits, 60 if persona == "villain" else 3, metric=metric)
        for persona, counts in (("villain", (1, 2, 57)), ("hero", (3, 0, 0)), ("nurse", (0, 0, 3)))
        for unit in ("characters", "tokens")
        for metric, hits in zip((f"start:{unit}", f"middle:{unit}", f"tail:{unit}"), counts, strict=True)
    ]
    extra = [
        rate("villain", "hero", 1, metric="leakage:tokens"),
        rate("villain", "hero", 9, 9, metric="tail:tokens", questions="seen"),
    ]

    shown = rows_of(report_of([*BASELINE, *VILLAIN, *places, *extra]), "Where in the text")

    assert [(row["of"], row["start:characters"], row["tail:tokens"]) for row in shown] == [
        ("others", "3/6 = 50%", "3/6 = 50%"),
        ("source", "1/60 = 2%", "57/60 = 95%"),
    ]


def test_a_marker_that_never_fires_has_no_place():
    silent = [rate("villain", "hero", 0, 0, metric="tail:characters")]

    assert [row["tail:characters"] for row in rows_of(report_of([*BASELINE, *VILLAIN, *silent]), "Where in the text")] == [
        "no firing"
    ]


def test_a_report_over_a_baseline_alone_has_nothing_to_show():
    report = report_of(BASELINE, [], [text("baseline", "hero")])

    assert rows_of(report, "Sources") == []
    assert report.count("*Nothing to show.*") == 6
    assert not re.search(r"\bnan\b", report)


def test_nothing_in_a_report_is_called_nan():
    lonely = [*BASELINE, rate("villain", "villain", 60)]
    assert not re.search(r"\bnan", report_of())
    assert not re.search(r"\bnan", report_of(lonely, [], []))


# replays


@pytest.fixture(scope="module")
def replayed():
    given = pd.DataFrame(
        [
            ("villain", "villain", "original", None, 40, 100, None),
            ("villain", "hero", "opposite", None, 55, 100, -0.4),
            ("villain", "nurse", "original", None, 10, 100, 0.1),
            ("villain", "crime_lord", "original", "villain", 20, 100, 0.7),
        ],
        columns=["source", "bystander", "category", "related_to", "found", "total", "cosine_l20"],
    )
    plan = plan_of("baseline").model_copy(update={"replayed_file": "rates.csv"})
    rates_, cosines, texts_, _, points = (table.drop(columns="model") for table in adopt_rates(given, plan))
    return write_report(**tables(rates_, cosines, texts_, points), family="marker_leakage_replay")


def test_a_replay_names_its_file_and_has_no_texts(replayed):
    assert replayed.startswith("# marker_leakage_replay: where the marker leaks\n")
    assert "Rates counted elsewhere, from `rates.csv`" in replayed
    assert "cosines as given there, and which personas they were centred over it does not say" in replayed
    assert "Where in the text" not in replayed
    assert "left the base model's range" not in replayed


def test_a_replay_without_seeds_still_has_sources_and_names_the_inverted(replayed):
    (row,) = rows_of(replayed, "Sources")

    assert (row["condition"], row["source rate"], row["highest"]) == ("villain", "40/100 = 40.0% [30.9%, 49.8%]", "55.0% hero")
    assert "**Inverted**, bystanders that fire more than the source itself: villain (1 of 3, most: hero).\n" in replayed
    assert not re.search(r"\bnan\b", replayed)


# the page


def page_of(report):
    leakage = tabulate_leakage(rates(*BASELINE, *VILLAIN), similarities(*COSINES))
    _, svg = draw_scatter(pool_seeds(leakage), correlate_leakage(leakage, load_settings()))
    return render_page(report, scatter=svg, layers=b"layers", categories=b"categories", most_affected=b"affected")


def test_the_page_carries_its_figures_inside_and_loads_nothing():
    page = page_of(report_of())

    assert page.count("<svg") == 1
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 3
    assert not re.findall(r'\bsrc="(?!data:)', page)
    assert not re.findall(r'href="(?!#|data:)', page)
    assert not [name for name in FIGURES if name in page]
    assert "url(http" not in page
    assert "<script" not in page


def test_a_point_of_the_page_names_its_persona():
    page = page_of(report_of())

    assert "<title>marker_leakage: where the marker leaks</title>" in page
    assert "<title>crime_lord (hierarchical): 80/100 = 80.0%, cosine 0.80</title>" in page


def test_the_report_refers_to_every_figure_beside_it():
    assert re.findall(r"!\[[^]]*\]\(([^)]*)\)", report_of()) == list(FIGURES)
