"""The report of coupling against the tables that it is written from."""

import re

import pandas as pd
import pytest

from persona_leakage.experiments.benign_coupling.report import write_report
from persona_leakage.pipelines.reporting.by_model import name_models
from persona_leakage.pipelines.reporting.page import render_page
from tests.experiments.benign_coupling.planted_tables import DESCRIBED, FIRED, MANY, ONE, TOLD, cell, rate, tables, text, told

SHOWN = (
    "points", "cells", "places", "replicates", "accuracies", "text_summaries", "by_seed", "over_seeds", "cut_gaps", "verdicts",
    "arm_comparisons", "extremes", "correlations", "mixed_effects",
)  # fmt: skip


def report_of(rows=MANY, told_apart=TOLD, described=DESCRIBED, family="benign_coupling", replayed_file=None):
    made = tables(rows, told_apart, described, replayed_file)
    return write_report(**{name: made[name] for name in SHOWN}, family=family)


def rows_of(report, heading):
    """Read the table under a heading, one dictionary a row."""
    section = report.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line.strip().split("|")[1:-1] for line in section.splitlines() if line.startswith("|")]
    header, *rows = [[entry.strip() for entry in line] for line in lines if "---" not in line[0]] or [[]]
    return [dict(zip(header, row, strict=True)) for row in rows]


# the report


def test_arms_stand_against_each_other_with_the_reason_where_something_is_not_known():
    shown = {said["arms"]: said for said in rows_of(report_of(), "Between arms")}

    assert list(shown) == ["benign v bare", "benign v wrong_advice", "bare v wrong_advice"]
    said = shown["benign v wrong_advice"]
    assert (said["means"], said["over"], said["no interval"]) == ("18.3% v 51.5%", "3 points v 2 designs", "")
    assert re.fullmatch(r"-33\.2% \[-\d+\.\d%, \+?-?\d+\.\d%\]", said["difference"])
    assert re.fullmatch(r"0\.36 \[\d\.\d\d, \d\.\d\d\]", said["ratio"])
    assert (shown["benign v bare"]["ratio"], shown["benign v bare"]["no interval"]) == (
        "the mean of bare is 0",
        "bare has one unit",
    )


def test_the_extremes_and_the_correlations_are_those_of_the_tables():
    made, shown = tables(MANY), rows_of(report_of(), "Bystanders")

    assert [said["persona"] for said in shown] == made["extremes"]["persona"].tolist()
    assert shown[1]["rate"] == "50/200 = 25.0% [19.5%, 31.4%]"  # 40 of 100 and, at the other seed, 10
    correlated = rows_of(report_of(), "Leakage and cosines")
    headline = made["correlations"][made["correlations"]["headline"]]
    assert [(said["to"] if "to" in said else said["cosine to"], said["of"]) for said in correlated] == [
        (row.to, {"coupled": "the model itself", "induced": "before coupling"}[row.geometry]) for row in headline.itertuples()
    ]
    assert {said["Spearman"] for said in correlated} == {"undefined"}  # of two bystanders and of one


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


