"""Controls of "the cosine predicts the leakage": known drivers, and what is left out where it is unknown."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from persona_leakage.experiments.marker_leakage.controls import ALL, CONTROL_COLUMNS, CONTROLS, compare_prompts, control_leakage
from persona_leakage.experiments.marker_leakage.tables import pool_seeds
from tests.experiments.marker_leakage.plans import bundled_roster
from tests.experiments.marker_leakage.planted_tables import leakage, load_settings, text, texts

ROSTER = bundled_roster()
PERSONAS = [one.persona for one in ROSTER.personas][:60]
SOURCES = PERSONAS[:5]


def study(driver, sources=SOURCES, seed=0, **more):
    """Plant leakage by `driver(source, persona, cosine)`, and a cosine that follows the prompts' likeness."""
    random = np.random.default_rng(seed)
    points = []
    for source in sources:
        of = {source: (900, 1000, math.nan)}
        for persona in PERSONAS:
            if persona != source:
                cosine = LIKE[source, persona] + random.normal(0, 0.25)
                of[persona] = (int(np.clip(driver(source, persona, cosine) + random.normal(0, 20), 0, 1000)), 1000, cosine)
        points.append({"condition": source, "of": of, **more})
    return points


def likenesses():
    """Compare the prompts, scaled to vary by 1 within a source."""
    likeness = compare_prompts({one.persona: one.prompt for one in ROSTER.personas})
    of = {source: {name: likeness[source, name] for name in PERSONAS if name != source} for source in SOURCES}
    return {(source, name): value / np.std(list(row.values())) for source, row in of.items() for name, value in row.items()}


LIKE = likenesses()


def controlled(points, described=None, settings=None):
    table = control_leakage(
        pool_seeds(leakage(*points)), texts() if described is None else described, ROSTER, settings or load_settings()
    )
    return table.set_index(["scope", "condition", "control"])


def by_words(source, persona, cosine):
    return 300 + 100 * LIKE[source, persona]


def by_cosine(source, persona, cosine):
    return 400 + 100 * cosine


def test_leakage_by_the_prompts_words_alone_leaves_nothing_to_the_cosine():
    found = controlled(study(by_words))

    for scope, condition in [("source", source) for source in SOURCES] + [("pooled_ranks", "all")]:
        row, every = found.loc[(scope, condition, "lexical")], found.loc[(scope, condition, ALL)]
        assert row["rho"] > 0.8
        assert row["low"] > 0.6
        assert row["control_rho"] > 0.9
        assert abs(row["partial_rho"]) < 0.3
        assert row["partial_low"] < 0 < row["partial_high"]
        assert every["given"] == "lexical, length, elsewhere"
        assert abs(every["partial_rho"]) < 0.3
    assert found.loc[("pooled_ranks", "all", "lexical"), "n"] == 5 * 59


def test_leakage_by_the_cosine_stays_when_the_words_are_given():
    found = controlled(study(by_cosine))

    for source in SOURCES:
        row = found.loc[("source", source, ALL)]
        assert row["partial_rho"] > 0.6
        assert row["partial_low"] > 0.4
        assert row["partial_p"] < 0.001


def test_a_row_is_over_the_bystanders_whose_control_is_known():
    cut = [text(source, name, cut=place % 7, n=10) for source in SOURCES for place, name in enumerate(PERSONAS)]
    described = texts(*cut[1:5], *cut[60:])  # of four bystanders of the first source, and of all others

    found = controlled(study(by_cosine), described)

    first, second = (found.loc[("source", source, "cut")] for source in SOURCES[:2])
    assert (first["n"], second["n"]) == (4, 59)
    assert found.loc[("source", SOURCES[0], ALL), "given"] == "lexical, length, elsewhere"
    assert found.loc[("source", SOURCES[1], ALL), "given"] == "lexical, length, cut, elsewhere"
    rows = leakage(*study(by_cosine))
    rows = rows[(rows["condition"] == SOURCES[1]) & (rows["role"] != "source")]
    cuts = [PERSONAS.index(name) % 7 for name in rows["persona"]]
    assert second["control_rho"] == pytest.approx(spearmanr(rows["rate"], cuts).statistic)


def test_how_texts_ended_is_unknown_where_any_seed_does_not_say():
    described = texts(
        *[text(SOURCES[0], name, cut=3) for name in PERSONAS], text(SOURCES[0], PERSONAS[7], cut=math.nan, seed=7)
    )

    found = controlled(study(by_cosine, SOURCES[:1]), described)

    assert found.loc[("source", SOURCES[0], "cut"), "n"] == 58


def test_a_control_that_is_unknown_everywhere_has_n_0_and_nothing_else():
    strangers = [{"condition": "x", "of": {"x": (9, 10, math.nan), **{f"s{n}": (n, 20, n / 20) for n in range(12)}}}]

    found = controlled(strangers)

    assert found["n"].tolist() == [0] * (len(CONTROLS) + 1)
    assert found[["rho", "control_rho", "partial_rho", "partial_p"]].isna().all(axis=None)


def test_elsewhere_is_the_mean_under_other_sources_of_the_study():
    """Follow-ups neither count nor are pooled; they have rows of their own."""
    of = {"villain": (9, 10, math.nan)} | {f"p{n}": (n, 20, n / 20) for n in range(8)}
    falling = {"comedian": (9, 10, math.nan)} | {f"p{n}": (20 - n, 20, n / 20) for n in range(8)}
    noise = {"villain": (9, 10, math.nan)} | {f"p{n}": (7 * n % 5, 20, n / 20) for n in range(8)}
    points = [
        {"condition": "villain", "of": of},
        {"condition": "comedian", "of": falling},
        {"condition": "villain_code", "source": "villain", "of": noise},
    ]

    found = controlled(points)

    assert found.loc[("source", "villain", "elsewhere"), "control_rho"] == pytest.approx(-1)
    assert found.loc[("source", "comedian", "elsewhere"), "control_rho"] == pytest.approx(-1)
    rates = [7 * n % 5 for n in range(8)]
    assert found.loc[("source", "villain_code", "elsewhere"), "control_rho"] == pytest.approx(
        spearmanr(rates, range(0, -8, -1)).statistic
    )
    assert found.loc[("pooled_ranks", "all", "elsewhere"), "n"] == 16


def test_a_single_source_has_no_elsewhere():
    assert controlled(study(by_cosine, SOURCES[:1])).loc[("source", SOURCES[0], "elsewhere"), "n"] == 0


def test_finished_rates_have_rows_of_their_own_where_they_are_known():
    table = leakage(*study(by_cosine, SOURCES[:2])).assign(finished_rate=lambda rows: 1 - rows["rate"])

    found = control_leakage(table, texts(), ROSTER, load_settings()).set_index(["of", "condition", "control"])

    raw, finished = (found.loc[(of, SOURCES[0], "lexical")] for of in ("leakage", "leakage:finished"))
    assert finished["rho"] == pytest.approx(-raw["rho"])
    assert finished["partial_rho"] == pytest.approx(-raw["partial_rho"])


def test_without_cosines_there_is_nothing_to_control():
    table = leakage({"condition": "villain", "of": {"villain": (9, 10, math.nan)}}).drop(columns="cosine_l20")

    assert control_leakage(table, texts(), ROSTER, load_settings()).columns.tolist() == list(CONTROL_COLUMNS)
    assert control_leakage(pd.DataFrame(columns=table.columns), texts(), ROSTER, load_settings()).empty
