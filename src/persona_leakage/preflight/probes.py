"""Look at machine, packages, hub and disk, without waiting long, loading a model or importing torch."""

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, Literal, NamedTuple, TypeVar

import psutil
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError
from packaging.specifiers import SpecifierSet

from persona_leakage.domain.packages import package_requirements, read_requirements

T = TypeVar("T")

HUB_SECONDS = 5.0
_TORCH_SECONDS = 120.0
_ASK_TORCH = """
import json, torch
seen = torch.cuda.is_available()
free, total = torch.cuda.mem_get_info() if seen else (0, 0)
print(json.dumps({"name": torch.cuda.get_device_name() if seen else None, "free": free, "total": total,
                  "build": torch.version.cuda or torch.version.hip}))
"""


class Gpu(NamedTuple):
    """The GPU that torch would use."""

    name: str
    total_gib: float
    free_gib: float


class OnHub(NamedTuple):
    """What the hub says of a repository at a revision.

    Attributes:
        state: `refused` is an answer (no such repository or revision, no access), `unreachable` is none.
        said: the cause, unless it was found.
        files: name → bytes, where it was found.
    """

    state: Literal["found", "refused", "unreachable"]
    said: str = ""
    files: Mapping[str, int] = {}


def find_gpu() -> Gpu | str:
    """Ask torch, in a process of its own, for the GPU that it would use; without one, say why."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_TORCH_SECONDS, check=False
        )
        told = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return f"torch did not answer within {_TORCH_SECONDS:.0f} s"
    except (IndexError, ValueError):
        return f"torch cannot be asked: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]:.120}"
    if told["name"] is None:
        return "torch sees none" if told["build"] else "the installed torch is a build for CPUs"
    return Gpu(told["name"], told["total"] / 2**30, told["free"] / 2**30)


def available_memory_gib() -> float:
    """Read how much memory new processes can have."""
    return float(psutil.virtual_memory().available / 2**30)


def required_versions(project: Path, extra: str) -> dict[str, SpecifierSet]:
    """Read which versions the project asks for, with one of its extras: from its pyproject.toml or, installed, its metadata."""
    file = project / "pyproject.toml"
    table = tomllib.loads(file.read_text()).get("project", {}) if file.is_file() else {}
    if "dependencies" in table:
        return read_requirements([*table["dependencies"], *table.get("optional-dependencies", {}).get(extra, [])], extra)
    return package_requirements("persona_leakage", extra)


def ask_hub(kind: Literal["model", "dataset"], repository: str, revision: str, endpoint: str | None = None) -> OnHub:
    """Ask the hub for a repository's files at a revision, and wait no longer than twice `HUB_SECONDS`."""
    api = HfApi(endpoint=endpoint)
    ask: Callable[..., Any] = api.model_info if kind == "model" else api.dataset_info
    try:
        info = within(2 * HUB_SECONDS, lambda: ask(repository, revision=revision, timeout=HUB_SECONDS, files_metadata=True))
    except RevisionNotFoundError:
        return OnHub("refused", f"it has no revision {revision}")
    except RepositoryNotFoundError:
        return OnHub("refused", "there is no such repository, or it is not open to you")
    except OfflineModeIsEnabled:
        return OnHub("unreachable", "HF_HUB_OFFLINE is set")
    except HfHubHTTPError as error:
        status = error.response.status_code
        return OnHub("refused" if status in (401, 403) else "unreachable", f"it answers with status {status}")
    except Exception as error:  # whatever the HTTP library raises
        return OnHub("unreachable", f"{type(error).__name__} {error}".strip().splitlines()[0][:80])
    return OnHub("found", files={file.rfilename: file.size or 0 for file in info.siblings or []})


def cached_files(repository: str, revision: str) -> dict[str, int]:
    """List a model's files that lie in the hub's cache: name → bytes."""
    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    if not isinstance(config, str):
        return {}
    snapshot = Path(config).parent
    return {str(file.relative_to(snapshot)): file.stat().st_size for file in snapshot.rglob("*") if file.is_file()}


def filesystem(folder: Path) -> tuple[int, float]:
    """Identify the filesystem that a folder lies on, or would lie on, and tell its free GiB."""
    there = _existing(folder)
    return there.stat().st_dev, shutil.disk_usage(there).free / 2**30


def write_problem(folder: Path) -> str | None:
    """Try to write where a folder is or would be; None if it can be done, else the cause."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return None
    except OSError as error:
        return error.strerror or str(error)


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns, or raise what it raises; a call that takes longer is left to itself.

    Raises:
        TimeoutError: it took longer.
    """
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(call())
        except Exception as error:
            ended.set_exception(error)

    Thread(target=run, daemon=True).start()  # looking up a name has no timeout of its own
    return ended.result(seconds)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
