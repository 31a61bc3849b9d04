"""Centroids of the prompts' hidden states, and the cosines between them."""

import numpy as np
import pandas as pd

from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Extractor

COSINE_COLUMNS = ("layer", "headline", "one", "other", "cosine", "centring")


def extract_centroids(extractor: Extractor, stack: ModelStack, plan: Plan) -> Centroids:
    """Average the last prompt token's hidden state over the prompts of each group: a directive language or a persona.

    Returns:
        One centroid a group and layer.
    """
    geometry = plan.geometry
    prompts = geometry.prompts.prompts()
    states = extractor.last_token_states(stack, [row["messages"] for row in prompts], geometry.layers, geometry.batch_size)
    group_of = np.array([row[geometry.prompts.group_key] for row in prompts])  # type: ignore[literal-required]
    groups = tuple(dict.fromkeys(group_of.tolist()))
    return Centroids(
        groups=groups,
        layers={
            layer: np.stack([vectors[group_of == group].mean(axis=0) for group in groups]) for layer, vectors in states.items()
        },
        stack=stack.fingerprint,
    )


def compare_centroids(centroids: Centroids, plan: Plan) -> pd.DataFrame:
    """Compute the cosine of every pair of centroids after centring on the mean of all groups.

    Returns:
        One row a layer and unordered pair: the point, plan, layer, headline (a report leads with the layer), one, other, cosine
        (NaN when a centred centroid is zero), centring (fingerprint of the groups whose mean was subtracted and of their
        prompts: cosines of different ones do not compare).
    """
    centring = fingerprint(list(centroids.groups), plan.geometry.prompts)
    first, second = np.triu_indices(len(centroids.groups), k=1)
    names = np.array(centroids.groups)
    tables = []
    for layer, vectors in centroids.layers.items():
        centred = vectors - vectors.mean(axis=0)
        with np.errstate(invalid="ignore"):
            unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        pairs = {
            "layer": layer,
            "headline": layer == plan.geometry.headline_layer,
            "one": names[first],
            "other": names[second],
            "cosine": (unit @ unit.T)[first, second],
        }
        tables.append(pd.DataFrame({**plan.columns, **pairs, "centring": centring}))
    return pd.concat(tables, ignore_index=True)


def no_cosines(points: pd.DataFrame) -> pd.DataFrame:
    """Make the table of the cosines of points whose model is not here: it has no rows."""
    return pd.DataFrame(columns=["model", "condition", "seed", "plan", *COSINE_COLUMNS, "reference", "stale"])
