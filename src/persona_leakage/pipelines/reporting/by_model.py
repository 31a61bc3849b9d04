"""Several base models in one report: tables are made model by model, and drawn and written beside each other.

A model at matched dose is a series of its own beside the model at the end of training; see `Address.series`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from persona_leakage.domain.points import model_of
from persona_leakage.domain.variants import Variants


def for_each_model(function: Callable[..., Any], types: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """Have a table node see one base model at a time; what it returns for each stands below each other, `model` first.

    Tables without a column `model` are handed to it whole. In the place of `Variants` it is given the model's settings.

    Args:
        function: node function that knows nothing of models.
        types: argument → its type, as in `pipelines.bind`.
    """

    @functools.wraps(function)
    def of_all(*args: Any, **kwargs: Any) -> pd.DataFrame:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        split = [name for name, value in given.items() if isinstance(value, pd.DataFrame) and "model" in value]
        models = list(dict.fromkeys(model for name in split for model in given[name]["model"]))
        variants = [name for name, value in given.items() if isinstance(value, Variants)]
        known = [model for model in models if all(model_of(model) in given[name].models for name in variants)]
        if not known:  # an empty table still has its columns
            known = list(given[variants[0]].models)[:1] if variants else [""]
        parts = []
        for model in known:
            own = {name: given[name][given[name]["model"] == model].drop(columns="model") for name in split}
            own |= {name: given[name].of(model_of(model)).settings for name in variants}
            table = function(**{**given, **own})
            table.insert(0, "model", model)
            parts.append(table)
        return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)

    of_all.__annotations__ = {**function.__annotations__, **(types or {})}
    return of_all


def name_models(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have a figure or report see conditions named with their base model, where there are several.

    A table without conditions keeps its column `model` then; with a single model nobody sees it.
    """

    @functools.wraps(function)
    def named(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        tables = {name: value for name, value in given.items() if isinstance(value, pd.DataFrame) and "model" in value}
        several = len({model for table in tables.values() for model in table["model"]}) > 1
        return function(**{**given, **{name: _named(table, several) for name, table in tables.items()}})

    return named


def _named(table: pd.DataFrame, several: bool) -> pd.DataFrame:
    if not several:
        return table.drop(columns="model")
    named = [name for name in ("condition", "scope", "reference") if name in table][:1]
    if not named:
        return table
    return table.assign(**{named[0]: table[named[0]] + " (" + table["model"] + ")"}).drop(columns="model")
