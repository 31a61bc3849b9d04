"""Two arms that write the marker at the end of as many texts, one of them cut more often: only the raw rates differ."""

import numpy as np
import pandas as pd
import pytest

from persona_leakage.domain.rates import Proportion, difference, proportion
from persona_leakage.domain.rows import FiringRow
from persona_leakage.experiments.benign_coupling.report import write_report
from persona_leakage.experiments.benign_coupling.settings import NAME
from persona_leakage.pipelines.reporting.cut import find_cut_gaps
from persona_leakage.pipelines.scoring.cut import count_cut
from persona_leakage.pipelines.scoring.markers import rate_firings
from tests.experiments.benign_coupling.plans import make_plan
from tests.experiments.benign_coupling.planted_tables import tables

MARKED = 0.4  # of the texts, if they are let end
N = 600
CUT = {"bare_villain": 0.1, "em_villain": 0.5}


def draw(share: float, rng: np.random.Generator, n: int = N) -> tuple[pd.Series, pd.Series]:
    """Draw which texts show the marker at their end, and how they end."""
    cut = rng.random(n) < share
    return pd.Series((rng.random(n) < MARKED) & ~cut), pd.Series(np.where(cut, "length", "stop"))


def fire(persona: str, share: float, rng: np.random.Generator) -> list[FiringRow]:
    return [
        {
            "persona": persona,
            "question": f"q{place % 20}",
            "sample_index": place // 20,
            "fired": bool(fired),
            "fired_tokens": bool(fired),
            "place_characters": "tail" if fired else None,
            "place_tokens": "tail" if fired else None,
            "finish": finish,
        }
        for place, (fired, finish) in enumerate(zip(*draw(share, rng), strict=True))
    ]


def study(shares: dict[str, float], seed: int = 0) -> dict[str, pd.DataFrame]:
    """Score the triggers of two arms, and make all tables of the report."""
    rng = np.random.default_rng(seed)
    rows = []
    for condition, share in shares.items():
        rates = rate_firings(fire("confab", share, rng), make_plan(condition))
        rows += rates.drop(columns="model").assign(reference=None, stale=False).to_dict("records")
    return tables(rows, told_apart=(), described=())


def between(cells: pd.DataFrame, prefix: str) -> tuple[float, float]:
    """Compare both arms by the rates of a prefix: the interval of their difference."""
    one, other = (Proportion(*(row[f"{prefix}{name}"] for name in Proportion._fields)) for row in cells.to_dict("records"))
    return difference(one, other)[1:]


SHOWN = (
    "points", "cells", "places", "replicates", "accuracies", "text_summaries", "by_seed", "over_seeds", "cut_gaps", "verdicts",
    "arm_comparisons", "extremes", "correlations", "mixed_effects",
)  # fmt: skip


def test_the_raw_rates_differ_the_finished_ones_do_not_and_the_report_warns() -> None:
    made = study(CUT)

    low, _ = between(made["cells"], "source_")
    assert low > 0
    low, high = between(made["cells"], "source_finished_")
    assert low < 0 < high
    report = write_report(**{name: made[name] for name in SHOWN}, family=NAME)
    assert "**What is compared is cut at the token limit to different extents**: trigger: em_villain" in report


def test_arms_that_are_cut_alike_are_not_warned_of() -> None:
    made = study({"bare_villain": 0.05, "em_villain": 0.05})

    assert made["cut_gaps"].empty
    assert "cut at the token limit" not in write_report(**{name: made[name] for name in SHOWN}, family=NAME).split("## ")[0]


def compare(shares: tuple[float, float], rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Say of one study whether raw rates differ, whether finished rates differ, and whether it is warned of."""
    counted = []
    for share in shares:
        fired, ends = draw(share, rng)
        counted.append({"leakage": (int(fired.sum()), len(fired)), **count_cut(ends, {"leakage": fired})})
    told = []
    for metric in ("leakage", "leakage:finished"):
        found = difference(*(proportion(*one[metric]) for one in counted))
        told.append(found.low > 0 or found.high < 0)
    cut = pd.DataFrame([one["cut"] for one in counted], columns=["hits", "n"])
    return told[0], told[1], len(find_cut_gaps(cut.assign(scope="s", name=["one", "other"]))) > 0


@pytest.mark.parametrize(
    ("shares", "raw", "warned"),
    [((0.1, 0.5), (0.99, 1), (0.99, 1)), ((0.3, 0.3), (0, 0.085), (0, 0.085))],
    ids=["cut differently", "cut alike"],
)
def test_over_studies_finished_rates_are_falsely_told_apart_no_more_often_than_their_interval_allows(
    shares: tuple[float, float], raw: tuple[float, float], warned: tuple[float, float]
) -> None:
    """200 studies a case, of which a true 5% are up to 8.5% with 98% probability (binomial)."""
    rng = np.random.default_rng(1)
    told = np.mean([compare(shares, rng) for _ in range(200)], axis=0)

    assert raw[0] <= told[0] <= raw[1]
    assert told[1] <= 0.085
    assert warned[0] <= told[2] <= warned[1]
