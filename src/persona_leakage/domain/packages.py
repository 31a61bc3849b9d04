"""What packages are installed, and which versions of others they ask for."""

import importlib.metadata
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


def installed_version(package: str) -> str | None:
    """Look up an installed package; None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_requirements(package: str, extra: str = "") -> dict[str, SpecifierSet]:
    """Read which versions an installed package asks for; nothing without it."""
    try:
        return read_requirements(importlib.metadata.requires(package) or [], extra)
    except importlib.metadata.PackageNotFoundError:
        return {}


def read_requirements(lines: Iterable[str], extra: str) -> dict[str, SpecifierSet]:
    """Read lines of requirements that apply here, with one of the extras: package in lower case → versions."""
    asked: dict[str, SpecifierSet] = {}
    for one in map(Requirement, lines):
        if one.marker is None or one.marker.evaluate({"extra": extra}):
            asked[one.name.lower()] = asked.get(one.name.lower(), SpecifierSet()) & one.specifier
    return asked
