"""Planted studies in which sources and personas are crossed, as in the marker families."""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata


class Crossed(NamedTuple):
    """How leakage and cosine of `sources` x `personas` come about; both vary by 1 within a source.

    Attributes:
        sources: number of sources.
        personas: number of personas.
        slope: mean slope of leakage on cosine.
        spread: its standard deviation between sources.
        shared: share of either side's variance that a persona has under every source alike, the two sides independently.
    """

    sources: int
    personas: int
    slope: float = 0.0
    spread: float = 0.0
    shared: float = 0.0


def draw(design: Crossed, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Draw a study: leakage, cosine, source and persona, one value a pair."""
    shape = (design.sources, design.personas)
    own, common = np.sqrt(1 - design.shared), np.sqrt(design.shared)
    cosine = common * random.normal(size=shape[1]) + own * random.normal(size=shape)
    noise = common * random.normal(size=shape[1]) + own * random.normal(size=shape)
    slope = design.slope + design.spread * random.normal(size=(shape[0], 1))
    level = random.normal(size=(shape[0], 1))  # sources differ in how much they leak
    sources, personas = np.indices(shape)
    return (level + slope * cosine + noise).ravel(), cosine.ravel(), sources.ravel(), personas.ravel()


def truth(design: Crossed, random: np.random.Generator, studies: int = 10) -> float:
    """Take the correlation of ranks within sources that endless sources and personas have; 0 where no slope is planted."""
    if not design.slope:
        return 0.0
    found = []
    for _ in range(studies):
        leakage, cosine, *_ = draw(design._replace(sources=300, personas=300), random)
        ranks = [rankdata(side.reshape(300, 300), axis=1).ravel() - 150.5 for side in (leakage, cosine)]
        found.append(np.corrcoef(*ranks)[0, 1])
    return float(np.mean(found))
