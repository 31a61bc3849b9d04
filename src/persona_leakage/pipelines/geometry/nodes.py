"""Centroids of the prompts' hidden states, and the cosines between them."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Extractor
from persona_leakage.domain.rows import PromptRow

COSINE_COLUMNS = ["condition", "seed", "plan", "layer", "one", "other", "cosine", "centring"]


def extract_centroids(extractor: Extractor, stack: ModelStack, prompts: Sequence[PromptRow], plan: Plan) -> Centroids:
    """Average the last prompt token's hidden state over the phrasings of each directive language.

    Returns:
        One centroid a directive language and layer.
    """
    states = extractor.last_token_states(
        stack, [row["messages"] for row in prompts], plan.geometry.layers, plan.geometry.batch_size
    )
    group_of = np.array([row["directive_language"] for row in prompts])
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
        One row a layer and unordered pair: condition, seed, plan, layer, one, other, cosine (NaN when a centred centroid
        is zero), centring (fingerprint of the set whose mean was subtracted: cosines of different sets do not compare).
    """
    centring = fingerprint(list(centroids.groups), centroids.stack)
    rows = []
    for layer, vectors in centroids.layers.items():
        centred = vectors - vectors.mean(axis=0)
        with np.errstate(invalid="ignore"):
            unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        cosines = unit @ unit.T
        for i, j in combinations(range(len(centroids.groups)), 2):
            pair = (centroids.groups[i], centroids.groups[j])
            rows.append((plan.condition, plan.seed, plan.fingerprint, layer, *pair, float(cosines[i, j]), centring))
    return pd.DataFrame(rows, columns=COSINE_COLUMNS)
