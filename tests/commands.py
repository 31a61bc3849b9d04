"""Several `kedro` commands in one process, which saves importing everything anew for each."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.project import Project

_RUNNER = """
import contextlib, gc, io, json, pathlib, sys, traceback
from kedro.framework.cli import main

results = []
for arguments, files in json.load(sys.stdin):
    kept = {path: pathlib.Path(path).read_bytes() for path in files}
    for path, content in files.items():
        pathlib.Path(path).write_text(content, encoding="utf-8")
    sys.argv = ["kedro", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = 1
            traceback.print_exc()
    for path, content in kept.items():
        pathlib.Path(path).write_bytes(content)
    gc.freeze()  # the run collects garbage after every step, which need not go through all imported modules
    results.append([code, out.getvalue(), err.getvalue().strip()])
print("RESULTS" + json.dumps(results))
"""


class Done(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    stdout: str
    stderr: str


def run_all(
    project: Project,
    commands: Sequence[Sequence[str]],
    files: Mapping[int, Mapping[str, str]] | None = None,
    env: str = "test",
) -> list[Done]:
    """Run commands of the project one after another.

    Args:
        project: where they run.
        commands: the arguments of each.
        files: position of a command → path → content that a file of the project has while it runs.
        env: environment of the configuration.
    """
    given = [[list(arguments), dict((files or {}).get(place, {}))] for place, arguments in enumerate(commands)]
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER],
        cwd=project.folder,
        env=project.environment | {"KEDRO_ENV": env},
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    _, found, results = done.stdout.rpartition("RESULTS")
    assert found, done.stdout + done.stderr
    return [Done(*result) for result in json.loads(results)]
