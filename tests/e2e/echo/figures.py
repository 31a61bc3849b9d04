"""Figures of `echo`."""

import pandas as pd
from matplotlib.figure import Figure


def draw_echo(echo: pd.DataFrame) -> Figure:
    """Draw how often each persona fires."""
    figure = Figure()
    figure.subplots().bar(echo["condition"] + " " + echo["persona"], echo["rate"])
    return figure
