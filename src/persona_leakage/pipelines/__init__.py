"""The six stage pipelines; families compose them and none of them knows a family."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from kedro.pipeline import Pipeline, node, pipeline
from kedro.pipeline.node import Node

STAGES = ("data_generation", "fine_tuning", "generation", "scoring", "geometry", "reporting")


def in_stage(nodes: Iterable[Node | Pipeline], stage: str) -> Pipeline:
    """Put nodes into one of the six stages: its tag selects them, and its namespace is what kedro-viz folds them into."""
    return pipeline(nodes, namespace=stage, prefix_datasets_with_namespace=False, tags=stage)


def step(
    function: Callable[..., Any], inputs: str | list[str] | dict[str, str], outputs: str | list[str], **fixed: Any
) -> Node:
    """Make a node that is named after its function, with some of the arguments fixed."""
    return node(bind(function, **fixed) if fixed else function, inputs, outputs, name=function.__name__)


def bind(function: Callable[..., Any], types: Mapping[str, Any] | None = None, **fixed: Any) -> Callable[..., Any]:
    """Fix arguments of a node function, keeping the name and the annotations that Kedro reads.

    Args:
        function: the node function.
        types: argument → its type, where a family's own says more than the function's; Kedro checks parameters against them.
        **fixed: arguments and their values.
    """
    bound = partial(function, **fixed)
    bound.__name__ = function.__name__  # type: ignore[attr-defined]
    bound.__annotations__ = {**function.__annotations__, **(types or {})}
    return bound
