"""Where a key may stand in the configuration."""

from pathlib import Path

import pytest
from kedro.config import AbstractConfigLoader

from persona_leakage.configuration import ModelConfigLoader
from persona_leakage.domain.errors import UserError
from persona_leakage.keys import refuse_keys
from persona_leakage.settings import CONFIG_LOADER_ARGS
from tests.project import PROJECT

KEY = "sk-ant-api03-planted"
HOLD_A_KEY = {
    "base/credentials.yml": f"anthropic:\n  api_key: {KEY}\n",
    "qwen/credentials.yml": "anthropic: {api_key: planted}\n",
    "qwen/credentials.yaml": "anthropic: {api_key: 12345}\n",
    "test/credentials_mine.json": '{"s3": {"key": "AKIA", "secret": null}}',
    "test/credentials/s3.yml": "s3: [one, {secret: planted}]\n",
    "test/deep/local/credentials.yml": "anthropic: {api_key: planted}\n",
    "credentials.yml": "anthropic: {api_key: planted}\n",
    "base/credentials.yml~": "anthropic: {api_key: planted}\n",
    "base/my_credentials.txt": "planted",
    "cluster/credentials.yml": "anthropic: {api_key: planted\n",
    "embedded/credentials.yml": "anthropic: {api_key: '${oc.env:ANTHROPIC_API_KEY,planted}'}\n",
    "embedded/credentials_old.yml": f"anthropic: null # {KEY}\n",
    "embedded/catalog_mine.yml": f"language_model: {{credentials: {{api_key: {KEY}}}}}\n",
}
HOLD_NONE = {
    "base/credentials.yml": "anthropic: {api_key: '${oc.env:ANTHROPIC_API_KEY,null}'}\ns3: {key: '${oc.env:KEY}'}\n",
    "local/credentials.yml": f"anthropic: {{api_key: {KEY}}}\n",
    "local/deep/credentials.json": f'{{"s3": {{"key": "{KEY}"}}}}',
    "qwen/credentials.yml": "# anthropic: {api_key: …}\n",
    "embedded/parameters.yml": "note: a risk-averse, task-specific reader\n",
}


def put(conf: Path, file: str, text: str) -> Path:
    path = conf / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("file", HOLD_A_KEY)
def test_a_key_outside_local_is_refused_by_the_files_name(tmp_path: Path, file: str) -> None:
    path = put(tmp_path / "conf", file, HOLD_A_KEY[file])
    with pytest.raises(UserError, match=r"conf/local/credentials\.yml") as caught:
        refuse_keys(tmp_path / "conf")
    assert str(caught.value).startswith(f"{path} holds a key")
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("file", HOLD_NONE)
def test_variables_of_the_environment_and_what_stands_in_local_are_no_keys(tmp_path: Path, file: str) -> None:
    put(tmp_path / "conf", file, HOLD_NONE[file])
    refuse_keys(tmp_path / "conf")


def test_the_projects_own_configuration_holds_none() -> None:
    refuse_keys(PROJECT / "conf")


def loaded(conf: Path) -> AbstractConfigLoader:
    put(conf, "base/credentials.yml", "anthropic: {api_key: '${oc.env:A_KEY,null}'}\n")
    put(conf, "qwen/globals.yml", "{}\n")
    return ModelConfigLoader(str(conf), env="qwen", **CONFIG_LOADER_ARGS)


def test_a_key_in_local_is_read_in_every_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "of the environment")
    assert loaded(tmp_path)["credentials"] == {"anthropic": {"api_key": "of the environment"}}
    put(tmp_path, "local/credentials.yml", "s3: {key: mine}\n")
    assert loaded(tmp_path)["credentials"] == {"anthropic": {"api_key": "of the environment"}, "s3": {"key": "mine"}}
    put(tmp_path, "local/credentials.yml", "anthropic: {api_key: of this machine}\n")
    assert loaded(tmp_path)["credentials"] == {"anthropic": {"api_key": "of this machine"}}
