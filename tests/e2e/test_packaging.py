"""The packaged project: what it holds, and that it runs where there is nothing else."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.commands import run_all
from tests.project import PROJECT, Project

KEY = "sk-ant-api03-planted"


def test_a_key_that_would_be_packaged_is_refused_by_every_command(project: Project) -> None:
    planted = {"conf/base/credentials.yml": f"anthropic: {{api_key: {KEY}}}\n"}
    commands = [
        ["package"],
        ["run", "--pipeline=lang_inversion"],
        ["run", "--pipeline=lang_inversion_replay", "--params=completions_file=none.jsonl"],
        ["grid", "lang_inversion", "--dry-run"],
        ["preflight", "lang_inversion"],
    ]

    for done in run_all(project, commands, dict.fromkeys(range(len(commands)), planted)):
        assert done.code == 1, done.stdout
        (line,) = done.stderr.splitlines()
        assert "conf/base/credentials.yml holds a key" in line
        assert "conf/local/credentials.yml" in line
        assert KEY not in done.stdout + done.stderr
    assert not (project.folder / "dist").exists()


@pytest.mark.slow
def test_the_package_holds_no_key_and_runs_from_an_empty_folder(
    project: Project, tmp_path: Path, tiny_model_folder: Path
) -> None:
    for name in ("README.md", "LICENSE", ".telemetry"):
        shutil.copy(PROJECT / name, project.folder)
    local = project.folder / "conf/local"
    local.mkdir()
    (local / "credentials.yml").write_text(f"anthropic: {{api_key: {KEY}}}\n")
    (local / "catalog_of_mine.json").write_text(f'{{"key": "{KEY}"}}\n')
    done = project.kedro("package", timeout=300)
    assert done.returncode == 0, done.stderr

    (wheel,) = (project.folder / "dist").glob("*.whl")
    archives = sorted((project.folder / "dist").glob("*.tar.gz"))
    assert [archive.name for archive in archives] == ["conf-persona_leakage.tar.gz", "data-persona_leakage.tar.gz"]
    empty = tmp_path / "empty"
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(empty, filter="data")
    with zipfile.ZipFile(wheel) as packed:
        assert not any(KEY.encode() in packed.read(name) for name in packed.namelist())
    assert not any(KEY.encode() in file.read_bytes() for file in empty.rglob("*") if file.is_file())
    assert not (empty / "conf/local").exists()

    venv.create(tmp_path / "venv", system_site_packages=False, with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    libraries = Path(sys.prefix) / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    environment = {**os.environ, "PYTHONPATH": str(libraries), "OMP_NUM_THREADS": "1", "COLUMNS": "300"}

    def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        installed = [tmp_path / "venv/bin/persona_leakage", *arguments]
        return subprocess.run(installed, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    lacking = command(tmp_path, "--pipeline=lang_inversion", "--env=test")
    assert lacking.returncode == 1
    assert "from the archive that kedro package makes" in lacking.stderr.splitlines()[-1]

    raw = (empty / "data/01_raw").rename(empty / "raw")
    lacking = command(empty, "--pipeline=marker_leakage", "--env=test")
    assert lacking.returncode == 1
    assert "data/01_raw/" in lacking.stderr.splitlines()[-1]
    assert "data-persona_leakage.tar.gz" in lacking.stderr.splitlines()[-1]
    raw.rename(empty / "data/01_raw")

    (empty / "data/test_model").symlink_to(tiny_model_folder, target_is_directory=True)
    examined = command(empty, "preflight", "lang_inversion", "--env=test", "--axes", "condition=baseline")
    assert examined.returncode == 0, examined.stderr
    assert "1 of 1 points to run" in examined.stdout
    ran = command(empty, "--pipeline=lang_inversion", "--env=test", "--params=condition=baseline")
    assert ran.returncode == 0, ran.stderr
    assert (empty / "data/08_reporting/test/lang_inversion/report.html").is_file()
    joined = command(empty, "grid", "lang_inversion", "--env=test", "--axes", "condition=baseline", "seed=42,7")
    assert joined.returncode == 0, joined.stdout + joined.stderr
    assert "1 of 2 points to run" in joined.stdout
    assert (empty / "data/08_reporting/test/lang_inversion/tiny/baseline/seed_7/run_record.json").is_file()
