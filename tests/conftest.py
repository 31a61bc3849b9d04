from pathlib import Path

import pytest

from persona_leakage.domain.models import BaseModel
from tests.project import Project
from tests.tiny_model import build_tiny_model


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_base(tiny_model_folder: Path) -> BaseModel:
    return BaseModel(source="folder", name=str(tiny_model_folder), revision="test", dtype="float32")


@pytest.fixture
def project(tmp_path: Path, tiny_model_folder: Path) -> Project:
    return Project(tmp_path / "project", tiny_model_folder)
