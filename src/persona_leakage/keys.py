"""Keys come from the environment or from `conf/local`; configuration that is committed and packaged holds none."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from persona_leakage.domain.errors import UserError

LOCAL = "local"
# a name of a variable, which may be missing; a default that is text would be a key
_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*\w+\s*(,\s*(null)?\s*)?\}")
_KEY = re.compile(r"\bsk-[\w-]{8,}")  # how keys of language models' APIs begin


def shared_files(conf: Path) -> list[Path]:
    """List the files of a folder of configuration that may leave the machine: all but those of `local`."""
    return sorted(file for file in conf.rglob("*") if file.is_file() and file.relative_to(conf).parts[0] != LOCAL)


def refuse_keys(conf: Path) -> None:
    """Refuse a configuration with a key in another folder than `local`.

    What is called credentials may name variables of the environment and say nothing else. In other files text that begins like
    a key is one, in a comment too.

    Raises:
        UserError: naming the file.
    """
    for file in shared_files(conf):
        if _holds_key(file.read_text(encoding="utf-8", errors="replace"), _of_credentials(file.relative_to(conf))):
            raise UserError(
                f"{file} holds a key, or what reads like one, and would be packaged and shared with it: move it to "
                f"{conf / LOCAL / 'credentials.yml'}, which stays here, or export it (ANTHROPIC_API_KEY)"
            )


def _of_credentials(file: Path) -> bool:
    return any("credentials" in part.lower() for part in file.parts)


def _holds_key(text: str, of_credentials: bool) -> bool:
    if _KEY.search(text):
        return True
    if not of_credentials:
        return False
    try:
        told = list(_values(yaml.safe_load(text)))
    except yaml.YAMLError:  # a backup, or a file that no run could read
        return True
    return not all(value is None or _FROM_ENVIRONMENT.fullmatch(str(value)) for value in told)


def _values(tree: Any) -> Iterator[Any]:
    """Yield every value of nested blocks and lists."""
    if isinstance(tree, dict | list):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from _values(branch)
    else:
        yield tree
