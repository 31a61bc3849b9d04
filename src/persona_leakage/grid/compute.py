"""Compute one point, without the report: `python -m persona_leakage.grid.compute PARENT JSON` in a process of its own."""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from kedro.framework.project import configure_project
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project

from persona_leakage.domain.dose import NeverReachedError
from persona_leakage.grid.records import point_stages
from persona_leakage.user_message import user_message


def compute(family: str, env: str | None, params: Mapping[str, Any]) -> None:
    """Run every stage of a point in this process; the current folder is the project's.

    A training that never reaches its matched dose has no more stages, and ends as well as any: that is its result.
    """
    with KedroSession.create(env=env, runtime_params=dict(params)) as session:
        try:
            session.run(pipeline_names=[family], tags=point_stages(family))  # type: ignore[call-arg]
        except NeverReachedError as result:
            print(result)


def configure() -> None:
    """Tell Kedro of the project in the current folder or, where that has no source, of the installed package."""
    if find_kedro_project(Path.cwd()):
        bootstrap_project(Path.cwd())
    else:
        configure_project("persona_leakage")


def die_with(parent: int) -> None:
    """Kill this process within a second of the end of the one that started it, however that ends.

    Args:
        parent: the process id that it had, for it may have ended already.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, daemon=True).start()


def main(parent: str, given: str) -> int:
    """Compute the point that a JSON object names by family, env and params; return the exit status."""
    die_with(int(parent))
    configure()
    try:
        compute(**json.loads(given))
    except Exception as error:
        if (said := user_message(error)) is None:
            raise
        print(f"Error: {said}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
