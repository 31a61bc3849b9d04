"""Completions that were cut at the token limit: how many, and what is counted in those that ended by themselves."""

from collections.abc import Mapping

import pandas as pd

CUT = "cut"
FINISHED = ":finished"  # ends the name of a metric that is over finished completions


def count_cut(ends: pd.Series, counted: Mapping[str, pd.Series]) -> dict[str, tuple[int, int]]:
    """Count the completions of a cell that were cut, and those that metrics count among the finished ones.

    A completion that was cut cannot show what stands at its end.

    Args:
        ends: `finish` of every completion; missing where it is unknown.
        counted: metric over all completions → whether it counts each of them.

    Returns:
        Metric → hits and n: `cut` over all completions, and `<metric>:finished` over those that were not cut. All have n = 0
        where any completion does not say how it ended.
    """
    if ends.isna().any():
        return dict.fromkeys([CUT, *(f"{metric}{FINISHED}" for metric in counted)], (0, 0))
    finished = ends != "length"
    over_finished = {f"{name}{FINISHED}": (int((hits & finished).sum()), int(finished.sum())) for name, hits in counted.items()}
    return {CUT: (int((~finished).sum()), len(ends)), **over_finished}
