"""The six stage pipelines; families compose them and none of them knows a family."""

from collections.abc import Callable
from functools import partial
from typing import Any


def at_stage(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
    """Fix a node function's `stage`, keeping the name and the annotations that Kedro reads."""
    bound = partial(function, stage=stage)
    bound.__name__ = function.__name__  # type: ignore[attr-defined]
    bound.__annotations__ = function.__annotations__
    return bound