def test_finished_rates_cut_shares_and_excess_stand_beside_and_arms_that_are_cut_differently_are_warned_of():
    def beside(condition, persona, raw, cut, **more):
        finished = rate(condition, persona, raw, 100 - cut, metric="leakage:finished", **more)
        return [rate(condition, persona, raw, **more), rate(condition, persona, cut, metric="cut", **more), finished]

    em = {"arm": "wrong_advice", "design": "e"}
    rows = [
        *[rate("uncoupled", name, 0, source=None, arm="none", design="u") for name in ("confab", "villain")],
        *beside("bare_villain", "confab", 38, 38), *beside("bare_villain", "villain", 10, 20),
        *beside("em_villain", "confab", 26, 52, **em), *beside("em_villain", "villain", 9, 22, **em),
    ]  # fmt: skip
    report = report_of(rows)

    uncoupled, benign, wrong = rows_of(report, "Finished completions, and excess")
    assert [row["trigger, finished"].split(" [")[0] for row in (benign, wrong)] == ["38/62 = 61.3%", "26/48 = 54.2%"]
    assert [row["bystanders, finished"].split(" [")[0] for row in (benign, wrong)] == ["10/80 = 12.5%", "9/78 = 11.5%"]
    assert (benign["trigger, cut"], benign["mean"]) == ("38/100 = 38.0% [29.1%, 47.8%]", "12.5%")
    assert (benign["trigger, excess"], benign["bystanders, excess"]) == ("+38.0% [+28.4%, +47.8%]", "+10.0% [+4.2%, +17.4%]")
    assert (uncoupled["bystanders, finished"], uncoupled["bystanders, excess"], uncoupled["mean"]) == ("not scored", "", "")
    warned = report.split("## Cells")[0]
    assert "different extents**: trigger: em_villain 52/100 = 52.0% [42.3%, 61.5%] v bare_villain 38/100 = 38.0% [" in warned
    assert "bystanders: " not in warned
    assert "of their completions: bare_villain seed 42 38/100" in warned
    assert "token limit to different" not in report_of()


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

    assert [(row["condition"], row["method"], row["accuracy"][:5], row["permutation p"]) for row in shown] == [
        ("benign_assistant", "classifier", "49/99", "0.63"),
        ("benign_assistant", "judge", "70/94", ""),
        ("em_villain", "classifier", "91/10", "0.0099"),
        ("em_assistant", "judge", "not s", ""),
    ]
    assert [row["unlabelled"] for row in shown] == ["0", "6", "0", "100"]
    assert [row["verdict"] for row in shown] == ["fail", "borderline", "pass", "undefined"]
    assert {row["threshold"] for row in shown} == {"70%, borderline within 5%"}


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
    assert report.replace(report.split("## Claims")[1].split("## Cells")[0], "").count("em_paramedic") == 1
    assert "77" not in report
    assert "Left out" not in report_of(ONE)


def test_the_head_counts_points_and_says_where_they_come_from():
    report = report_of()

    assert report.startswith("# benign_coupling: leakage of a coupled marker\n")
    assert "6 points: benign_assistant (seed 42); benign_villain (seed 42, 7); bare_villain (seed 42); " in report
    assert "10 completions a prompt at temperature 1.0, top_p 1.0, at most 512 tokens." in report


@pytest.mark.parametrize(
    ("rows", "told_apart", "described"),
    [(MANY, TOLD, DESCRIBED), (ONE, (), ()), (cell("c", 0, {}, 0), (), ()), ((), (), ())],
    ids=["many", "one", "nothing scored", "empty"],
)
def test_the_report_never_says_nan(rows, told_apart, described):
    assert not re.search(r"\bnan\b", report_of(rows, told_apart, described), re.IGNORECASE)


def test_without_anything_the_report_says_so():
    report = report_of((), (), ())

    assert report.count("*Nothing to show.*") == 6
    assert "0 points" in report


def test_the_page_holds_its_figures():
    figures = {"cells": b"1", "places": b"2", "discriminators": b"3", "gradient": b"4"}
    page = render_page(report_of(), **figures)

    assert page.count('src="data:image/png;base64,') == len(figures) == 4
    assert not re.findall(r'\bsrc="(?!data:)', page)
    places = [page.index(f"base64,{code}") for code in ("MQ==", "Mg==", "Mw==", "NA==")]
    assert places == sorted(places)


def test_a_replay_names_its_file_and_says_nothing_of_seeds():
    report = report_of(cell("E0", 5, {"a": 10}, arm="elsewhere"), (), (), "benign_coupling_replay", "some.jsonl")

    assert report.startswith("# benign_coupling_replay: leakage of a coupled marker\n")
    assert "Completions made elsewhere, last from `some.jsonl`." in report
    assert "1 point: E0 (seed 42)." in report
    assert "One seed a condition" not in report


def test_a_cell_called_all_is_told_from_the_row_of_all_designs():
    report = report_of((*cell("all", 5, {"a": 10}, design="all"), *cell("c", 5, {"a": 30}, design="c")), (), ())

    assert [row["pooled as"] for row in rows_of(report, "Replicates")] == ["", "", "different designs"]


def test_two_models_stand_beside_each_other():
    made = {name: tables()[name] for name in SHOWN}
    both = {name: pd.concat([table.assign(model=model) for model in ("small", "large")]) for name, table in made.items()}
    report = name_models(write_report)(**both, family="benign_coupling")

    assert "12 points: benign_assistant (small) (seed 42); " in report
    assert [row["condition"] for row in rows_of(report, "Cells")][::6] == [
        "benign_assistant (small)",
        "benign_assistant (large)",
    ]
    shown = rows_of(report, "Replicates")
    assert [row["model"] for row in shown] == ["small"] * 5 + ["large"] * 5
    assert len(rows_of(report, "Texts")) == 2
