import json
import os
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DatasetError

from tests.datasets.kinds import adapter, catalog, plain_adapters, user_message

OLD, NEW = "2026-01-01T00.00.00.000Z", "2026-02-01T00.00.00.000Z"


def test_a_stage_without_adapters_is_saved_as_an_empty_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "adapters"
    catalog("AdaptersDataset", path, save_version=OLD).save("it", {"final": adapter(tmp_path, "one")})
    entries = catalog("AdaptersDataset", path, save_version=NEW)

    entries.save("it", {})

    assert entries.exists("it")
    assert entries.load("it") == {}
    assert json.loads(entries.get("it").preview()) == {}


def test_checkpoints_keep_their_order(tmp_path: Path) -> None:
    entries = catalog("AdaptersDataset", tmp_path / "adapters")
    entries.save("it", {name: adapter(tmp_path, name) for name in ("final", "epoch_10", "epoch_02")})

    assert list(entries.load("it")) == ["final", "epoch_10", "epoch_02"]


def test_a_loaded_adapter_lies_in_the_dataset_and_outlives_the_training_folder(tmp_path: Path) -> None:
    trained = adapter(tmp_path, "one")
    before = plain_adapters({"final": trained})
    entries = catalog("AdaptersDataset", tmp_path / "data" / "adapters")
    entries.save("it", {"final": trained})
    for file in Path(trained.path).iterdir():
        file.unlink()

    loaded = entries.load("it")

    assert loaded["final"].path == str(tmp_path / "data" / "adapters" / "final")
    assert plain_adapters(loaded) == before


def test_a_version_takes_no_further_space(tmp_path: Path) -> None:
    trained = adapter(tmp_path, "one")
    entries = catalog("AdaptersDataset", tmp_path / "adapters", save_version=NEW)
    entries.save("it", {"final": trained})

    saved = Path(entries.load("it")["final"].path) / "adapter_model.safetensors"

    assert saved.samefile(Path(trained.path) / "adapter_model.safetensors")


def test_an_adapter_is_copied_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    trained = adapter(tmp_path, "one")
    entries = catalog("AdaptersDataset", tmp_path / "adapters")

    entries.save("it", {"final": trained})

    assert plain_adapters(entries.load("it")) == plain_adapters({"final": trained})
    assert not (tmp_path / "adapters/final/provenance.json").samefile(Path(trained.path) / "provenance.json")


def test_a_truncated_adapter_is_named_by_its_folder(tmp_path: Path) -> None:
    entries = catalog("AdaptersDataset", tmp_path / "adapters")
    entries.save("it", {"final": adapter(tmp_path, "one"), "epoch_00": adapter(tmp_path, "two")})
    weights = tmp_path / "adapters" / "epoch_00" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])

    with pytest.raises(DatasetError) as caught:
        entries.load("it")

    assert str(user_message(caught.value)).startswith(
        f"the adapter in {weights.parent} is damaged: {weights.name} is truncated"
    )


def test_an_adapter_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    entries = catalog("AdaptersDataset", tmp_path / "adapters")
    entries.save("it", {"final": adapter(tmp_path, "one")})
    (tmp_path / "adapters" / "final").rename(tmp_path / "elsewhere")

    with pytest.raises(DatasetError) as caught:
        entries.load("it")

    assert str(user_message(caught.value)).startswith(f"the adapter in {tmp_path}/adapters/final is damaged")


def test_an_unversioned_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"{tmp_path}/nowhere"):
        catalog("AdaptersDataset", tmp_path / "nowhere").load("it")


def test_the_preview_shows_the_provenance_without_the_loss_curve(tmp_path: Path) -> None:
    entries = catalog("AdaptersDataset", tmp_path / "adapters", save_version=NEW)
    entries.save("it", {"final": adapter(tmp_path, "one")})

    assert json.loads(entries.get("it").preview()) == {
        "final": {"fingerprint": "one", "trained_on": "base", "log": {"rows": 4}}
    }
