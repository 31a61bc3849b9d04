"""How often intervals of a correlation hold the truth: `python benchmarks/dependence.py [--studies N] [--out FILE]`.

Planted studies cross sources and personas; the correlation is of ranks within sources. Compared are resampling pairs, sources
alone, and both crossed (what reports do), with the false positives of each p where nothing is planted. Independent pairs are
resampled at small numbers too. Orders within the conditions of lang_inversion are tested where there is none.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import persona_leakage.pipelines.correlation as correlations
from persona_leakage.pipelines.correlation import correlation
from persona_leakage.pipelines.reporting.orders import order_within
from persona_leakage.run_record import describe_code

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.planted import orders  # noqa: E402
from tests.planted.crossed import Crossed, draw, truth  # noqa: E402

DESIGNS = (
    Crossed(5, 40, slope=0.5, spread=0.3, shared=0.25),
    Crossed(5, 40, slope=0.5, spread=0.0, shared=0.0),
    Crossed(5, 40, slope=0.0, spread=0.3, shared=0.0),
    Crossed(5, 40, slope=0.0, spread=0.0, shared=0.5),
    Crossed(10, 20, slope=0.5, spread=0.3, shared=0.25),
    Crossed(7, 6, slope=0.0, spread=0.0, shared=0.5),
    Crossed(7, 6, slope=-0.7, spread=0.3, shared=0.25),
)
_RESAMPLES = 250


def measure(design: Crossed, studies: int) -> dict[str, Any]:
    """Count over planted studies how often each interval holds the truth, and how wide it is."""
    random = np.random.default_rng(42)
    value = truth(design, random)
    held: dict[str, list[bool]] = {"pairs": [], "sources": [], "crossed": []}
    wide: dict[str, list[float]] = {name: [] for name in held}
    rejected: dict[str, list[bool]] = {"permutation": [], "crossed": []}
    for _ in range(studies):
        leakage, cosine, sources, personas = draw(design, random)
        kinds = {"pairs": [], "sources": [sources], "crossed": [sources, personas]}
        for name, clusters in kinds.items():
            found = correlation(leakage, cosine, within=sources.tolist(), clusters=_lists(clusters), resamples=_RESAMPLES)
            held[name].append(found.low <= value <= found.high)
            wide[name].append(found.high - found.low)
        rejected["permutation"].append(found.permutation_p < 0.05)
        rejected["crossed"].append(found.p < 0.05)
    shares = {f"{name}_coverage": round(float(np.mean(of)), 3) for name, of in held.items()}
    widths = {f"{name}_width": round(float(np.mean(of)), 2) for name, of in wide.items()}
    positive = {f"{name}_p_below_05": round(float(np.mean(of)), 3) for name, of in rejected.items()}
    return {**design._asdict(), "truth": round(value, 3), "studies": studies, **shares, **widths, **positive}


def measure_pairs(pairs: int, r: float, studies: int) -> dict[str, Any]:
    """Count the same of independent normal pairs that correlate by r."""
    random, value = np.random.default_rng(42), 6 / np.pi * np.arcsin(r / 2)
    held = []
    for _ in range(studies):
        one = random.normal(size=pairs)
        found = correlation(one, r * one + np.sqrt(1 - r * r) * random.normal(size=pairs), resamples=_RESAMPLES)
        held.append(found.low <= value <= found.high)
    return {"pairs": pairs, "truth": round(float(value), 3), "studies": studies, "coverage": round(float(np.mean(held)), 3)}


def measure_orders(own: float, slope: float, studies: int) -> dict[str, Any]:
    """Count how often an order is found that falls by `slope` a SD of distance, where languages have a level of their own."""
    random, cells = np.random.default_rng(42), orders.study()
    table = pd.DataFrame({"condition": cells.conditions, "directive_language": cells.languages, "distance": cells.distances})
    far = (table["distance"] - table["distance"].mean()) / table["distance"].std()
    found = [
        order_within(table.assign(rate=orders.draw(cells, own, random) - slope * far), "rate", "distance")
        for _ in range(studies)
    ]
    positive = {
        "within_permutation_p_below_05": float(np.mean([one.permutation_p < 0.05 for one, _ in found])),
        "apart_p_below_05": float(np.mean([apart.p < 0.05 for _, apart in found])),
    }
    return {"own": own, "slope": slope, "cells": len(table), "studies": studies, **positive}


def _lists(clusters: Sequence[np.ndarray]) -> list[list[int]]:
    return [one.tolist() for one in clusters]


def main() -> None:
    """Measure every design, print and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--studies", type=int, default=500)
    arguments.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/dependence.json")
    given = arguments.parse_args()
    correlations.FEWEST_PAIRS = 3  # what is shown where reports show none
    small = [measure_pairs(pairs, r, given.studies) for pairs in (5, 7, 10, 20) for r in (0.0, 0.8)]
    ordered = [measure_orders(own, slope, given.studies) for slope in (0.0, 0.5) for own in (0.0, 0.5, 0.8)]
    crossed = []
    for design in DESIGNS:
        crossed.append(measure(design, given.studies))
        print(crossed[-1], flush=True)
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    given.out.write_text(
        json.dumps({"code": code, "crossed": crossed, "independent": small, "orders": ordered}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
