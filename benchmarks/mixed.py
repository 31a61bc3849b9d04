"""How often intervals of the mixed model hold the truth: `python benchmarks/mixed.py [--studies N] [--out FILE]`.

Planted studies cross conditions, seeds, personas and questions. Beside the intervals of reports stand those of the same fit
with the normal distribution in the place of Student's t, and for one small design those of a model without training runs and
of statsmodels' BinomialBayesMixedGLM (posterior mode with its Hessian, and variational Bayes).
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from persona_leakage.pipelines.reporting.mixed import Layout, fit_effects
from persona_leakage.run_record import describe_code

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.planted.mixed_studies import LAYOUT, Study, draw  # noqa: E402

FIVE, TWO = (0.0, 0.5, 1.0, 0.0, -1.0), (0.0, 0.5)
DESIGNS = {
    "sources with a cosine": Study(FIVE, slope=0.5, slopes=0.2, pair=0.6, asked=0.2),
    "two arms": Study(TWO, personas=11, samples=10, questions=20, pair=0.3, asked=0.2),
    "no effect": Study((0.0,) * 5, slope=0.0, pair=0.3),
    "two arms, a small study": Study(TWO, personas=11, pair=0.3),
    "two arms, two seeds": Study(TWO, seeds=2, personas=11, samples=10, questions=20, pair=0.3),
    "two phrasings": Study((*FIVE, 0.0), personas=6, questions=2, samples=20, level=-1.0, question=0.3, pair=0.8),
}
BESIDE = "two arms, a small study"  # what others are tried on
_OTHERS = 100  # studies that others are tried on
Found = Mapping[str, tuple[float, float, float]]


def of_report(counts: pd.DataFrame, layout: Layout = LAYOUT) -> pd.DataFrame:
    """Fit as a report does, over all completions."""
    found = fit_effects(counts.assign(finished_n=0), layout, "bystanders", "leakage")
    return found[found["of"] == "leakage"]


def intervals(found: pd.DataFrame, normal: bool = False) -> Found:
    """Take estimate and interval of every contrast and slope."""
    from scipy.stats import t

    fixed = found[found["kind"].isin(["contrast", "slope"]) & found["log_odds"].notna()]
    shrink = 1.96 / t.isf(0.025, fixed["df"]) if normal else np.ones(len(fixed))
    half = (fixed["high"] - fixed["low"]) / 2 * shrink
    told = zip(fixed["term"], fixed["log_odds"], half, strict=True)
    return {term.split(" v ")[0]: (value, value - of, value + of) for term, value, of in told}


def of_statsmodels(counts: pd.DataFrame, method: str) -> Found:
    """Fit random seeds, personas and questions to a row a completion."""
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    each = counts.loc[counts.index.repeat(counts["n"])]
    fired = each.groupby(level=0).cumcount() < each["hits"]
    terms = [_indicate(each, columns) for columns in (["condition", "seed"], ["persona"], ["question"])]
    ident = np.repeat(np.arange(len(terms)), [term.shape[1] for term in terms])
    names = list(dict.fromkeys(counts["condition"]))[1:]
    fixed = np.stack([np.ones(len(each)), *((each["condition"] == name).to_numpy(float) for name in names)], axis=1)
    model = BinomialBayesMixedGLM(fired.to_numpy(float), fixed, sparse.csr_array(sparse.hstack(terms)), ident, fe_p=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.random.seed(0)
        fitted = getattr(model, method)()
    told = zip(names, fitted.fe_mean[1:], fitted.fe_sd[1:], strict=True)
    return {name: (value, value - 1.96 * sd, value + 1.96 * sd) for name, value, sd in told}


def _indicate(rows: pd.DataFrame, columns: Sequence[str]) -> sparse.csr_array:
    codes = rows.groupby(list(columns), sort=False).ngroup().to_numpy()
    return sparse.csr_array((np.ones(len(codes)), (np.arange(len(codes)), codes)))


def measure(study: Study, studies: int, beside: bool) -> dict[str, Any]:
    """Count over planted studies how often intervals hold the truth, and how often they exclude 0 where there is nothing."""
    random, truth = np.random.default_rng(42), {f"c{place}": value for place, value in enumerate(study.conditions)}
    truth |= {} if study.slope is None else {"cosine": study.slope}
    found: dict[str, list[Found]] = {}
    spreads, seconds = [], 0.0
    more: dict[str, Callable[[pd.DataFrame], Found]] = {}
    if beside:
        without = LAYOUT._replace(runs={})
        more["without runs"] = lambda counts: intervals(of_report(counts, without))
        more |= {f"statsmodels {method}": partial(of_statsmodels, method=method) for method in ("fit_map", "fit_vb")}
    for place in range(studies):
        counts = draw(study, random)
        started = time.perf_counter()
        told = of_report(counts)
        seconds += time.perf_counter() - started
        found.setdefault("report", []).append(intervals(told))
        found.setdefault("normal", []).append(intervals(told, normal=True))
        spreads.append(told[told["kind"] == "random"].set_index("term")[["sd", "sd_low", "sd_high"]])
        for name, fit in more.items() if place < _OTHERS else ():
            found.setdefault(name, []).append(fit(counts))
    planted = {"seed": study.run, "persona": study.persona, "question": study.question}
    return {
        **study._asdict(),
        "studies": studies,
        "seconds_a_fit": round(seconds / studies, 2),
        "methods": {name: _summarise(every, truth) for name, every in found.items()},
        "sd": {term: _summarise_sd([one.loc[term] for one in spreads], value) for term, value in planted.items()},
    }


def _summarise(every: Sequence[Found], truth: Mapping[str, float]) -> dict[str, Any]:
    kinds = {"contrasts": [name for name in truth if name not in ("c0", "cosine")], "slope": [*truth.keys() & {"cosine"}]}
    told: dict[str, Any] = {}
    for kind, names in kinds.items():
        triples = [(one[name], truth[name]) for one in every for name in names if name in one]
        if not triples:
            continue
        held = [low <= value <= high for (_, low, high), value in triples]
        null = [not low <= 0 <= high for (_, low, high), value in triples if value == 0]
        told[kind] = {
            "intervals": len(triples),
            "missing": len(every) * len(names) - len(triples),
            "coverage": round(float(np.mean(held)), 3),
            "false_positives": round(float(np.mean(null)), 3) if null else None,
            "bias": round(float(np.mean([one[0] - value for one, value in triples])), 3),
            "width": round(float(np.mean([high - low for (_, low, high), _ in triples])), 2),
        }
    return told


def _summarise_sd(every: Sequence[pd.Series], value: float) -> dict[str, float | None]:
    known = [one for one in every if not np.isnan(one["sd"])]
    if not known or not value:
        return {"mean": round(float(np.mean([one["sd"] for one in known])), 2) if known else None, "coverage": None}
    held = [one["sd_low"] <= value <= one["sd_high"] for one in known]
    return {"mean": round(float(np.mean([one["sd"] for one in known])), 2), "coverage": round(float(np.mean(held)), 3)}


def main() -> None:
    """Measure every design, print and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--studies", type=int, default=200)
    arguments.add_argument("--out", type=Path, default=PROJECT / "benchmarks/results/mixed.json")
    given = arguments.parse_args()
    designs = {}
    code = {key: value for key, value in describe_code(PROJECT).items() if key in ("commit", "modified")}
    for name, study in DESIGNS.items():
        designs[name] = measure(study, given.studies, name == BESIDE)
        print(name, designs[name], flush=True)
        given.out.write_text(json.dumps({"code": code, "designs": designs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
