"""What a run leaves behind so that its numbers can be traced: code, machine, parameters, versions, times."""

import datetime
import hashlib
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from persona_leakage.domain.cores import cores
from persona_leakage.domain.packages import installed_version
from persona_leakage.machine import processor

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "vllm",
    "kedro",
    "kedro-datasets",
    "langdetect",
    "lingua-language-detector",
    "pandas",
    "scipy",
)

UNREACHED = "never reached"  # status of a run whose training has no matched dose: a result, and nothing to try again


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def peak_rss_gib() -> float:
    """Return the largest resident memory this process has had."""
    unit = 1 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def count_tokens(dataset: str, value: Any) -> int:
    """Count the tokens that were sampled (completions, answers) or trained on (the log of a stage's last checkpoint)."""
    kind = dataset.rpartition(".")[2]
    if kind in ("completions", "gauge_completions", "answers"):
        return sum(row.get("tokens", 0) for row in value)
    return int(value["final"]["tokens"]) if kind == "training_log" and "final" in value else 0


def count_left_out(dataset: str, value: Any) -> int:
    """Count the rows that a stage did not train on because they were too long."""
    last = value.get("final", {}) if dataset.rpartition(".")[2] == "training_log" else {}
    return int(last.get("left_out", 0))


def describe_code(project: Path) -> dict[str, Any]:
    """Describe the code: git commit, whether the tree differs from it, and the hash of the locked requirements.

    A copy without git's history, on a cluster or in a container, is told its commit by PERSONA_LEAKAGE_COMMIT.
    """
    lock = project / "requirements.lock"
    return {
        "commit": _git(project, "rev-parse", "HEAD") or os.environ.get("PERSONA_LEAKAGE_COMMIT"),
        "modified": bool(_git(project, "status", "--porcelain", "--untracked-files=no")),
        "requirements_lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "packages": {name: installed_version(name) for name in PACKAGES},
        "python": platform.python_version(),
    }


def describe_machine() -> dict[str, Any]:
    """Describe the machine: host, platform, processor, cores in use, GPU if torch was loaded and sees one, peak memory."""
    torch = sys.modules.get("torch")
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None,
        "peak_rss_gib": peak_rss_gib(),
    }


def _git(project: Path, *arguments: str) -> str | None:
    try:
        return subprocess.run(
            ["git", "-C", str(project), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
