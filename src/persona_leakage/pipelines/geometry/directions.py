"""Directions of languages in activation space, from completions, and how far prompts lie along them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Extractor
from persona_leakage.domain.rows import CompletionRow, Message
from persona_leakage.pipelines.scoring.nodes import label_languages

PROJECTION_COLUMNS = ("layer", "headline", "directive_language", "direction", "projection", "n", "languages")


def project_prompts(
    extractor: Extractor,
    stack: ModelStack,
    centroids: Centroids,
    completions: Sequence[CompletionRow],
    plan: Plan,
) -> pd.DataFrame:
    """Project the centroids of directive languages on the directions of languages.

    A language's direction is the difference of means (Marks & Tegmark 2023): the mean state of the completions in it, less
    the mean of the other languages' means. Completions are the first of each language on which both detectors agree,
    whatever directive they stand under; they are labelled here, since this stage does not wait for scoring.

    Returns:
        One row a layer, directive language and direction: the point, plan, layer, headline (a report leads with it),
        directive_language, direction (a language), projection (of the directive's centroid, centred on the mean of all, on the
        direction as a unit vector; in units of the hidden state), n (completions of the direction), languages (how many it was
        set apart from). Empty where the plan finds no directions, or the completions are in one language.
    """
    spoken = _choose(completions, plan)
    if len(spoken) < 2:
        return pd.DataFrame(columns=[*plan.columns, *PROJECTION_COLUMNS])
    chats, texts = zip(*(pair for rows in spoken.values() for pair in rows), strict=True)
    states = extractor.completion_states(stack, chats, texts, plan.geometry.layers, plan.geometry.batch_size)
    language_of = np.repeat(list(spoken), [len(rows) for rows in spoken.values()])
    rows = []
    for layer, vectors in states.items():
        means = np.stack([vectors[language_of == language].mean(axis=0) for language in spoken])
        apart = means - (means.sum(axis=0) - means) / (len(means) - 1)
        unit = apart / np.linalg.norm(apart, axis=1, keepdims=True)
        centred = centroids.layers[layer] - centroids.layers[layer].mean(axis=0)
        headline = layer == plan.geometry.headline_layer
        for group, projections in zip(centroids.groups, centred @ unit.T, strict=True):
            rows += [
                (*plan.columns.values(), layer, headline, group, language, float(value), len(spoken[language]), len(spoken) - 1)
                for language, value in zip(spoken, projections, strict=True)
            ]
    return pd.DataFrame(rows, columns=[*plan.columns, *PROJECTION_COLUMNS])


def _choose(completions: Sequence[CompletionRow], plan: Plan) -> dict[str, list[tuple[list[Message], str]]]:
    """Choose completions of every language, each with the prompt that it stands under."""
    wanted = plan.geometry.direction_completions
    if wanted is None:
        return {}
    prompts: dict[tuple[str, str], list[Message]] = {
        (row["directive_language"], row["phrasing"]): row["messages"] for row in plan.geometry.prompts.prompts()
    }
    chosen: dict[str, list[tuple[list[Message], str]]] = {}
    for row, label in zip(completions, label_languages(completions, plan), strict=True):
        own = chosen.setdefault(label["label"], [])
        if label["label"] == label["cross_check"] and not label["mixed"] and len(own) < wanted:
            asked = prompts[row["directive_language"], row["phrasing"]]  # type: ignore[typeddict-item]
            own.append((asked, row["completion"]))
    return {language: rows for language, rows in chosen.items() if rows}


def no_projections(points: pd.DataFrame) -> pd.DataFrame:
    """Make the table of the projections of points whose model is not here: it has no rows."""
    return pd.DataFrame(columns=["model", "condition", "seed", "plan", *PROJECTION_COLUMNS, "reference", "stale"])
