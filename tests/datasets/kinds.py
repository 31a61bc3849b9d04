"""Every file-like dataset class: its catalog entry, two values, and how to compare them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
import pandas as pd
from kedro.io import DataCatalog
from safetensors.numpy import save_file

from persona_leakage.domain.centroids import Centroids
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, BaseModel, ModelStack
from persona_leakage.engines.adapter_folder import at_hand


class Kind(NamedTuple):
    """One dataset class.

    Attributes:
        entry: its catalog entry without the path.
        file: the path's last part.
        first, second: two values, made in a scratch folder.
        plain: turns a value, saved or loaded, into something that can be compared.
    """

    entry: dict[str, Any]
    file: str
    first: Callable[[Path], Any]
    second: Callable[[Path], Any]
    plain: Callable[[Any], Any]


def centroids(fill: float) -> Centroids:
    return Centroids(("français", "b"), {7: np.full((2, 3), fill, np.float32), 10: np.ones((2, 3), np.float32)}, "stack")


def plain_centroids(value: Centroids) -> Any:
    return value.groups, {layer: (array.dtype, array.tolist()) for layer, array in value.layers.items()}, value.stack


def adapter(scratch: Path, fingerprint: str) -> Adapter:
    """Write an adapter folder as the trainer does."""
    folder = scratch / f"trained_{fingerprint}"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"lora_A": np.full((2, 3), len(fingerprint), dtype=np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"r": 2}')
    log = {"rows": 4, "steps": [{"step": 1, "loss": 2.0}]}
    (folder / "provenance.json").write_text(json.dumps({"fingerprint": fingerprint, "trained_on": "base", "log": log}))
    return Adapter(path=str(folder), fingerprint=fingerprint)


def plain_adapters(value: dict[str, Adapter]) -> Any:
    plain = {}
    for checkpoint, one in value.items():
        with at_hand(one.path) as folder:
            plain[checkpoint] = (one.fingerprint, {file.name: file.read_bytes() for file in folder.iterdir()})
    return plain


def stack(name: str) -> ModelStack:
    return ModelStack(base=BaseModel(source="hub", name=name, revision="é"), adapters=(Adapter(path="p", fingerprint="f"),))


def figure(width: float) -> matplotlib.figure.Figure:
    return matplotlib.figure.Figure(figsize=(width, 1), dpi=100)


def png_size(value: Any) -> tuple[int, int]:
    """Width and height in pixels of a figure or of the bytes of a PNG."""
    if not isinstance(value, bytes):
        return round(value.get_figwidth() * 100), round(value.get_figheight() * 100)
    assert value.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(value[16:20]), int.from_bytes(value[20:24])


KINDS = {
    "JSONLinesDataset": Kind(
        {},
        "rows.jsonl",
        lambda _: [{"text": "žluť\u2028\n\r\x85", "n": 1}, {"nested": {"a": [None, True, 0.5]}}],
        lambda _: [{"text": "second"}],
        lambda rows: rows,
    ),
    "CentroidsDataset": Kind({}, "centroids.safetensors", lambda _: centroids(0.1), lambda _: centroids(-2.0), plain_centroids),
    "AdaptersDataset": Kind(
        {},
        "adapters",
        lambda scratch: {"epoch_00": adapter(scratch, "one"), "final": adapter(scratch, "three")},
        lambda scratch: {"final": adapter(scratch, "four")},
        plain_adapters,
    ),
    "FrozenDataset": Kind(
        {"value": "persona_leakage.domain.models.ModelStack"},
        "stack.json",
        lambda _: stack("first"),
        lambda _: stack("second"),
        lambda value: value,
    ),
    "JSONDataset": Kind(
        {"save_args": {"indent": 1, "ensure_ascii": False}},
        "gates.json",
        lambda _: {"é": [1, None, {"a": 0.25}]},
        lambda _: [],
        lambda value: value,
    ),
    "TextDataset": Kind({}, "report.md", lambda _: "# Übersicht\n", lambda _: "second", lambda value: value),
    "CSVDataset": Kind(
        {"save_args": {"index": False}},
        "rates.csv",
        lambda _: pd.DataFrame({"cell": ["é, ü", "b"], "rate": [0.5, None], "n": [80, 0]}),
        lambda _: pd.DataFrame({"cell": ["c"], "rate": [1.0], "n": [3]}),
        lambda frame: frame.to_json(),
    ),
    "FigureDataset": Kind({"save_args": {"dpi": 100}}, "figure.png", lambda _: figure(2), lambda _: figure(3), png_size),
}
VERSIONED = ["JSONLinesDataset", "CentroidsDataset", "AdaptersDataset"]


def catalog(
    name: str, path: str | Path, *, save_version: str | None = None, load_version: str | None = None, **more: Any
) -> Any:
    """Build a real catalog with the one entry `it`, as Kedro does from YAML."""
    entry = {"type": f"persona_leakage.datasets.{name}", "filepath": str(path), **KINDS[name].entry, **more}
    if save_version or load_version:
        entry["versioned"] = True
    versions = {"it": load_version} if load_version else None
    return DataCatalog.from_config({"it": entry}, save_version=save_version, load_versions=versions)


def user_message(error: BaseException | None) -> str | None:
    """The text that the command line shows; None when it would show a traceback."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return None if error is None else str(error)
