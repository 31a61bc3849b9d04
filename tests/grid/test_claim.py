"""One grid at a time on a family's data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.grid.claim import claimed


def test_a_folder_is_claimed_once_and_free_again_afterwards(tmp_path: Path) -> None:
    folder = str(tmp_path / "family")
    with claimed(folder), pytest.raises(UserError, match=f"another grid is running on {folder}"), claimed(folder):
        pass
    with claimed(folder):
        pass


def test_the_claim_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    code = (
        "import os, signal; from persona_leakage.grid.claim import claimed\n"
        f"with claimed({str(tmp_path)!r}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with claimed(str(tmp_path)):
        pass


def test_a_bucket_is_claimed_once_and_free_again_afterwards(bucket: str) -> None:
    with claimed(f"{bucket}/family"), pytest.raises(UserError, match=f"process {os.getpid()} on "), claimed(f"{bucket}/family"):
        pass
    with claimed(f"{bucket}/family"):
        pass
    assert not fsspec.filesystem("s3").exists("study/family/grid.claim.json")


def test_two_that_create_the_claim_at_once_cannot_both_have_it(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("s3")
    monkeypatch.setattr(files, "exists", lambda *_: False)  # neither sees the other's beforehand
    files.pipe_file("study/race/grid.claim.json", json.dumps({"host": "other", "process": 1, "since": "now"}).encode())
    with pytest.raises(UserError, match="process 1 on other since now"), claimed(f"{bucket}/race"):
        pass
