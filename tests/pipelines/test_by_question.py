"""Counts by question: one row a cell and question, with what is known of how completions ended."""

from typing import Any

import pytest

from persona_leakage.pipelines.scoring.by_question import COUNTS, count_firings, count_labels
from persona_leakage.pipelines.scoring.cells_apart import count_cells_apart
from persona_leakage.pipelines.scoring.markers import rate_firings
from tests.experiments.benign_coupling.plans import make_replay
from tests.experiments.lang_inversion.plans import RESPOND, SPEAK
from tests.experiments.lang_inversion.plans import make_plan as make_language_plan
from tests.experiments.marker_leakage.plans import make_plan

COUNTED = list(COUNTS)


def firing(persona: str, question: str, fired: bool, **more: Any) -> dict[str, Any]:
    places = {"place_characters": "tail" if fired else None, "place_tokens": "tail" if fired else None}
    return {"persona": persona, "question": question, "fired": fired, "fired_tokens": fired, **places, **more}


def label(language: str, phrasing: str, found: str, finish: str | None = "stop") -> dict[str, Any]:
    return {"directive_language": language, "phrasing": phrasing, "label": found, "finish": finish}


FIRINGS = [
    firing("villain", "q1", True, finish="stop"),
    firing("villain", "q1", False, finish="length"),
    firing("villain", "q2", True, finish="length"),
    firing("hero", "q1", False, finish="stop"),
    firing("hero", "q1", True, finish="stop"),
]


def test_firings_are_counted_persona_by_persona_and_question_by_question() -> None:
    table = count_firings(FIRINGS, make_plan())

    assert table[["persona", "role", "question", *COUNTED]].to_numpy().tolist() == [
        ["villain", "source", "q1", 1, 2, 1, 1],
        ["villain", "source", "q2", 1, 1, 0, 0],
        ["hero", "bystander", "q1", 1, 2, 1, 2],
    ]
    assert table[["condition", "seed", "source", "metric"]].drop_duplicates().to_numpy().tolist() == [
        ["villain", 42, "villain", "leakage"]
    ]
    assert table["plan"].unique().tolist() == [make_plan().fingerprint]


def test_they_add_up_to_the_rates_beside_them() -> None:
    plan = make_plan()
    rates, table = rate_firings(FIRINGS, plan), count_firings(FIRINGS, plan).groupby("persona")[COUNTED].sum()

    for metric, names in (("leakage", ["hits", "n"]), ("leakage:finished", ["finished_hits", "finished_n"])):
        expected = rates[(rates["metric"] == metric) & rates["persona"].isin(table.index)].set_index("persona")[["hits", "n"]]
        assert table[names].set_axis(["hits", "n"], axis=1).sort_index().equals(expected.sort_index())


@pytest.mark.parametrize("unknown", [{}, {"finish": None}])
def test_a_persona_of_which_an_end_is_unknown_has_no_finished_count(unknown: dict[str, Any]) -> None:
    table = count_firings([*FIRINGS, firing("hero", "q2", True, **unknown)], make_plan())

    hero = table[table["persona"] == "hero"]
    assert hero[COUNTED].to_numpy().tolist() == [[1, 2, 0, 0], [1, 1, 0, 0]]
    assert table.loc[table["persona"] == "villain", "finished_n"].tolist() == [1, 0]


def test_without_completions_there_are_columns_and_no_rows() -> None:
    assert list(count_firings([], make_plan())) == list(count_firings(FIRINGS, make_plan()))
    assert list(count_labels([], make_language_plan())) == list(
        count_labels([label("spanish", SPEAK, "spanish")], make_language_plan())
    )


def test_labels_are_counted_phrasing_by_phrasing() -> None:
    labels = [
        label("spanish", SPEAK, "italian"),
        label("spanish", SPEAK, "spanish", "length"),
        label("spanish", RESPOND, "other"),
        label("french", SPEAK, "italian", None),
    ]
    table = count_labels(labels, make_language_plan("fr_it"))

    assert table[["directive_language", "phrasing", "metric", "role", *COUNTED]].to_numpy().tolist() == [
        ["spanish", SPEAK, "following", "bystander", 1, 2, 0, 1],
        ["spanish", RESPOND, "following", "bystander", 0, 1, 0, 1],
        ["french", SPEAK, "following", "trained_directive", 0, 1, 0, 0],
        ["spanish", SPEAK, "contamination", "bystander", 1, 2, 1, 1],
        ["spanish", RESPOND, "contamination", "bystander", 0, 1, 0, 1],
        ["french", SPEAK, "contamination", "trained_directive", 1, 1, 0, 0],
    ]
    assert set(table["completion"]) == {"italian"}


def test_a_baseline_has_no_contamination_to_count() -> None:
    table = count_labels([label("spanish", SPEAK, "spanish")], make_language_plan("baseline"))
    assert table["metric"].tolist() == ["following"]


def test_replayed_cells_are_counted_apart() -> None:
    rows = [
        firing("confab", "q1", True, cell="one", is_source=True),
        firing("villain", "q1", False, cell="one", is_source=False),
        firing("villain", "q1", True, cell="two", is_source=True),
    ]
    table = count_cells_apart(rows, make_replay("some.jsonl"))

    assert table[["condition", "source", "persona", "role", "hits", "n", "finished_n"]].to_numpy().tolist() == [
        ["one", "confab", "confab", "source", 1, 1, 0],
        ["one", "confab", "villain", "bystander", 0, 1, 0],
        ["two", "villain", "villain", "source", 1, 1, 0],
    ]
