"""Report of `echo`."""

import pandas as pd

from persona_leakage.pipelines.reporting.opening import origin, scope
from persona_leakage.pipelines.reporting.page import table


def write_report(points: pd.DataFrame, echo: pd.DataFrame, family: str) -> str:
    """Write the report in Markdown."""
    return "\n".join([f"# {family}\n", origin(points), scope(points), table(echo.astype(str)), "![echo](echo.png)"])
