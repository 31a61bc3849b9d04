"""A throw-away copy of the project in which commands run as a user runs them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]


class Project:
    """A folder with the project's configuration, bundled inputs and two tiny models: `tiny` and, beside it, `tiny_too`."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        for name in ("conf", "src"):
            shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "local"))
        shutil.copy(PROJECT / "pyproject.toml", folder)
        shutil.copytree(PROJECT / "data/01_raw", folder / "data/01_raw")
        for name, made in (("test_model", model), ("other_test_model", model.with_name("other_model"))):
            (folder / "data" / name).symlink_to(made, target_is_directory=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.folder / "src"), str(PROJECT)]),
            "KEDRO_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
            "COLUMNS": "300",
        }

    def kedro(
        self, *arguments: str, env: str | None = "test", timeout: float = 120, within: str = "."
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder of the project."""
        command = [sys.executable, "-m", "kedro", *arguments]
        environment = self.environment | ({"KEDRO_ENV": env} if env else {})
        folder = self.folder / within
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def run(self, params: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.kedro("run", "--pipeline=lang_inversion", "--params", params, *arguments)

    def data(self, path: str) -> Path:
        """Resolve a path below data/<layer>/test/lang_inversion, a point's as `<layer>/<model>/<condition>/seed_<n>/…`."""
        layer, _, rest = path.partition("/")
        return self.folder / "data" / layer / "test" / "lang_inversion" / rest

    def latest(self, path: str) -> Path:
        """Resolve the newest version of a versioned file."""
        file = self.data(path)
        return sorted(file.glob(f"*/{file.name}"))[-1]
