import json
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.io import DataCatalog, DatasetError

from persona_leakage.datasets import EngineDataset
from persona_leakage.engines.hidden_states import HiddenStateExtractor
from persona_leakage.engines.peft_trainer import PeftTrainer
from persona_leakage.engines.transformers_generator import TransformersGenerator
from tests.project import PROJECT

ENGINES = {
    "peft_trainer": PeftTrainer,
    "transformers_generator": TransformersGenerator,
    "hidden_state_extractor": HiddenStateExtractor,
}
IMPORTS = """
import json, sys
from kedro.io import DataCatalog
entries = DataCatalog.from_config(json.loads(sys.argv[1]))
print([type(entries.load(name)).__name__ for name in entries.keys()])
print([name for name in ("torch", "transformers", "peft", "trl", "datasets") if name in sys.modules])
"""


def entry(engine: str) -> dict[str, object]:
    options = {"batch_rows": 3} if engine == "transformers_generator" else {}
    return {
        "type": "persona_leakage.datasets.EngineDataset",
        "engine": engine,
        "cache": "c",
        "device": "cpu",
        "options": options,
    }


def test_engines_are_built_without_importing_torch() -> None:
    config = json.dumps({name: entry(name) for name in ENGINES})

    done = subprocess.run([sys.executable, "-c", IMPORTS, config], capture_output=True, text=True, check=True, timeout=120)

    assert done.stdout.splitlines() == ["['PeftTrainer', 'TransformersGenerator', 'HiddenStateExtractor']", "[]"]


@pytest.mark.parametrize("name", ENGINES)
def test_an_entry_builds_its_engine_with_its_arguments(name: str) -> None:
    engine = DataCatalog.from_config({"it": entry(name)}).load("it")

    assert type(engine) is ENGINES[name]
    assert engine.device == "cpu"
    assert getattr(engine, "_batch_rows", 3) == 3


@pytest.mark.parametrize("place", ["notebooks", "src/persona_leakage"])
def test_a_relative_cache_is_the_projects_wherever_in_it_one_is(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(PROJECT / place)
    assert DataCatalog.from_config({"it": entry("peft_trainer")}).load("it").cache == PROJECT / "c"


def test_a_cache_elsewhere_is_taken_as_it_is_and_outside_a_project_is_that_of_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert EngineDataset(engine="peft_trainer", cache="c", device="cpu").load().cache == tmp_path / "c"
    assert EngineDataset(engine="peft_trainer", cache="/elsewhere/c", device="cpu").load().cache == Path("/elsewhere/c")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(DatasetError, match="there is no engine 'steam'"):
        EngineDataset(engine="steam", cache="c").load()  # type: ignore[arg-type]


def test_an_engine_cannot_be_saved() -> None:
    with pytest.raises(DatasetError, match="an engine cannot be saved"):
        DataCatalog.from_config({"it": entry("peft_trainer")}).save("it", 1)


def test_an_option_that_the_engine_does_not_have_is_refused() -> None:
    with pytest.raises(DatasetError, match="batch_size"):
        EngineDataset(engine="transformers_generator", cache="c", options={"batch_size": 3}).load()
