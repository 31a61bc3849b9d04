"""The datasets of one file that are not versioned: frozen values, JSON, text, tables and figures."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DatasetError

from persona_leakage.datasets import FrozenDataset
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.recipe import Lora
from tests.datasets.kinds import KINDS, catalog, figure, stack, user_message

LORA = {"rank": 2, "alpha": 4, "rslora": True, "dropout": 0.0, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"base": {"source": "hub", "na',
        b"[]",
        b'{"base": {"source": "hub", "name": "n", "revision": "r"}, "older_key": 1}',
        b'{"base": {"source": "floppy", "name": "n", "revision": "r"}}',
        b"\xff\xfe\x00\x01",
    ],
)
def test_a_damaged_or_outdated_frozen_value_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "stack.json"
    path.write_bytes(content)

    with pytest.raises(DatasetError) as caught:
        catalog("FrozenDataset", path).load("it")

    assert user_message(caught.value) == f"{path} is no ModelStack; delete it and run again"


def test_a_frozen_value_is_checked_against_the_type_of_its_entry(tmp_path: Path) -> None:
    path = tmp_path / "lora.json"
    path.write_text(json.dumps(LORA))

    assert FrozenDataset(filepath=str(path), value="persona_leakage.domain.recipe.Lora").load() == Lora.model_validate(LORA)
    path.write_text(json.dumps({**LORA, "rank": 0}))
    with pytest.raises(DatasetError, match="is no Lora"):
        FrozenDataset(filepath=str(path), value="persona_leakage.domain.recipe.Lora").load()


def test_a_loaded_frozen_value_has_the_fingerprint_of_the_saved_one(tmp_path: Path) -> None:
    entries = catalog("FrozenDataset", tmp_path / "stack.json")
    entries.save("it", stack("n"))

    loaded = entries.load("it")

    assert isinstance(loaded, ModelStack)
    assert loaded.fingerprint == stack("n").fingerprint


def previewed(tmp_path: Path, name: str) -> Any:
    kind = KINDS[name]
    entries = catalog(name, tmp_path / kind.file)
    entries.save("it", kind.first(tmp_path))
    return entries.get("it").preview()


def test_previews_of_json_show_the_content(tmp_path: Path) -> None:
    assert json.loads(previewed(tmp_path, "JSONDataset")) == {"é": [1, None, {"a": 0.25}]}
    assert ModelStack.model_validate_json(previewed(tmp_path, "FrozenDataset")) == stack("first")


def test_the_preview_of_a_table_shows_its_first_rows_and_leaves_loading_alone(tmp_path: Path) -> None:
    entries = catalog("CSVDataset", tmp_path / "rates.csv")
    entries.save("it", KINDS["CSVDataset"].first(tmp_path))

    preview = entries.get("it").preview(nrows=1)

    assert (preview["columns"], preview["data"]) == (["cell", "rate", "n"], [["é, ü", 0.5, 80]])
    assert len(entries.load("it")) == 2


def test_the_preview_of_a_figure_is_the_files_bytes(tmp_path: Path) -> None:
    assert base64.b64decode(previewed(tmp_path, "FigureDataset")) == (tmp_path / "figure.png").read_bytes()


def test_a_figure_loads_as_the_bytes_of_its_png(tmp_path: Path) -> None:
    entries = catalog("FigureDataset", tmp_path / "figure.png")
    entries.save("it", figure(2))

    loaded = entries.load("it")

    assert isinstance(loaded, bytes)
    assert loaded == (tmp_path / "figure.png").read_bytes()
    assert loaded[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(loaded[16:20]), int.from_bytes(loaded[20:24])) == (200, 100)


@pytest.mark.parametrize("args", [{}, {"save_args": {"indent": 1}}])
def test_a_number_that_json_lacks_is_not_written(tmp_path: Path, args: dict[str, Any]) -> None:
    document = catalog("JSONDataset", tmp_path / "it.json", **args)
    document.save("it", {"a": None})

    with pytest.raises(DatasetError):
        document.save("it", {"a": float("nan")})
    assert document.load("it") == {"a": None}
