import json
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError
from safetensors.numpy import load_file, save_file

from persona_leakage.domain.centroids import Centroids
from tests.datasets.kinds import catalog, centroids, plain_centroids, user_message


def test_layers_are_named_tensors_in_numerical_order(tmp_path: Path) -> None:
    value = Centroids(("a",), {layer: np.full((1, 2), layer, np.float32) for layer in (25, 2, 10)}, "s")
    entries = catalog("CentroidsDataset", tmp_path / "c.safetensors")
    entries.save("it", value)

    assert sorted(load_file(tmp_path / "c.safetensors")) == ["layer_10", "layer_2", "layer_25"]
    assert [(layer, array[0, 0]) for layer, array in entries.load("it").layers.items()] == [(2, 2), (10, 10), (25, 25)]


def test_vectors_are_kept_as_float32_whatever_their_layout(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float64).reshape(3, 2).T  # not contiguous
    entries = catalog("CentroidsDataset", tmp_path / "c.safetensors")
    entries.save("it", Centroids(("a", "b"), {0: vectors}, "s"))

    loaded = entries.load("it").layers[0]

    assert loaded.dtype == np.float32
    assert loaded.tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("length", [0, 4, 30, -1])
def test_a_truncated_file_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "c.safetensors"
    entries = catalog("CentroidsDataset", path)
    entries.save("it", centroids(1.0))
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(DatasetError) as caught:
        entries.load("it")

    assert user_message(caught.value) == f"{path} holds no centroids or is truncated; delete it and run again"


@pytest.mark.parametrize(
    ("tensor", "metadata"),
    [
        ("layer_0", None),
        ("layer_0", {"groups": '["a"]'}),
        ("layer_0", {"groups": "no JSON", "stack": "s"}),
        ("weight", {"groups": '["a"]', "stack": "s"}),
    ],
)
def test_a_file_of_other_tensors_is_named(tmp_path: Path, tensor: str, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "c.safetensors"
    save_file({tensor: np.ones((1, 2), np.float32)}, path, metadata=metadata)

    with pytest.raises(DatasetError) as caught:
        catalog("CentroidsDataset", path).load("it")

    assert user_message(caught.value) == f"{path} holds no centroids or is truncated; delete it and run again"


def test_the_preview_shows_groups_shapes_and_stack(tmp_path: Path) -> None:
    entries = catalog("CentroidsDataset", tmp_path / "c.safetensors", save_version="2026-01-01T00.00.00.000Z")
    entries.save("it", centroids(1.0))

    assert json.loads(entries.get("it").preview()) == {
        "groups": ["français", "b"],
        "shapes": {"layer 7": [2, 3], "layer 10": [2, 3]},
        "stack": "stack",
    }
    assert plain_centroids(entries.load("it")) == plain_centroids(centroids(1.0))
