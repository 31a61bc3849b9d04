"""Tables of `echo`."""

import pandas as pd

from persona_leakage.pipelines.reporting.rates import leakage_of
from persona_leakage.pipelines.reporting.seeds import keep_seeds


def tabulate_echo(rates: pd.DataFrame) -> pd.DataFrame:
    """Keep how often each persona fires: one row a condition x seed x persona."""
    return leakage_of(rates)[["condition", "seed", "persona", "role", "hits", "n", "rate"]].reset_index(drop=True)


def tabulate_echo_seeds(echo: pd.DataFrame) -> pd.DataFrame:
    """Write every rate one below the other, seeds apart; see `keep_seeds`."""
    return keep_seeds(echo, ["condition", "persona"], {"leakage": ""})
