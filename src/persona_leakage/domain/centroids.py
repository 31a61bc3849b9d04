"""Centroids of prompt groups in activation space."""

from typing import NamedTuple

import numpy as np


class Centroids(NamedTuple):
    """Mean last-prompt-token states of groups of prompts.

    Attributes:
        groups: names of the groups, in row order. They are also the reference set that cosines are centred on.
        layers: layer → float32 array of shape (groups, hidden size), not centred.
        stack: fingerprint of the model stack they were read from.
    """

    groups: tuple[str, ...]
    layers: dict[int, np.ndarray]
    stack: str
