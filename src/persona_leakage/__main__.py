"""Entry point of the packaged project: `python -m persona_leakage [run|grid|preflight]`."""

import sys
from collections.abc import Sequence
from typing import Any

from kedro.framework.project import configure_project


def main(args: Sequence[str] | None = None, **options: Any) -> Any:
    """Run a command of the project: `run`, unless another is named.

    Args:
        args: the command's words; by default those that the process was started with.
        options: those of click.
    """
    configure_project("persona_leakage")
    from persona_leakage.cli import cli

    given = list(sys.argv[1:] if args is None else args)
    named = given and (given[0] in cli.commands or given[0] == "--help")
    return cli(given if named else ["run", *given], **{"standalone_mode": not hasattr(sys, "ps1"), **options})


if __name__ == "__main__":
    main()
