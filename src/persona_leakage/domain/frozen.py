"""Base class of every typed value, and the fingerprint that identifies one by its content."""

import hashlib
import json
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from persona_leakage.domain.errors import UserError

T = TypeVar("T")
SEEDS = 2**32  # what the generators of random numbers of NumPy and PyTorch take
Seed = Annotated[int, Field(ge=0, lt=SEEDS, strict=True)]


class Frozen(BaseModel):
    """An immutable value that refuses unknown keys, and numbers that JSON cannot hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def checked(cls, value: Any, name: str) -> Self:
        """Validate a value that the user wrote under a name.

        Raises:
            UserError: the value does not fit the type; one line names every key at fault.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise UserError(one_line(error, name)) from error


def expect(value: Any, kind: type[T]) -> T:
    """Narrow a value of a union to the one kind that the caller was wired for.

    Raises:
        TypeError: it is of another kind.
    """
    if not isinstance(value, kind):
        raise TypeError(f"wired for {kind.__name__}, got {type(value).__name__}")
    return value


def one_line(error: ValidationError, name: str) -> str:
    """Say every problem of a validation error as `key: problem (got value)`, joined by semicolons."""
    problems = []
    for problem in error.errors():
        key = ".".join([name, *map(str, problem["loc"])])
        if problem["type"] == "extra_forbidden":
            problems.append(f"{key}: there is no such key; correct its spelling or remove it")
        else:
            given = "" if isinstance(problem["input"], dict | list | BaseModel) else f" (got {problem['input']!r:.80})"
            problems.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(problems)


def fingerprint(*parts: Any) -> str:
    """Identify values by content: the digest of their canonical JSON.

    Args:
        *parts: JSON-able values or `Frozen` ones.
    """
    return digest(canonical(*parts))


def canonical(*parts: Any) -> str:
    """Write values as JSON in the one form that fingerprints are taken of: keys sorted, no spaces."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def seed_from(text: str) -> int:
    """Make a seed of a text."""
    return int(digest(text)[:8], 16)


def digest(text: str) -> str:
    """Return the first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
