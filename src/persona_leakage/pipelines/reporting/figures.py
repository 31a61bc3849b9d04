"""What figures of all families share."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, BLUE, RED = "#333333", "#3b6ea8", "#c8553d"
_P = ParamSpec("_P")
_T = TypeVar("_T")


def draws_as_written(draw: Callable[_P, _T]) -> Callable[_P, _T]:
    """Have a function draw names as they are written: a `$` in one begins no formula."""

    @functools.wraps(draw)
    def plain(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with rc_context({"text.parse_math": False}):
            return draw(*args, **kwargs)

    return plain


def in_legend(name: str) -> str:
    """Write a name for a legend, which would leave out one that begins with `_`."""
    return f" {name}" if name.startswith("_") else name


def blank(text: str) -> Figure:
    """Say in a figure why there is nothing to draw."""
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def panels(width: float, height: float, down: int = 1, across: int = 1, **shared: Any) -> tuple[Figure, list[Axes]]:
    """Begin a figure (sizes in inches) of panels, row by row, each open at the top and the right."""
    figure = Figure(figsize=(width, height))
    axes = list(figure.subplots(down, across, squeeze=False, **shared).flat)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def heat_map(rates: pd.DataFrame, texts: pd.DataFrame, title: str, width: float, height: float) -> Figure:
    """Draw rates as a matrix, coloured in percent, with a text in every cell whose rate is known; sizes in inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    image = axes.imshow(rates.to_numpy() * 100, cmap="YlOrRd", vmin=0, vmax=100, aspect="auto")
    for y, x in np.argwhere(rates.notna()):
        ink = "white" if rates.iloc[y, x] > 0.6 else INK
        axes.text(x, y, texts.iloc[y, x], ha="center", va="center", fontsize=7, color=ink)
    axes.set_yticks(range(len(rates)), rates.index, fontsize=8)
    axes.set_xticks(range(rates.shape[1]), rates.columns, rotation=40, ha="right", fontsize=8)
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, fraction=0.03)
    return figure


def set_legend_beside(figure: Figure) -> None:
    """Put one legend of all panels to the right of a figure."""
    figure.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    figure.tight_layout()
