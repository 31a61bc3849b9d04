"""What every planted table goes through."""

import io

import pandas as pd

from persona_leakage.pipelines.reporting.mixed import MIXED_COLUMNS

NO_EFFECTS = pd.DataFrame(columns=MIXED_COLUMNS)  # of a mixed model without counts by question


def stored(frame: pd.DataFrame) -> pd.DataFrame:
    """Go through a CSV file, as every table of a run does."""
    return pd.read_csv(io.StringIO(frame.to_csv(index=False)))
