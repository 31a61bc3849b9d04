"""Entry point of the packaged project: `python -m persona_leakage`."""

import sys
from pathlib import Path
from typing import Any

from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import configure_project


def main(*args: Any, **kwargs: Any) -> Any:
    """Run the project's `run` command."""
    package = Path(__file__).parent.name
    configure_project(package)
    return find_run_command(package)(*args, standalone_mode=not hasattr(sys, "ps1"), **kwargs)


if __name__ == "__main__":
    main()
