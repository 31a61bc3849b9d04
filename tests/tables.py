"""What every planted table goes through."""

import io

import pandas as pd


def stored(frame: pd.DataFrame) -> pd.DataFrame:
    """Go through a CSV file, as every table of a run does."""
    return pd.read_csv(io.StringIO(frame.to_csv(index=False)))
