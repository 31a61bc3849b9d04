"""Probes on real files, and on servers that refuse, stay silent or fail; none of them waits long."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from persona_leakage.domain.packages import installed_version, package_requirements
from persona_leakage.preflight import probes

SHA = "a" * 40


@pytest.fixture
def hub() -> Iterator[str]:
    """A hub that knows model a/b at one revision, forbids a/closed and is broken otherwise."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = 500, {}, {}
            if self.path.startswith("/api/models/a/b/revision/"):
                status, headers = 404, {"X-Error-Code": "RevisionNotFound"}
                if SHA in self.path:
                    files = [{"rfilename": "model.safetensors", "size": 7}, {"rfilename": "config.json", "size": 2}]
                    status, body, headers = 200, {"id": "a/b", "sha": SHA, "siblings": files}, {}
            elif self.path.startswith("/api/datasets/a/closed"):
                status, headers = 403, {"X-Error-Code": "GatedRepo"}
            text = json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(probes, "HUB_SECONDS", 1.0)


def test_the_hub_lists_files_and_refuses_what_it_does_not_have(hub: str) -> None:
    found = probes.ask_hub("model", "a/b", SHA, hub)
    assert (found.state, found.files) == ("found", {"model.safetensors": 7, "config.json": 2})
    assert probes.ask_hub("model", "a/b", "other", hub).state == "refused"
    assert probes.ask_hub("dataset", "a/closed", SHA, hub).state == "refused"
    assert probes.ask_hub("dataset", "a/broken", SHA, hub).state == "unreachable"


def test_a_hub_that_is_off_or_silent_is_unreachable_within_seconds() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (silent.getsockname()[1], 9):
            started = time.monotonic()
            answer = probes.ask_hub("model", "a/b", SHA, f"http://127.0.0.1:{port}")
            assert answer.state == "unreachable"
            assert answer.said
            assert "\n" not in answer.said
            assert time.monotonic() - started < 5


def test_a_call_that_hangs_is_left_to_itself() -> None:
    with pytest.raises(TimeoutError):
        probes.within(0.05, lambda: time.sleep(5))
    with pytest.raises(ZeroDivisionError):
        probes.within(1, lambda: 1 // 0)
    assert probes.within(1, lambda: 3) == 3


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ('{"name": "NVIDIA H200", "free": 1073741824, "total": 2147483648, "build": "13.0"}', probes.Gpu("NVIDIA H200", 2, 1)),
        ('{"name": null, "free": 0, "total": 0, "build": "13.0"}', "torch sees none"),
        ('{"name": null, "free": 0, "total": 0, "build": null}', "the installed torch is a build for CPUs"),
        ("", "torch cannot be asked: ModuleNotFoundError: No module named 'torch'"),
    ],
)
def test_torch_is_asked_in_a_process_of_its_own(told: str, found: object, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = subprocess.CompletedProcess([], 0, told, "Traceback\nModuleNotFoundError: No module named 'torch'\n")
    monkeypatch.setattr(probes.subprocess, "run", lambda *_, **__: answer)
    assert probes.find_gpu() == found


def test_a_torch_that_hangs_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", 120)

    monkeypatch.setattr(probes.subprocess, "run", hang)
    assert "did not answer" in str(probes.find_gpu())


def test_versions_come_from_the_projects_file_with_its_extra(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "p"\ndependencies = ["torch>=2.11", "x; python_version<\'3\'"]\n'
        'optional-dependencies.vllm = ["vllm==0.32.0"]\n'
    )
    assert {name: str(versions) for name, versions in probes.required_versions(tmp_path, "").items()} == {"torch": ">=2.11"}
    assert str(probes.required_versions(tmp_path, "vllm")["vllm"]) == "==0.32.0"
    (tmp_path / "pyproject.toml").write_text("[tool.kedro]\n")  # beside an installed wheel
    assert "torch" in probes.required_versions(tmp_path, "")
    assert "torch" in probes.required_versions(tmp_path / "empty", "")
    assert package_requirements("no-such-package") == {}
    assert installed_version("no-such-package") is None


def test_a_folder_that_does_not_exist_yet_is_judged_by_what_it_would_lie_in(tmp_path: Path) -> None:
    device, free = probes.filesystem(tmp_path / "not" / "yet")
    assert device == tmp_path.stat().st_dev
    assert free > 0
    assert probes.write_problem(tmp_path / "not" / "yet") is None
    assert not list(tmp_path.iterdir())
    assert probes.write_problem(Path("/proc/self")) is not None
