"""Every architecture is right or refused, as docs/models.md says it is."""

from pathlib import Path

import pytest

from persona_leakage.domain.models import BaseModel
from tests.engines.architectures import ARCHITECTURES, CHECKS, build, find, read_table

TABLE = read_table()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return build(architecture, tmp_path_factory.mktemp("architecture") / "model")


@pytest.mark.parametrize("check", CHECKS)
def test_the_model_is_right_or_refused_as_the_page_says(architecture: str, base: BaseModel, check: str) -> None:
    assert find(check, base, Path(base.name).parent / "cache") == TABLE[architecture][check]


def test_the_page_has_every_architecture() -> None:
    assert list(TABLE) == list(ARCHITECTURES)
