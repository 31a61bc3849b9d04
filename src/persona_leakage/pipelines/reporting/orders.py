"""Orders of cells over several conditions."""

import math

import pandas as pd

from persona_leakage.pipelines.correlation import Correlation, correlation


def order_within(cells: pd.DataFrame, rate: str, predictor: str) -> tuple[Correlation, Correlation]:
    """Correlate a rate with a predictor over the cells of several conditions, both ranked within each.

    Args:
        cells: one row a condition x directive_language; those without the rate are left out.
        rate: column.
        predictor: column.

    Returns:
        The correlation, for which conditions and languages are resampled (crossed), and the partial one given the languages:
        what a language does in every condition alike is taken out of both sides, so it is undefined within one condition. Its
        interval is that of Bonett & Wright (2000), since resamples of few cells lose whole languages.
    """
    known = cells[cells[rate].notna()]
    conditions, languages = known["condition"].tolist(), known["directive_language"].tolist()
    sides = known[rate].tolist(), known[predictor].tolist()
    own_level = [[float(one == language) for one in languages] for language in dict.fromkeys(languages)][1:]
    apart = correlation(*sides, within=conditions, given=own_level)
    freedom = len(known) - 1 - len(set(conditions)) - len(own_level)
    if freedom > 1 and abs(apart.rho) < 1:
        reach = 1.96 * math.sqrt((1 + apart.rho**2 / 2) / (freedom - 1))
        low, high = (math.tanh(math.atanh(apart.rho) + side * reach) for side in (-1, 1))
        apart = apart._replace(low=low, high=high, no_interval="")
    return correlation(*sides, within=conditions, clusters=[conditions, languages]), apart
