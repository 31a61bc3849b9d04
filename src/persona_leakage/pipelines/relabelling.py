"""Does a rate follow a distance between labels, where labels recur in many cells?"""

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import permutations

import numpy as np

_EXACT_UP_TO = 7  # labels; 5,040 orders
_DRAWN = 2000


def relabelling_p(
    values: Sequence[float],
    pairs: Sequence[tuple[str, str]],
    distances: Mapping[tuple[str, str], float],
    within: Sequence[Hashable],
    seed: int = 0,
) -> float:
    """Test whether cells' values follow the distance between the two labels of each cell, by giving labels other names.

    A language that behaves alike under every condition, or conditions that share a language, make cells dependent; names that
    are exchanged leave all that in place and break nothing but its tie to the distances (Mantel 1967; for dyads as a quadratic
    assignment, Krackhardt 1988). Both sides are ranked within each condition, ties sharing their mean rank.

    Args:
        values: of the cells.
        pairs: the cells' two labels; a cell of a label with itself is not to be among them.
        distances: of every two labels that occur in a cell, in either order.
        within: condition of each cell.
        seed: of the random orders.

    Returns:
        Share of the names' orders, two-sided, whose correlation is at least as far from 0: of all with up to 7 labels, else of
        2,000 random ones and the observed one. NaN where a side does not vary within any condition, or a distance is unknown.
    """
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    both = {**{(other, one): far for (one, other), far in distances.items()}, **distances}
    table = np.array([[0.0 if one == other else both.get((one, other), math.nan) for other in names] for one in names])
    if not names or np.isnan(table).any() or np.isnan(np.asarray(values, dtype=float)).any():
        return math.nan
    place = {name: index for index, name in enumerate(names)}
    one, other = (np.array([place[pair[side]] for pair in pairs], dtype=int) for side in (0, 1))
    exact = len(names) <= _EXACT_UP_TO
    orders = np.array(list(permutations(range(len(names))))) if exact else _draw_orders(len(names), seed)
    blocks = [np.flatnonzero([label == condition for label in within]) for condition in dict.fromkeys(within)]
    ranked = _centred_ranks(np.asarray(values, dtype=float)[None], blocks)[0]
    renamed = _centred_ranks(table[orders[:, one], orders[:, other]], blocks)  # (orders, cells), the observed order first
    sizes = np.linalg.norm(renamed, axis=1)
    if not sizes[0] or not ranked.any():
        return math.nan
    far = np.abs(renamed @ ranked) / np.where(sizes > 0, sizes, 1)
    return float(np.mean(far >= far[0] - 1e-9 * max(1.0, far[0])))


def _draw_orders(labels: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    drawn = random.permuted(np.tile(np.arange(labels), (_DRAWN, 1)), axis=1)
    return np.concatenate([np.arange(labels)[None], drawn])


def _centred_ranks(sides: np.ndarray, blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Rank every row's values within each block, as shares of the block, from their mean: shape as given."""
    from scipy.stats import rankdata

    ranks = np.zeros_like(sides)
    for block in blocks:
        own = rankdata(sides[:, block], axis=1) / max(1, len(block))
        ranks[:, block] = own - own.mean(axis=1, keepdims=True)
    return ranks
