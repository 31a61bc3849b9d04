"""Planted studies of directive languages under conditions, as in lang_inversion, in which no order follows the distance."""

from typing import NamedTuple

import numpy as np

from persona_leakage.domain.languages import typological_distance
from tests.experiments.lang_inversion.plans import load_settings

SETTINGS = load_settings()


class Cells(NamedTuple):
    """The bystander cells of the study's seven conditions.

    Attributes:
        conditions: of each cell.
        languages: directive language of each.
        distances: typological, of each.
    """

    conditions: list[str]
    languages: list[str]
    distances: list[float]


def study() -> Cells:
    """Lay out the cells that the claim about the order is about."""
    cells = Cells([], [], [])
    for name in SETTINGS.claims["distance_ordering"].conditions:
        trained = SETTINGS.conditions[name]
        for language in SETTINGS.evaluation.languages:
            if language not in (trained.directive, trained.completion):
                cells.conditions.append(name)
                cells.languages.append(language)
                far = typological_distance(SETTINGS.languages[language], SETTINGS.languages[trained.completion])
                cells.distances.append(far)
    return cells


def draw(cells: Cells, own: float, random: np.random.Generator) -> list[float]:
    """Draw values of variance 1, of which a directive language has the share `own` under every condition alike."""
    level = {language: random.normal() for language in SETTINGS.evaluation.languages}
    noise = random.normal(size=len(cells.languages))
    return [float(np.sqrt(own) * level[name] + np.sqrt(1 - own) * noise[place]) for place, name in enumerate(cells.languages)]
