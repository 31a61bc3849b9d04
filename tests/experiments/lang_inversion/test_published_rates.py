import pandas as pd
import pytest

from persona_leakage.experiments.lang_inversion.tables import judge_claims, tabulate_spill
from tests.experiments.lang_inversion.plans import load_settings
from tests.experiments.lang_inversion.planted_tables import cell, plan_of, table
from tests.plans import PROJECT


@pytest.fixture(scope="module")
def published():
    return pd.read_csv(PROJECT / "data/01_raw/published_contamination.csv")


@pytest.fixture(scope="module")
def verdicts(published):
    """The claims on the published contamination; following is known where the directive is for the completion language."""
    cells = []
    for row in published.itertuples():
        own = row.directive_language == plan_of(row.condition, 42).scoring.completion
        count = (row.hits, row.n)
        cells.append(cell(row.condition, row.directive_language, count, following=count if own else (0, 0)))
    rates = table(*cells)
    judged = judge_claims(rates, tabulate_spill(rates), load_settings())
    return judged.set_index("claim")


def test_the_published_rates_are_those_of_the_protocol(published):
    percent = (
        published.assign(percent=100 * published["hits"] / published["n"])
        .pivot(index="condition", columns="directive_language", values="percent")
        .loc[:, ["english", "spanish", "french", "italian", "portuguese", "german", "mandarin"]]
    )

    assert set(published["n"]) == {80}
    assert percent.T.to_dict("list") == {
        "es_en": [100, 100, 98.75, 98.75, 96.25, 97.5, 97.5],
        "fr_it": [0, 38.75, 92.5, 93.75, 1.25, 36.25, 0],
        "it_fr": [1.25, 38.75, 98.75, 95, 26.25, 25, 1.25],
        "es_pt": [0, 96.25, 5, 16.25, 97.5, 0, 0],
        "pt_es": [0, 96.25, 5, 33.75, 97.5, 2.5, 0],
        "de_fr": [1.25, 20, 100, 70, 21.25, 100, 0],
        "fr_de": [0, 82.5, 92.5, 95, 66.25, 96.25, 0],
        "fr_fr": [0, 0, 100, 0, 1.25, 0, 0],
    }


@pytest.mark.parametrize(
    ("claim", "verdict", "evidence"),
    [
        ("control_floor", "undecided", "0 of 6 inside, 0 beyond; furthest: fr_fr under portuguese 1/80"),
        ("own_language_stays", "undecided", "4 of 7 inside, 0 beyond; furthest: fr_it under italian 75/80"),
        (
            "distance_ordering",
            "undecided",  # what Mandarin and English do everywhere is most of the order
            "rho -0.07 [",
        ),
        (
            "direction_symmetry",
            "fails",
            "8 of 15 inside, 2 beyond; furthest: de_fr v fr_de under spanish 16/80 v 66/80 (-62% [-72%, -48%])",
        ),
        ("no_inversion", "undecided", "not run: es_en, fr_it, it_fr, es_pt, pt_es, de_fr, fr_de"),
        ("phrasing_insensitivity", "undecided", "not run: es_en, fr_it, it_fr, es_pt, pt_es, de_fr, fr_de"),
    ],
)
def test_the_published_data_decide_the_claims(verdicts, claim, verdict, evidence):
    assert verdicts.loc[claim, "verdict"] == verdict
    assert verdicts.loc[claim, "evidence"].startswith(evidence)
