"""Do a point's texts still look like those of the point that it is compared with? A collapsed model's rates mean little."""

import math
from collections.abc import Sequence

import pandas as pd

from persona_leakage.pipelines.reporting.page import as_written
from persona_leakage.pipelines.scoring.texts import average, name_outside

TEXT_RANGE_COLUMNS = ("tokens", "distinct_2", "empty", "cut", "texts", "outside_base_range")


def compare_texts(own: pd.DataFrame, base: pd.DataFrame) -> dict[str, object]:
    """Summarise a point's texts, and name what leaves the range of those it is compared with.

    Args:
        own: descriptions of the point's texts, one row a persona.
        base: those of the point compared with; without rows nothing is compared.

    Returns:
        `TEXT_RANGE_COLUMNS`: tokens (mean length) and distinct_2, personas weighing equally; empty and cut (shares of `texts`
        completions; tokens and cut are NaN where they are not known of all); outside_base_range (which of tokens, distinct_2,
        empty and cut leave the range over personas of `base`; blank when none does).
    """
    if own.empty:
        return dict(zip(TEXT_RANGE_COLUMNS, (*[math.nan] * 4, 0, ""), strict=True))
    values = average(own)
    return {**values, "texts": int(own["n"].sum()), "outside_base_range": ", ".join(name_outside(values, base))}


def say_outside(compared: pd.DataFrame, keys: Sequence[str]) -> str:
    """Name the points whose texts left the range, and what left it; blank when none did.

    Args:
        compared: one row a point, with condition, `keys` and outside_base_range.
        keys: what tells points of a condition apart, such as seed.
    """
    left = compared[compared["outside_base_range"].notna() & (compared["outside_base_range"] != "")]  # NaN: from a CSV file
    return "; ".join(
        " ".join([as_written(row["condition"]), *(f"{key} {row[key]}" for key in keys)]) + f": {row['outside_base_range']}"
        for row in left.to_dict("records")
    )
