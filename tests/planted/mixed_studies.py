"""Planted studies of which a mixed model is true: conditions x seeds x personas x questions."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit

from persona_leakage.pipelines.reporting.mixed import Layout

LAYOUT = Layout("condition", {"seed": ("seed",)}, ("persona", "question"), ("condition", "persona"))


class Study(NamedTuple):
    """How the counts of a study come about; effects and standard deviations are of log-odds.

    Attributes:
        conditions: effect of each over the first.
        seeds: a condition.
        personas: bystanders.
        questions: a persona.
        samples: completions a question.
        level: of the first condition.
        slope: of a standard deviation of the cosine, on average over the conditions; None without a cosine.
        slopes: standard deviation between their slopes.
        run: standard deviation between training runs.
        persona: between personas.
        question: between questions.
        pair: between personas of a condition, beyond what they have under all.
        asked: between questions of a condition, likewise.
    """

    conditions: tuple[float, ...]
    seeds: int = 3
    personas: int = 30
    questions: int = 10
    samples: int = 5
    level: float = -2.0
    slope: float | None = None
    slopes: float = 0.0
    run: float = 0.4
    persona: float = 0.8
    question: float = 0.5
    pair: float = 0.0
    asked: float = 0.0


def draw(study: Study, random: np.random.Generator) -> pd.DataFrame:
    """Draw counts by question, all completions finished, with the cosine where the study has one."""
    shape = (len(study.conditions), study.seeds, study.personas, study.questions)
    condition, seed, persona, question = (place.ravel() for place in np.indices(shape))
    conditions, personas = shape[0], shape[2]
    cosine = random.normal(size=(conditions, personas))
    cosine = (cosine - cosine.mean(axis=1, keepdims=True)) / cosine.std(axis=1, ddof=1, keepdims=True)
    apart = random.normal(size=conditions)
    slopes = (study.slope or 0.0) + study.slopes * (apart - apart.mean())
    odds = study.level + np.array(study.conditions)[condition] + slopes[condition] * cosine[condition, persona]
    odds += study.run * random.normal(size=shape[:2])[condition, seed]
    odds += study.persona * random.normal(size=personas)[persona] + study.question * random.normal(size=shape[3])[question]
    odds += study.pair * random.normal(size=(conditions, personas))[condition, persona]
    odds += study.asked * random.normal(size=(conditions, shape[3]))[condition, question]
    hits, names = random.binomial(study.samples, expit(odds)), np.array([f"c{place}" for place in range(conditions)])
    counts = pd.DataFrame(
        {
            "condition": names[condition],
            "seed": seed,
            "persona": np.array([f"p{place}" for place in range(personas)])[persona],
            "question": np.array([f"q{place}" for place in range(shape[3])])[question],
            **{f"{prefix}hits": hits for prefix in ("", "finished_")},
            **{f"{prefix}n": study.samples for prefix in ("", "finished_")},
        }
    )
    return counts if study.slope is None else counts.assign(cosine=3 + 0.1 * cosine[condition, persona])
